"""Rendered manifests as text that knows its lines: every object with its file, duplicate keys noticed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from qwenhost.errors import BadInputError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]
Severity = Literal["error", "warning"]


class Finding(Value, frozen=True, kw_only=True):
    """Something that a server would refuse, or that would not work once it was accepted."""

    rule: str
    """Short stable name, e.g. ``port_name``."""
    severity: Severity
    """An error cannot work; a warning may, where the cluster holds what the files do not."""
    file: str
    line: int
    object: str
    """``Deployment/qwen``, with its namespace in front where it has one."""
    path: str
    """``spec.template.spec.containers[0].ports[1].name``."""
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """One object."""

    file: str
    body: dict[str, Any]
    lines: dict[Path, int] = field(repr=False)

    @property
    def kind(self) -> str:
        """E.g. ``Deployment``."""
        return str(self.body.get("kind") or "")

    @property
    def group(self) -> str:
        """``apps`` of ``apps/v1``; empty for the core group."""
        return str(self.body.get("apiVersion") or "").rpartition("/")[0]

    @property
    def name(self) -> str:
        """From its metadata."""
        return Place(self, (), self.body).at("metadata", "name").text

    @property
    def namespace(self) -> str:
        """From its metadata; empty where the installer gives one."""
        return Place(self, (), self.body).at("metadata", "namespace").text

    @property
    def title(self) -> str:
        """``Service/qwen`` or ``prod/Service/qwen``."""
        parts = (self.namespace, self.kind or "object", self.name or "(no name)")
        return "/".join(part for part in parts if part)

    @property
    def root(self) -> Place:
        """Where reading begins."""
        return Place(self, (), self.body)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A spot in an object. Reading past the end, or through a value of the wrong type, gives None."""

    manifest: Manifest
    path: Path
    value: Any

    def at(self, *keys: str) -> Place:
        """The value under one key in another."""
        value = self.value
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return Place(self.manifest, (*self.path, *keys), value)

    def each(self, *keys: str) -> Iterator[Place]:
        """The elements of a list under the keys; none where there is no list."""
        found = self.at(*keys)
        if isinstance(found.value, list):
            for index, value in enumerate(found.value):
                yield Place(self.manifest, (*found.path, index), value)

    @property
    def text(self) -> str:
        """The value where it is a string; else empty."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def mapping(self) -> dict[str, Any]:
        """The value where it is a mapping; else empty."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def present(self) -> bool:
        """Whether anything stands here."""
        return self.value is not None

    def integer(self, default: int) -> int:
        """The value where it is a whole number; else the default."""
        ok = isinstance(self.value, int) and not isinstance(self.value, bool)
        return int(self.value) if ok else default

    def error(self, rule: str, message: str, remedy: str = "") -> Finding:
        """Something that cannot work."""
        return self._finding(rule, "error", message, remedy)

    def warning(self, rule: str, message: str, remedy: str = "") -> Finding:
        """Something that works only with help from outside the files, or badly."""
        return self._finding(rule, "warning", message, remedy)

    def _finding(self, rule: str, severity: Severity, message: str, remedy: str) -> Finding:
        return Finding(
            rule=rule,
            severity=severity,
            file=self.manifest.file,
            line=line_of(self.manifest.lines, self.path),
            object=self.manifest.title,
            path=path_text(self.path),
            message=message,
            remedy=remedy,
        )


def path_text(path: Path) -> str:
    """``("a", 0, "b")`` as ``a[0].b``; keys with dots of their own in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif "." in part or "/" in part:
            text += f'["{part}"]'
        else:
            text += f".{part}" if text else part
    return text


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of a place, or of what would hold it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def read_manifests(text: str, file: str) -> tuple[list[Manifest], list[Finding]]:
    """Every object of a file, ``kind: List`` unfolded, and the keys written twice.

    Args:
        text: YAML documents, or JSON.
        file: what the user calls it.

    Raises:
        BadInputError: not YAML, or a document that is no Kubernetes object.
    """
    manifests: list[Manifest] = []
    findings: list[Finding] = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            body = None if node is None else loader.construct_document(node)
            if node is None or body is None:
                continue
            lines: dict[Path, int] = {}
            twice = list(_walk(node, (), lines, set()))
            if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
                raise BadInputError(
                    f"{file}:{node.start_mark.line + 1}: not a Kubernetes object: it has no kind",
                    remedy="Give rendered manifests: helm template k8s/chart | qwenhost k8s check -",
                )
            if not _is_text(body):
                raise BadInputError(
                    f"{file}:{node.start_mark.line + 1}: a text holds half of a surrogate pair",
                    remedy="Write the character itself, or both halves of the escape.",
                )
            whole = Manifest(file, body, lines)
            findings += [_twice(whole, path, line) for path, line in twice]
            manifests += _unfolded(whole)
    except RecursionError as error:
        raise BadInputError(f"{file}: nested too deeply", remedy="Give rendered manifests.") from error
    # PyYAML's constructors expect of a value with a tag (!!bool, !!int, !!timestamp) that it is one.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise BadInputError(
            f"{file}{where}: not YAML: {problem}", remedy="Give rendered manifests, not chart templates."
        ) from error
    return manifests, findings


def _is_text(body: Any) -> bool:
    """Whether every text can be written as UTF-8; an escape may name half of a surrogate pair."""
    waiting, walked = [body], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                return False
        elif isinstance(value, dict | list) and id(value) not in walked:
            walked.add(id(value))
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
    return True


class _Loader(yaml.SafeLoader):
    """Plain data: no dates, and ``=`` as a string, as Kubernetes reads them."""


_UNREAD_TAGS: Final = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _UNREAD_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_MERGE: Final = "tag:yaml.org,2002:merge"


def _walk(
    node: yaml.Node, path: Path, lines: dict[Path, int], walked: set[int]
) -> Iterator[tuple[Path, int]]:
    """Fill in the line of every value; yield the paths of keys that their mapping already has.

    An anchor is walked once, so that aliases within aliases stay cheap.
    """
    lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in walked:
        return
    walked.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _walk(child, (*path, index), lines, walked)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            name = str(key.value)
            if name in seen and key.tag != _MERGE:
                yield (*path, name), key.start_mark.line + 1
            seen.add(name)
            lines[(*path, name)] = key.start_mark.line + 1
            yield from _walk(child, (*path, name), lines, walked)


def _twice(manifest: Manifest, path: Path, line: int) -> Finding:
    return Finding(
        rule="duplicate_key",
        severity="error",
        file=manifest.file,
        line=line,
        object=manifest.title,
        path=path_text(path),
        message=f"the key {path[-1]!r} stands twice in one mapping; only the last one counts",
        remedy="Keep one of the two.",
    )


def _unfolded(manifest: Manifest) -> Iterator[Manifest]:
    items = manifest.body.get("items")
    if not manifest.kind.endswith("List") or not isinstance(items, list):
        yield manifest
        return
    for index, body in enumerate(items):
        if isinstance(body, dict):
            prefix: Path = ("items", index)
            lines = {path[2:]: line for path, line in manifest.lines.items() if path[:2] == prefix}
            yield Manifest(manifest.file, body, lines)

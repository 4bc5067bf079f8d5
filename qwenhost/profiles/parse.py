"""One YAML file to a :class:`Sheet`, or to mistakes that name line, key and what was expected."""

from __future__ import annotations

import copy
import re
import reprlib
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from qwenhost.profiles.mistakes import Mistake, ProfileError
from qwenhost.profiles.sheet import KINDS, ROW_TYPES, Sheet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.facts import Value

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Loader):  # type: ignore[misc]
    """Safe loader that also reads ``1e12`` as a number, as YAML 1.2 and JSON do."""


_StrictLoader.yaml_implicit_resolvers = copy.deepcopy(_Loader.yaml_implicit_resolvers)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)

# "Expected `float`, got `str` - at `$.gpus[0].power_w`" or "... - at `key` in `$.gpus[0]`"
_WHERE: Final = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|\[(?P<any>\.\.\.)\]")


class Parsed:
    """A file read without mistakes: its rows, and lines on demand."""

    def __init__(self, file: str, sheet: Sheet, node: yaml.Node | None) -> None:
        self.file = file
        self.sheet = sheet
        self._node = node

    def mistake(self, path: tuple[str | int, ...], message: str) -> Mistake:
        """A mistake at a path such as ``("gpus", 3, "aliases")``."""
        return Mistake(file=self.file, line=_line(self._node, path), key=_words(path), message=message)


def parse_file(file: str, content: bytes) -> Parsed:
    """Read one file.

    Raises:
        ProfileError: with every mistake of this file.
    """
    node, data = _compose(file, content)
    mistakes = [Mistake(file=file, line=line, key=key, message=text) for line, key, text in _duplicates(node)]
    if data is None:
        data = {}
    if not mistakes:
        try:
            return Parsed(file, msgspec.convert(data, Sheet), node)
        except msgspec.ValidationError as error:
            mistakes = list(_explain(file, node, data))
            mistakes = mistakes or [Mistake(file=file, line=0, key="", message=str(error))]
    raise ProfileError(mistakes)


def _compose(file: str, content: bytes) -> tuple[yaml.Node | None, Any]:
    try:
        loader = _StrictLoader(content)
        try:
            node = loader.get_single_node()
            return node, None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = f"not valid YAML: {error.problem or error.context}"
        raise ProfileError(
            [Mistake(file=file, line=mark.line + 1 if mark else 0, key="", message=text)]
        ) from error
    # PyYAML's constructors expect of a value with a tag (!!bool, !!int, !!timestamp) that it is one.
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError) as error:
        text = f"not valid YAML: {' '.join(str(error).split())}"
        raise ProfileError([Mistake(file=file, line=0, key="", message=text)]) from error


def _duplicates(
    node: yaml.Node | None, path: str = "", seen_nodes: set[int] | None = None
) -> Iterator[tuple[int, str, str]]:
    """Keys written twice in one mapping; YAML itself would keep the last."""
    visited = set() if seen_nodes is None else seen_nodes
    if id(node) in visited:
        return  # an alias of a node walked already, perhaps of one around itself
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _duplicates(item, f"{path}[{i}]", visited)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            here = f"{path}.{name}" if path else name
            line = key.start_mark.line + 1
            if name in seen:
                yield line, here, f"written twice, first in line {seen[name]}"
            seen.setdefault(name, line)
            yield from _duplicates(value, here, visited)


def _explain(file: str, node: yaml.Node | None, data: Any) -> Iterator[Mistake]:
    """Every mistake, row by row, after the file as a whole was refused."""
    if not isinstance(data, dict):
        text = f"expected a mapping of kinds ({', '.join(KINDS)}), found {_kind_of(data)}"
        yield Mistake(file=file, line=_line(node, ()), key="", message=text)
        return
    for kind, rows in data.items():
        if kind not in KINDS:
            text = f"unknown kind{_meant(str(kind), KINDS)}; expected one of {', '.join(KINDS)}"
            yield Mistake(file=file, line=_line(node, (str(kind),), at_key=True), key=str(kind), message=text)
        elif not isinstance(rows, list):
            text = f"expected a list of rows, found {_kind_of(rows)}"
            yield Mistake(file=file, line=_line(node, (kind,)), key=kind, message=text)
        else:
            for i, row in enumerate(rows):
                yield from _explain_row(file, node, (kind, i), row)


def _explain_row(file: str, node: yaml.Node | None, at: tuple[str, int], row: Any) -> Iterator[Mistake]:
    row_type = ROW_TYPES[at[0]]
    try:
        msgspec.convert(row, row_type)
    except msgspec.ValidationError as error:
        match = _WHERE.match(str(error))
        assert match is not None  # noqa: S101 - the pattern matches any text
        inner = _resolve(match["path"] or "", row, row_type, str(error))
        what, at_key = _reword(match["what"], inner, row, row_type)
        path: tuple[str | int, ...] = (*at, *inner, *at_key)
        yield Mistake(file=file, line=_line(node, path, at_key=bool(at_key)), key=_words(path), message=what)


def _resolve(path: str, row: Any, row_type: type[Value], error: str) -> tuple[str | int, ...]:
    """Steps of a path by msgspec; where it writes ``[...]`` for any key of a mapping, find which one."""
    steps: list[str | int] = []
    for match in _STEP.finditer(path):
        if match["any"]:
            steps.append(_culprit(tuple(steps), row, row_type, error))
        else:
            steps.append(match["name"] or int(match["index"]))
    return tuple(steps)


def _culprit(steps: tuple[str | int, ...], row: Any, row_type: type[Value], error: str) -> str | int:
    mapping = _at(row, steps)
    for key in mapping:
        trial = copy.deepcopy(row)
        _at(trial, steps).clear()
        _at(trial, steps)[key] = mapping[key]
        try:
            msgspec.convert(trial, row_type)
        except msgspec.ValidationError as again:
            if str(again) == error:
                return str(key)
    return "?"


def _reword(
    what: str, path: tuple[str | int, ...], row: Any, row_type: type[Value]
) -> tuple[str, tuple[str, ...]]:
    """A sentence in our words, and the key it is about where that is the key itself."""
    fields = _fields_at(row_type, path)
    if match := re.match(r"Object contains unknown field `(.*)`", what):
        name = match[1]
        return f"unknown key{_meant(name, fields)}; expected one of {', '.join(fields)}", (name,)
    if match := re.match(r"Object missing required field `(.*)`", what):
        hint = " {where, as_of, note}: every fact names where it comes from" if match[1] == "source" else ""
        return f"missing key `{match[1]}`{hint}", ()
    try:
        found = _at(row, path)
    except (KeyError, IndexError, TypeError):
        return what, ()
    return f"{what[:1].lower()}{what[1:]} ({reprlib.repr(found)})", ()


def _fields_at(row_type: type[Value], path: tuple[str | int, ...]) -> tuple[str, ...]:
    """Keys of the structure that stands at a path of a row."""
    info: Any = msgspec.inspect.type_info(row_type)
    for step in path:
        if isinstance(info, msgspec.inspect.StructType):
            info = next((f.type for f in info.fields if f.encode_name == step), None)
        elif isinstance(info, msgspec.inspect.DictType):
            info = info.value_type
        elif isinstance(info, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
            info = info.item_type
        if isinstance(info, msgspec.inspect.UnionType):
            info = next((t for t in info.types if isinstance(t, msgspec.inspect.StructType)), None)
    if isinstance(info, msgspec.inspect.StructType):
        return tuple(field.encode_name for field in info.fields)
    return ()


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _line(node: yaml.Node | None, path: tuple[str | int, ...], *, at_key: bool = False) -> int:
    """Line, from 1, of the value at a path (of its key, if asked), or of the nearest thing above it."""
    line = 0 if node is None else node.start_mark.line + 1
    for depth, step in enumerate(path):
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if str(key.value) == str(step):
                    found = key if at_key and depth == len(path) - 1 else value
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = node.value[step]
        if found is None:
            break
        node, line = found, found.start_mark.line + 1
    return line


def _words(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _meant(name: str, known: tuple[str, ...]) -> str:
    import difflib  # noqa: PLC0415 - only on the error path

    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _kind_of(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}.get(
        type(value), type(value).__name__
    )

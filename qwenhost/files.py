"""Files of ours: written so that a reader never sees a half, read strictly by their schema."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

_LONGEST_NAME: Final = 100
LARGEST: Final = 1e20
"""No figure of ours comes near; products of larger ones end in infinity."""
SMALLEST: Final = 1e-100
"""Nor to this, beside 0: quotients by smaller ones end there, too."""

_KINDS: Final = {int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "an object"}

NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What ``msgspec.json`` raises over bytes from outside; the last where they are nested beyond reason."""


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Write to a temporary file beside ``path``, fsync, rename.

    A link keeps pointing where it does, and what is no file (``/dev/stdout``, a pipe) is written to: a rename
    would put a file in its place, for root even in that of ``/dev/null``.

    Raises:
        BadInputError: the folder does not exist or may not be written.
    """
    content = data.encode() if isinstance(data, str) else data
    try:
        if path.is_symlink() or path.exists():
            path = path.resolve(strict=path.exists())
            if not path.is_dir() and path.exists() and not path.is_file():
                path.write_bytes(content)
                return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        said = error.strerror if isinstance(error, OSError) else "its links lead in a circle"
        raise BadInputError(
            f"{path}: cannot write: {said}", remedy="Name a file in a folder you may write to."
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)  # noqa: PTH101 - mkstemp gives a name
        os.replace(name, path)  # noqa: PTH105
    except BaseException as error:  # Ctrl-C too leaves nothing half-written
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        if not isinstance(error, OSError):
            raise
        raise BadInputError(
            f"{path}: cannot write: {error.strerror}", remedy="Free some disk space or name another file."
        ) from error


def encode_document(value: msgspec.Struct) -> bytes:
    """Indented JSON, deterministic."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def decode_document(data: bytes, kind: type[T], *, schema: str, name: str, what: str, remedy: str) -> T:
    """A JSON document of ours.

    Args:
        data: its bytes.
        kind: the value it holds.
        schema: the version it must carry.
        name: what the user calls it.
        what: what it should be, with its article.
        remedy: how to get a good one.

    Raises:
        BadInputError: not JSON, another schema, a wrong type, or a number beyond reason; names the key.
    """
    try:
        whole = msgspec.json.decode(data, type=dict[str, Any])
        require_schema(whole.get("schema"), schema, name=name, remedy=remedy)
        value = msgspec.json.decode(data, type=kind)
    except NOT_JSON as error:
        raise BadInputError(f"{name}: not {what}: {error}", remedy=remedy) from error
    if (strange := _beyond_reason(whole)) is not None:
        raise BadInputError(f"{name}: not {what}: {strange}", remedy=remedy)
    return value


def require_schema(found: object, expected: str, *, name: str, remedy: str) -> None:
    """Refuse a document of another kind or version.

    Raises:
        BadInputError: says which it is, which is read, and whose version wrote it.
    """
    if found == expected:
        return
    kind, _, version = expected.partition("/")
    said = found if isinstance(found, str) and len(found) < _LONGEST_NAME else None
    of, _, other = (said or "").partition("/")
    if of == kind and other.isdecimal() and other != version:
        newer = int(other) > int(version)
        how = "Update qwenhost, which wrote it in a newer version, or make it again." if newer else ""
        remedy = f"{how or 'An older qwenhost wrote it: make it again.'} {remedy}"
    shown = repr(found) if said is not None or found is None else _KINDS.get(type(found), "a long text")
    raise BadInputError(f"{name}: schema is {shown}, expected {expected!r}", remedy=remedy)


def _beyond_reason(whole: Any) -> str | None:
    """Which number is the first that is too large or too small to calculate with, and where it stands."""
    waiting: list[tuple[str, Any]] = [("", whole)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{place}.{key}", one) for key, one in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{place}[{index}]", one) for index, one in enumerate(value)]
        elif isinstance(value, int | float) and abs(value) > LARGEST:
            return f"number beyond {LARGEST:g} at `${place}`"
        elif isinstance(value, float) and 0 < abs(value) < SMALLEST:
            return f"number below {SMALLEST:g} at `${place}`"
    return None


def read_document(path: Path, kind: type[T], *, schema: str, what: str, remedy: str) -> T:
    """Read a document and decode it as :func:`decode_document` does.

    Raises:
        BadInputError: missing, unreadable, or not such a document.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}", remedy=remedy) from error
    return decode_document(data, kind, schema=schema, name=str(path), what=what, remedy=remedy)

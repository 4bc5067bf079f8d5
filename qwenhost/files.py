"""Writing files so that a reader sees the old content or the new, never a half."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Write to a temporary file beside ``path``, fsync, rename.

    Raises:
        BadInputError: the folder does not exist or may not be written.
    """
    content = data.encode() if isinstance(data, str) else data
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot write: {error.strerror}", remedy="Name a file in a folder you may write to."
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)  # noqa: PTH101 - mkstemp gives a name
        os.replace(name, path)  # noqa: PTH105
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise BadInputError(
            f"{path}: cannot write: {error.strerror}", remedy="Free some disk space or name another file."
        ) from error

"""Reading a service's log while it may still be written and rotated."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Final

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.launcher.state import ServiceHome

POLL_S: Final = 0.2


def read_lines(home: ServiceHome, *, last: int | None = None, follow: bool = False) -> Iterator[str]:
    """The log's lines; with ``follow``, those that come too, until the service has ended.

    Raises:
        BadInputError: no such log.
    """
    try:
        file = home.log_file.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInputError(
            f"{home.log_file}: {error.strerror}", remedy="List the services with: qwenhost status"
        ) from error
    with file:
        lines = (line.rstrip("\n") for line in file)
        yield from lines if last is None else deque(lines, maxlen=last)
        while follow:
            running = home.is_running()  # before reading: what it wrote last is still read
            yield from _new_lines(file)
            if not running:
                return
            if _was_rotated(file, home):
                yield from read_lines(home, follow=True)
                return
            time.sleep(POLL_S)


def _new_lines(file: IO[str]) -> Iterator[str]:
    while line := file.readline():
        while not line.endswith("\n"):  # a line still being written
            time.sleep(POLL_S)
            if not (more := file.readline()):
                break
            line += more
        yield line.rstrip("\n")


def _was_rotated(file: IO[str], home: ServiceHome) -> bool:
    try:
        return os.fstat(file.fileno()).st_ino != home.log_file.stat().st_ino
    except OSError:
        return False

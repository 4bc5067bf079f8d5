"""Server-sent events, taken apart after the fact.

The client keeps the bytes of an answer and, for each received segment, its arrival and the length of
the body by then. An event has arrived when its terminating blank line has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END = re.compile(rb"\r\n|\n|\r")


def events(
    body: bytes | bytearray, times: Sequence[float], ends: Sequence[int]
) -> Iterator[tuple[float, bytes]]:
    """(arrival, data) of each complete event that carries data.

    Args:
        body: what was received.
        times: arrival of each segment.
        ends: length of ``body`` after each segment; as long as ``times``.
    """
    content = bytes(body)
    boundaries = _boundaries_any(content) if b"\r" in content else _boundaries_lf(content)
    start, segment = 0, 0
    for stop, after in boundaries:
        while ends[segment] < after:
            segment += 1
        # The common case: one line, "data: {...}".
        if content.startswith(b"data: ", start) and content.find(b"\n", start, stop) < 0:
            yield times[segment], content[start + 6 : stop]
        else:
            data = _data(content[start:stop])
            if data is not None:
                yield times[segment], data
        start = after


def _boundaries_lf(content: bytes) -> Iterator[tuple[int, int]]:
    """(end of event, start of the next) where lines end in LF only."""
    at = content.find(b"\n\n")
    while at >= 0:
        yield at, at + 2
        at = content.find(b"\n\n", at + 2)


def _boundaries_any(content: bytes) -> Iterator[tuple[int, int]]:
    """The same for every line end that the standard allows."""
    for match in _BLANK_LINE.finditer(content):
        yield match.start(), match.end()


def _data(event: bytes) -> bytes | None:
    """The joined data lines of an event; None if it has none (a comment, a keep-alive)."""
    lines = []
    for line in _LINE_END.split(event):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None

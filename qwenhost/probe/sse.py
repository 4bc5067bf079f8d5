"""Server-sent events, cut out of a body as it grows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventCutter:
    """Takes a body piece by piece and gives the data of each event that is complete.

    An event is complete with its terminating blank line.
    """

    def __init__(self) -> None:
        self.rest = b""
        """What follows the last blank line: no event yet."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Data of the events that this piece completes; those without data (comments) are left out."""
        content = self.rest + piece if self.rest else piece
        # A stream with CR anywhere is rare; JSON cannot hold one. Elsewhere events are cut apart in C.
        if b"\r" in content:
            *events, self.rest = _BLANK_LINE.split(content)
        else:
            *events, self.rest = content.split(b"\n\n")
        return [data for event in events if (data := _data(event)) is not None]


def events(
    body: bytes | bytearray, times: Sequence[float], ends: Sequence[int]
) -> Iterator[tuple[float, bytes]]:
    """(arrival, data) of each complete event that carries data.

    Args:
        body: what was received.
        times: arrival of each segment; there may be more than ``ends``.
        ends: length of ``body`` after each segment.
    """
    cutter, start = EventCutter(), 0
    for arrival, end in zip(times, ends, strict=False):
        for data in cutter.feed(bytes(body[start:end])):
            yield arrival, data
        start = end


def _data(event: bytes) -> bytes | None:
    """The joined data lines of an event; None if it has none (a comment, a keep-alive)."""
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return event[6:]  # The common case: one line, "data: {...}".
    lines = []
    for line in _LINE_END.split(event):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None

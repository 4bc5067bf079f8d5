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
    # A stream with CR anywhere is rare; JSON cannot hold one. Elsewhere events are cut apart in C.
    pieces = _cut_any(content) if b"\r" in content else _cut_lf(content)
    after, segment = 0, 0
    for piece, length in pieces:
        after += length
        while ends[segment] < after:
            segment += 1
        # The common case: one line, "data: {...}".
        if piece.startswith(b"data: ") and b"\n" not in piece:
            yield times[segment], piece[6:]
        else:
            data = _data(piece)
            if data is not None:
                yield times[segment], data


def _cut_lf(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Each event and its length with its blank line, where lines end in LF only."""
    pieces = content.split(b"\n\n")
    del pieces[-1]  # What follows the last blank line is no event yet.
    return ((piece, len(piece) + 2) for piece in pieces)


def _cut_any(content: bytes) -> Iterator[tuple[bytes, int]]:
    """The same for every line end that the standard allows."""
    start = 0
    for match in _BLANK_LINE.finditer(content):
        yield content[start : match.start()], match.end() - start
        start = match.end()


def _data(event: bytes) -> bytes | None:
    """The joined data lines of an event; None if it has none (a comment, a keep-alive)."""
    lines = []
    for line in _LINE_END.split(event):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None

"""Understanding a stream after it has ended: every event, most of them at the price of a comparison.

The token events of one stream are alike but for their text. The first is decoded in full, and what
surrounds its text becomes a pattern. A later segment that is, from its chunk's size to its last byte,
the same with another plain text needs no parser: it is one event of the same meaning. All others take
the long way: HTTP parser, event cutter, JSON decoder.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import httptools

from qwenhost.probe.sse import EventCutter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.probe.endpoints import StreamDecoder
    from qwenhost.probe.exchange import Exchange

_SEGMENTS_PER_SLICE: Final = 128  # 0.05 to 0.4 ms of work.
_EVENTS_PER_SLICE: Final = 64
_TRIES: Final = 8
"""Streams whose events differ in more than their text get no pattern after so many tries."""
_TEXT: Final = re.compile(
    rb'"(?:content|text|reasoning|reasoning_content|delta|thinking)": ?"((?:[^"\\]|\\.)*)"'
)
_SPECIAL: Final = re.compile(rb'["\\\x00-\x1f]').search
"""What must be escaped in a JSON string, or ends it."""
_CHUNK_END: Final = b"\n\n\r\n"
_CHUNK: Final = re.compile(rb"([0-9a-f]+)\r\n")


class Pattern:
    """What is around the text of a stream's token events, on the wire."""

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self.tail = after + b"\r\n"
        self.heads: dict[int, bytes] = {}

    def head(self, size: int) -> bytes:
        """How a chunk begins whose whole segment has this size."""
        found = self.heads.get(size)
        if found is None:
            line = b""
            for digits in range(1, 9):  # Size line, data, CR LF.
                line = b"%x\r\n" % max(0, size - digits - 4)
                if len(line) == digits + 2:
                    break
            found = self.heads[size] = line + self._before
        return found


def pattern_of(segment: bytes, stream: StreamDecoder) -> Pattern | None:
    """The pattern of a segment that held one token event; None if it is no pattern's example.

    Whether a piece of the event is its text is decided by the decoder itself: with something else in
    its place the event must carry text, with nothing in its place none.
    """
    line = _CHUNK.match(segment)
    if line is None or not segment.endswith(_CHUNK_END):
        return None
    start = line.end()
    if int(line[1], 16) != len(segment) - start - 2 or line[1].startswith(b"0"):
        return None
    for text in _TEXT.finditer(segment, start):
        before, after = segment[start : text.start(1)], segment[text.end(1) : -2]
        if text[1] and _is_text(before, after, stream):
            return Pattern(before, after)
    return None


def _is_text(before: bytes, after: bytes, stream: StreamDecoder) -> bool:
    noted = []
    for text in (b"", b"x"):
        trial = type(stream)()
        for data in EventCutter().feed(before + text + after):
            trial.feed(0.0, data)
        if trial.ended or trial.error is not None or trial.output_tokens is not None:
            return False
        noted.append(len(trial.chunk_times))
    return noted == [0, 1]


def decode(exchange: Exchange, stream: StreamDecoder) -> Iterator[None]:
    """Feed an ended exchange's answer to a decoder, yielding between slices of work.

    An answer that is not HTTP makes the exchange end in ``malformed_http``.
    """
    try:
        yield from _decode(exchange, stream)
        if exchange.complete and not exchange.parsed and exchange.error is None:
            exchange.error = "malformed_http"
            exchange.detail = "the chunks of the body do not add up"
    except httptools.HttpParserError as error:
        if exchange.error is None:
            exchange.error, exchange.detail = "malformed_http", str(error)
    if exchange.raw:
        exchange.raw = []
        exchange.release_parser()


def _decode(exchange: Exchange, stream: StreamDecoder) -> Iterator[None]:
    cutter, start = EventCutter(), 0
    for arrival, end in zip(exchange.times, exchange.ends, strict=False):
        yield from _feed(stream, arrival, cutter.feed(bytes(exchange.body[start:end])))
        start = end
    segments, first = exchange.raw, len(exchange.ends)
    pattern, tries, position = None, 0, 0
    while position < len(segments):
        if pattern is not None and not cutter.rest:
            stop = min(position + _SEGMENTS_PER_SLICE, len(segments))
            position = _match(pattern, exchange, stream, position, stop)
            if position == stop:
                yield
                continue
        segment, known, start = segments[position], len(stream.chunk_times), len(exchange.body)
        exchange.feed(segment)
        found = cutter.feed(bytes(exchange.body[start:]))
        yield from _feed(stream, exchange.times[first + position], found)
        position += 1
        if tries < _TRIES and len(found) == 1 and len(stream.chunk_times) == known + 1:
            pattern, tries = pattern_of(segment, stream), tries + 1


def _feed(stream: StreamDecoder, arrival: float, events: list[bytes]) -> Iterator[None]:
    for count, data in enumerate(events, 1):
        stream.feed(arrival, data)
        if count % _EVENTS_PER_SLICE == 0:
            yield
    if events:
        yield


def _match(pattern: Pattern, exchange: Exchange, stream: StreamDecoder, start: int, stop: int) -> int:
    """Note the token events from ``start`` on that follow the pattern; returns where they end."""
    note, times, first = stream.chunk_times.append, exchange.times, len(exchange.ends)
    heads, tail = pattern.heads, pattern.tail
    after = -len(tail)
    for position, segment in enumerate(exchange.raw[start:stop], start):
        head = heads.get(len(segment)) or pattern.head(len(segment))
        if segment.startswith(head) and segment.endswith(tail):
            text = segment[len(head) : after]
            if text and not _SPECIAL(text) and (text.isascii() or _is_utf8(text)):
                note(times[first + position])
                continue
        count = _match_several(pattern, segment)
        if not count:
            return position
        stream.chunk_times += [times[first + position]] * count
    return stop


def _match_several(pattern: Pattern, segment: bytes) -> int:
    """How many token events were read at once; 0 if not all of the segment is such events."""
    *chunks, rest = segment.split(_CHUNK_END)
    if rest or len(chunks) < 2:
        return 0
    tail = pattern.tail.removesuffix(_CHUNK_END)
    after = -len(tail) or None
    for chunk in chunks:
        head = pattern.head(len(chunk) + len(_CHUNK_END))
        text = chunk[len(head) : after]
        plain = text and not _SPECIAL(text) and (text.isascii() or _is_utf8(text))
        if not (chunk.startswith(head) and chunk.endswith(tail) and plain):
            return 0
    return len(chunks)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True

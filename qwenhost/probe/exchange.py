"""One request and whatever came back, raw."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

import httptools

from qwenhost.probe.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable

_LAST_CHUNK: Final = b"0\r\n\r\n"


class Exchange:
    """One request and whatever came back; times are seconds of ``clock.now``.

    The head of an answer goes through the parser as it comes, and so do short answers. The segments of
    a stream are only kept, in ``raw``: ``decoding`` understands them when the stream has ended.
    """

    __slots__ = (
        "body",
        "complete",
        "detail",
        "due",
        "ends",
        "error",
        "feed",
        "finished",
        "headers",
        "index",
        "keep_alive",
        "on_body",
        "parsed",
        "parser",
        "payload",
        "raw",
        "sent",
        "status",
        "streaming",
        "times",
        "whole",
    )

    def __init__(
        self, payload: bytes, *, index: int = -1, due: float | None = None, whole: bool = True
    ) -> None:
        self.payload = payload
        """Head and body as they go on the wire."""
        self.whole = whole
        """Parse all as it comes, because somebody reads ``body``; else a stream is kept raw."""
        self.index = index
        self.due = now() if due is None else due
        self.sent: float | None = None
        self.finished: float | None = None
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        """What the parser has given of the body."""
        self.times = array("d")
        """Arrival of each received segment: those that were parsed, then those in ``raw``."""
        self.ends = array("q")
        """Length of ``body`` after each parsed segment."""
        self.raw: list[bytes] = []
        """Segments that the parser has not seen yet."""
        self.streaming = False
        """Whether what follows is a chunked body, to be kept raw."""
        self.complete = False
        self.parsed = False
        """Whether the parser has seen the end, or the connection's end was it."""
        self.keep_alive = False
        self.error: str | None = None
        self.detail = ""
        self.on_body = self.body.extend  # Called by the parser without a Python frame in between.
        self.parser = httptools.HttpResponseParser(self)
        self.feed: Callable[[memoryview | bytes], None] = self.parser.feed_data

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Parser callback."""
        self.status = self.parser.get_status_code()
        if self.whole or self.status != 200:
            return
        if self.headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            self.streaming = True
            self.keep_alive = bool(self.parser.should_keep_alive())

    def on_message_complete(self) -> None:
        """Parser callback; an interim 1xx answer is not the answer."""
        if self.status >= 200:
            self.complete = self.parsed = True
            self.streaming = False
            self.keep_alive = bool(self.parser.should_keep_alive())  # Known here only.

    def ends_with(self, segment: bytes) -> bool:
        """Whether this latest raw segment ends the body by the ordinary last chunk.

        The same bytes within a chunk would be an event stream with a field named 0; ``decoding`` would
        find the framing wrong.
        """
        if segment.endswith(b"\r\n0\r\n\r\n"):
            return True
        return segment == _LAST_CHUNK and len(self.raw) > 1 and self.raw[-2].endswith(b"\r\n")

    def settle(self) -> None:
        """Parse what was only kept, and from here on everything.

        Raises:
            httptools.HttpParserError: not HTTP.
        """
        self.streaming = False
        waiting, self.raw = self.raw, []
        for segment in waiting:
            self.feed(segment)
            self.ends.append(len(self.body))

    def release_parser(self) -> None:
        """Break the cycle between exchange and parser, so that no garbage collection is needed."""
        del self.parser, self.feed

    @property
    def first_byte(self) -> float | None:
        """Arrival of the first segment."""
        return self.times[0] if self.times else None

    @property
    def ended_by_close(self) -> bool:
        """Whether the end of the connection is the regular end of this body."""
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        return self.status >= 200 and not framed

    @property
    def retry_after_s(self) -> float:
        """What the server asks to wait before the next request; 0 where it does not say seconds."""
        asked = self.headers.get(b"retry-after", b"")
        return float(asked) if asked.isdigit() else 0.0

"""One request and whatever came back, raw."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import httptools

from qwenhost.probe.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable


class Exchange:
    """One request and whatever came back; times are seconds of ``clock.now``."""

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
        "parser",
        "payload",
        "sent",
        "status",
        "times",
    )

    def __init__(self, payload: bytes, *, index: int = -1, due: float | None = None) -> None:
        self.payload = payload
        """Head and body as they go on the wire."""
        self.index = index
        self.due = now() if due is None else due
        self.sent: float | None = None
        self.finished: float | None = None
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.times = array("d")
        """Arrival of each received segment."""
        self.ends = array("q")
        """Length of ``body`` after that segment."""
        self.complete = False
        self.keep_alive = False
        self.error: str | None = None
        self.detail = ""
        self.on_body = self.body.extend  # Called by the parser without a Python frame in between.
        self.parser = httptools.HttpResponseParser(self)
        self.feed: Callable[[memoryview], None] = self.parser.feed_data

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Parser callback."""
        self.status = self.parser.get_status_code()

    def on_message_complete(self) -> None:
        """Parser callback; an interim 1xx answer is not the answer."""
        if self.status >= 200:
            self.complete = True
            self.keep_alive = bool(self.parser.should_keep_alive())  # Known here only.

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

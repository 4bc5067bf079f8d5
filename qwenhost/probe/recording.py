"""From raw exchanges to records, in slices short enough not to disturb the clock."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from qwenhost.measurements import RequestRecord
from qwenhost.probe.course import Label
from qwenhost.probe.decoding import decode
from qwenhost.probe.endpoints import Endpoint, StreamDecoder, decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.probe.exchange import Exchange

MOST_SEGMENTS: Final = 1_000_000
"""About 350 MB of streams that nobody has read yet."""
_NOWHERE: Final = Label()


class Recorder:
    """Decodes ended exchanges in the background of a run.

    Args:
        endpoint: dialect of the answers.
        zero: the start of the run on the clock.
        on_record: called with each record and the exchange it was made of.
        label: where a request belongs.
        most_segments: of ended streams that may wait to be decoded.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        zero: float,
        on_record: Callable[[RequestRecord, Exchange], None],
        label: Callable[[int], Label] = lambda _: _NOWHERE,
        *,
        most_segments: int = MOST_SEGMENTS,
    ) -> None:
        self._endpoint: Endpoint = endpoint
        self._zero = zero
        self._on_record, self._label = on_record, label
        self._waiting: deque[Exchange] = deque()
        self._most_segments, self._segments = most_segments, 0
        self._working = False
        self._slices: Iterator[None] | None = None

    def add(self, exchange: Exchange) -> None:
        """Take an ended exchange.

        Past the bound the one that has waited longest is decoded at once. That holds the loop up, which
        its lag shows, and keeps memory bounded.
        """
        self._waiting.append(exchange)
        self._segments += len(exchange.raw)
        if self._segments > self._most_segments and not self._working:
            self._finish()
            self.work()
            self._finish()

    @property
    def pending(self) -> bool:
        """Whether there is something to decode."""
        return self._slices is not None or bool(self._waiting)

    def work(self) -> None:
        """Do one slice."""
        if self._slices is None:
            if not self._waiting:
                return
            exchange = self._waiting.popleft()
            self._segments -= len(exchange.raw)
            self._slices = self._decode(exchange)
        self._working = True  # A record may lead to a request that fails, and so ends, at once.
        try:
            if next(self._slices, self) is self:
                self._slices = None
        finally:
            self._working = False

    def _finish(self) -> None:
        """Decode the rest of what was begun."""
        while self._slices is not None:
            self.work()

    def _decode(self, exchange: Exchange) -> Iterator[None]:
        stream = decoder(self._endpoint)
        if exchange.status == 200:
            yield from decode(exchange, stream)
        record = to_record(exchange, stream, self._zero, self._label(exchange.index))
        self._on_record(record, exchange)


def to_record(
    exchange: Exchange, stream: StreamDecoder, zero: float, label: Label = _NOWHERE
) -> RequestRecord:
    """The record of one ended exchange; times become seconds since ``zero``."""
    error, detail = _what_went_wrong(exchange, stream)
    times = tuple(t - zero for t in stream.chunk_times)
    scheduled = exchange.due - zero

    def relative(t: float | None) -> float | None:
        return None if t is None else t - zero

    return RequestRecord(
        index=exchange.index,
        scheduled_s=scheduled,
        sent_s=scheduled if exchange.sent is None else exchange.sent - zero,
        first_byte_s=relative(exchange.first_byte),
        first_token_s=times[0] if times else None,
        first_visible_s=relative(stream.first_visible),
        last_s=times[-1] if times else None,
        token_times_s=times,
        input_tokens=stream.prompt_tokens or 0,
        cached_tokens=stream.cached_tokens,
        # A server that reports no usage leaves only its chunks to count; the run warns about it.
        output_tokens=len(times) if stream.output_tokens is None else stream.output_tokens,
        reasoning_tokens=stream.reasoning_tokens,
        error=error,
        error_detail=detail or None,
        http_status=exchange.status or None,
        session=label.session,
        turn=label.turn,
        replica=label.replica,
        tool_calls=stream.tool_calls,
        cache_written_tokens=stream.cache_written_tokens,
    )


def _what_went_wrong(exchange: Exchange, stream: StreamDecoder) -> tuple[str | None, str]:
    """Kind and detail of the first failure on the way from the socket to the last event."""
    if exchange.error is not None:
        return exchange.error, exchange.detail
    if exchange.status != 200:
        return f"http_{exchange.status}", bytes(exchange.body[:300]).decode(errors="replace")
    if stream.error is not None:
        return stream.error, stream.detail
    if not stream.ended:
        return "cut_stream", "the stream ended without its end marker"
    if not stream.chunk_times:
        return "zero_tokens", "the answer carried no text"
    return None, ""

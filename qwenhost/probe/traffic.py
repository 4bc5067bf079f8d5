"""Offering the load: open and closed loops on the absolute clock.

An open loop sends on schedule whatever the server does; nothing caps the requests in flight. A closed
loop keeps a number of requests in flight; each is due when its slot falls free. Latency counts from
the due time in both, so that neither the client's nor the server's queue is hidden.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.measurements import Percentiles
from qwenhost.probe.beside import beside, on_interrupt, quiet_garbage_collector
from qwenhost.probe.clock import now
from qwenhost.probe.course import Earlier
from qwenhost.probe.exchange import Exchange
from qwenhost.probe.gaps import GapHistogram
from qwenhost.probe.itinerary import itinerary
from qwenhost.probe.recording import Recorder
from qwenhost.probe.store import RecordStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qwenhost.measurements import RequestRecord
    from qwenhost.probe.client import Client
    from qwenhost.probe.clock import LoopLag
    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.course import Course
    from qwenhost.probe.records import RecordWriter
    from qwenhost.probe.replicas import Replicas

_LEAD_S: Final = 0.05
"""The schedule begins a little ahead, so that the first request is on time."""
_PREPARED: Final = 512
"""At most so many requests are made ready ahead of their sending."""
_PROGRESS_EVERY_S: Final = 0.25
_GRACE_AFTER_INTERRUPT_S: Final = 1.0
_PAUSE_AFTER_FAILURE_S: Final = 0.25
"""Before a closed loop's slot sends again: a server that is gone is not hammered."""
_LONGEST_PAUSE_S: Final = 60.0
"""However long a server asks us to wait with ``Retry-After``."""
_READY_AHEAD_S: Final = 0.005
"""A session's next request is made so long before it is due."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands."""

    phase: str
    """``warm-up``, ``load`` or ``drain``."""
    elapsed_s: float = 0.0
    sent: int = 0
    completed: int = 0
    failed: int = 0
    in_flight: int = 0
    output_tokens: int = 0
    """Of ended requests."""
    total_requests: int | None = None
    duration_s: float | None = None
    ttft_ms: Percentiles | None = None


class Traffic:
    """One run's load; everything happens on one event loop.

    Args:
        config: what load.
        client: sends it; its ``on_end`` is taken over.
        course: the requests, their order, and what follows an answer.
        seed: of the arrivals.
        writer: takes each record as its request ends.
        earlier: what a resumed run had done.
        on_progress: called about four times a second.
    """

    def __init__(
        self,
        config: ProbeConfig,
        client: Client | Replicas,
        *,
        writer: RecordWriter,
        course: Course,
        seed: int,
        on_progress: Callable[[Progress], None] | None,
        earlier: Earlier | None = None,
    ) -> None:
        self._earlier = earlier or Earlier()
        self.store = self._earlier.store or RecordStore()
        """Records in the order in which their requests ended."""
        self.zero = 0.0
        """The start of the run on the clock."""
        self.interrupted = False
        self._config, self._client, self._course, self._seed = config, client, course, seed
        self._on_progress = on_progress
        self._writer = writer
        self._limit: int | None = None
        self._stop_at: float | None = None
        self._phase = "load"
        self._sent = self._failed = self._output_tokens = 0
        self._to_schedule = 0
        """Requests of the schedule that are yet to be sent."""
        self._pausing = 0
        """Slots of a closed loop that wait after a failure."""
        self._ttft = GapHistogram()
        self._between = 0
        """Sessions whose answer is being read or thought about."""
        self._starts: Iterator[int] = iter(())
        self._more_starts = True
        self._prepared: deque[tuple[int, bytes]] = deque()
        self._work_waits = asyncio.Event()
        self._idle = asyncio.Event()
        self._wake: Callable[[], None] = self._idle.set

    async def offer(self) -> LoopLag:
        """Send everything, wait for the answers, record them; returns how late the client was."""
        config, client = self._config, self._client
        plan = itinerary(config, self._course, self._earlier, self._seed)
        self._limit, self._starts = plan.limit, plan.starts
        self._top_up(min(_PREPARED, config.concurrency or 1))
        if config.concurrency is not None:
            await client.preconnect(len(plan.due))
        client.on_end = self._on_end
        with quiet_garbage_collector(), on_interrupt(self._interrupt):
            self._start_clock()
            async with beside(self._background(), self._tick()):
                await self._send_on_schedule(plan.due)
                await self._drain()
                lag = client.selector.turns.summary()
                while self._recorder.pending:
                    self._recorder.work()
        return lag

    def _start_clock(self) -> None:
        self._client.selector.begin()
        self.zero = now() + _LEAD_S - self._earlier.until_s
        self._recorder = Recorder(self._config.endpoint, self.zero, self._keep, label=self._course.label)
        duration = self._config.planned_duration_s
        self._stop_at = None if duration is None else self.zero + duration

    async def _send_on_schedule(self, due: Sequence[float]) -> None:
        """Send every request at its instant; returns when the last is sent, or the run is stopping."""
        self._to_schedule = len(due)
        for at in due:
            instant = self.zero + at
            await self._sleep_until(instant)
            if self.interrupted or self._past_end(instant):
                break
            self._to_schedule -= 1
            if not self._send(instant):
                break
        self._to_schedule = 0

    async def _sleep_until(self, instant: float) -> None:
        """Wait for the instant, or for an interruption."""
        if instant <= now():
            return
        woken = asyncio.Event()
        self._wake = woken.set
        timer = asyncio.get_running_loop().call_at(instant, woken.set)
        await woken.wait()
        timer.cancel()

    def _past_end(self, instant: float) -> bool:
        return self._stop_at is not None and instant >= self._stop_at

    def _send(self, due: float) -> bool:
        """Send the next request that waits for no answer; False where none is left or allowed."""
        if not self._prepared:
            self._top_up(1)
        if not self._prepared or not self._admitted(self._prepared[0][0]):
            return False
        self._start(*self._prepared.popleft(), due)
        return True

    def _start(self, index: int, payload: bytes, due: float) -> None:
        self._sent += 1
        whole = self._course.follows(index)  # The next turn of a session holds the answer.
        self._client.start(Exchange(payload, index=index, due=due, whole=whole))
        self._work_waits.set()

    def _admitted(self, index: int) -> bool:
        if self._course.admits(index):
            return True
        self._stop_at = now()
        return False

    def _on_end(self, exchange: Exchange) -> None:
        self._recorder.add(exchange)
        self._work_waits.set()
        good = exchange.error is None and exchange.status == 200
        if good and self._course.follows(exchange.index):
            self._between += 1  # Until the answer has been read: see _keep.
        else:
            self._free_slot(exchange, self._client.selector.stamp if good else None)

    def _free_slot(self, exchange: Exchange, due: float | None) -> None:
        """A chain of requests is over. ``due``: when a closed loop sends again; None: after a pause."""
        if self._config.concurrency is None:
            self._note_if_idle()
        elif due is not None:
            self._go_on(due)
        else:
            self._pausing += 1
            pause_s = min(max(_PAUSE_AFTER_FAILURE_S, exchange.retry_after_s), _LONGEST_PAUSE_S)
            asyncio.get_running_loop().call_later(pause_s, self._end_pause)

    def _end_pause(self) -> None:
        self._pausing -= 1
        self._go_on(now())

    def _go_on(self, due: float) -> None:
        """Let a closed loop's freed slot send again, if anything is left to send."""
        if not self._may_send(due) or not self._send(due):
            self._note_if_idle()

    def _may_send(self, due: float) -> bool:
        within = self._limit is None or self._sent + self._to_schedule < self._limit
        return within and not self.interrupted and not self._past_end(due)

    def _note_if_idle(self) -> None:
        if not self._busy:
            self._idle.set()

    @property
    def _busy(self) -> bool:
        waiting = (self._pausing or self._between) and not self.interrupted
        return bool(self._client.in_flight or waiting)

    def _follow_up(self, exchange: Exchange) -> None:
        """Have the next request of a session sent when its user has thought; latency counts from then.

        Reading the answer is part of the thinking: a client that needs longer delays the next turn and
        no figure.
        """
        follow = self._course.follow(exchange)
        assert exchange.finished is not None  # noqa: S101 - it ended
        due = max(
            exchange.finished + follow.think_s, self.zero + follow.not_before_s, now() + 2 * _READY_AHEAD_S
        )
        if self._past_end(due):
            self._between -= 1
            self._free_slot(exchange, now())
        else:
            asyncio.get_running_loop().call_at(
                due - _READY_AHEAD_S, self._ready_follow_up, follow.request, due
            )

    def _ready_follow_up(self, index: int, due: float) -> None:
        payload = b"" if self.interrupted else self._course.payload(index)
        asyncio.get_running_loop().call_at(due, self._send_follow_up, index, payload, due)

    def _send_follow_up(self, index: int, payload: bytes, due: float) -> None:
        self._between -= 1
        open_loop = self._config.concurrency is None
        allowed = not self.interrupted if open_loop else self._may_send(due)
        if allowed and self._admitted(index):
            self._start(index, payload, due)
        else:
            self._note_if_idle()

    async def _drain(self) -> None:
        """Wait for the requests in flight; every one of them has a deadline."""
        if self._config.concurrency is None:
            self._phase = "drain"
        while self._busy:
            self._idle.clear()
            if self.interrupted:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), _GRACE_AFTER_INTERRUPT_S)
                self._client.abandon(self._client.in_flight, "interrupted")
            else:
                await self._idle.wait()

    def _interrupt(self) -> None:
        """Ctrl-C stops sending and keeps what there is; a second one drops what is in flight at once."""
        if self.interrupted:
            self._client.abandon(self._client.in_flight, "interrupted")
        self.interrupted = True
        self._wake()
        self._idle.set()

    # ----------------------------------------------------------------- beside it

    async def _background(self) -> None:
        """Prepare what is sent next and decode what came, in slices between turns of the loop."""
        while True:
            if self._wants_payload():
                self._top_up(1)
            elif self._recorder.pending:
                self._recorder.work()
            else:
                self._work_waits.clear()
                await self._work_waits.wait()
            await asyncio.sleep(0)

    def _wants_payload(self) -> bool:
        ahead = min(_PREPARED, self._config.concurrency or 8)
        return self._more_starts and len(self._prepared) < ahead and not self.interrupted

    def _top_up(self, count: int) -> None:
        for _ in range(count):
            index = next(self._starts, None)
            if index is None:
                self._more_starts = False
                return
            self._prepared.append((index, self._course.payload(index)))

    def _keep(self, record: RequestRecord, exchange: Exchange) -> None:
        self.store.add(record)
        self._writer.write(record)
        self._course.note(record)
        self._failed += not record.ok
        self._output_tokens += record.output_tokens
        self._ttft.add_gaps((record.ttft_ms,) if record.ok and record.ttft_ms is not None else ())
        good = exchange.error is None and exchange.status == 200
        if good and self._course.follows(exchange.index):
            if record.ok:
                self._follow_up(exchange)
            else:  # Without its answer a session cannot go on.
                self._between -= 1
                self._free_slot(exchange, None)

    async def _tick(self) -> None:
        while True:
            self._writer.flush()
            if self._on_progress is not None:
                self._on_progress(self._progress())
            await asyncio.sleep(_PROGRESS_EVERY_S)

    def _progress(self) -> Progress:
        return Progress(
            phase=self._phase,
            elapsed_s=max(0.0, now() - self.zero),
            sent=self._sent,
            completed=self.store.added - len(self._earlier.done) - self._failed,
            failed=self._failed,
            in_flight=len(self._client.in_flight),
            output_tokens=self._output_tokens,
            total_requests=self._limit,
            duration_s=self._config.planned_duration_s,
            ttft_ms=self._ttft.percentiles(),
        )

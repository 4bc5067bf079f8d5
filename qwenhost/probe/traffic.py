"""Offering the load: open and closed loops on the absolute clock.

An open loop sends on schedule whatever the server does; nothing caps the requests in flight. A closed
loop keeps a number of requests in flight; each is due when its slot falls free. Latency counts from
the due time in both, so that neither the client's nor the server's queue is hidden.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.probe.arrivals import closed_loop, schedule
from qwenhost.probe.clock import now
from qwenhost.probe.exchange import Exchange
from qwenhost.probe.gaps import RecordStore
from qwenhost.probe.recording import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from qwenhost.measurements import RequestRecord
    from qwenhost.probe.client import Client
    from qwenhost.probe.clock import LoopLag
    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.records import RecordWriter

_LEAD_S: Final = 0.05
"""The schedule begins a little ahead, so that the first request is on time."""
_PREPARED: Final = 512
"""At most so many requests are made ready ahead of their sending."""
_PROGRESS_EVERY_S: Final = 0.25
_GRACE_AFTER_INTERRUPT_S: Final = 1.0
_PAUSE_AFTER_FAILURE_S: Final = 0.25
"""Before a closed loop's slot sends again: a server that is gone is not hammered."""


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


class Traffic:
    """One run's load; everything happens on one event loop.

    Args:
        config: what load.
        client: sends it; its ``on_end`` is taken over.
        payload: makes the request of an index.
        seed: of the arrivals.
        writer: takes each record as its request ends.
        on_progress: called about four times a second.
    """

    def __init__(
        self,
        config: ProbeConfig,
        client: Client,
        *,
        writer: RecordWriter,
        payload: Callable[[int], bytes],
        seed: int,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.store = RecordStore()
        """Records in the order in which their requests ended."""
        self.zero = 0.0
        """The start of the run on the clock."""
        self.interrupted = False
        self._config, self._client, self._payload, self._seed = config, client, payload, seed
        self._on_progress = on_progress
        self._writer = writer
        self._limit = config.planned_requests
        self._stop_at: float | None = None
        self._phase = "load"
        self._sent = self._failed = self._output_tokens = 0
        self._to_schedule = 0
        """Requests of the schedule that are yet to be sent."""
        self._pausing = 0
        """Slots of a closed loop that wait after a failure."""
        self._next_index = 0
        self._prepared: deque[tuple[int, bytes]] = deque()
        self._work_waits = asyncio.Event()
        self._idle = asyncio.Event()
        self._wake: Callable[[], None] = self._idle.set

    async def offer(self) -> LoopLag:
        """Send everything, wait for the answers, record them; returns how late the client was."""
        config, client = self._config, self._client
        self._top_up(min(_PREPARED, self._limit or _PREPARED, config.concurrency or 1))
        if config.concurrency is not None:
            await client.preconnect(min(config.concurrency, self._limit or config.concurrency))
        due = self._due_times()
        client.on_end = self._on_end
        with _quiet_garbage_collector(), self._stop_on_interrupt():
            self._start_clock()
            async with _beside(self._background(), self._tick()):
                await self._send_on_schedule(due)
                await self._drain()
                lag = client.selector.turns.summary()
                while self._recorder.pending:
                    self._recorder.work()
        return lag

    def _start_clock(self) -> None:
        self._client.selector.begin()
        self.zero = now() + _LEAD_S
        self._recorder = Recorder(self._config.endpoint, self.zero, self._keep)
        duration = self._config.planned_duration_s
        self._stop_at = None if duration is None else self.zero + duration

    def _due_times(self) -> list[float]:
        config = self._config
        if config.concurrency is not None:
            return closed_loop(config.concurrency, config.ramp_up_s)[: self._limit]
        assert config.rate is not None  # noqa: S101 - checked in ProbeConfig.check
        due = schedule(
            config.arrivals,
            config.rate,
            n=self._limit,
            duration_s=config.planned_duration_s,
            seed=self._seed,
            burstiness=config.burstiness,
        )
        self._limit = len(due)
        return due

    # ----------------------------------------------------------------- sending

    async def _send_on_schedule(self, due: list[float]) -> None:
        """Send every request at its instant; returns when the last is sent, or the run is stopping."""
        self._to_schedule = len(due)
        for at in due:
            instant = self.zero + at
            await self._sleep_until(instant)
            if self.interrupted or self._past_end(instant):
                break
            self._to_schedule -= 1
            self._send(instant)
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

    def _send(self, due: float) -> None:
        if not self._prepared:
            self._top_up(1)
        index, payload = self._prepared.popleft()
        self._sent += 1
        self._client.start(Exchange(payload, index=index, due=due))
        self._work_waits.set()

    def _on_end(self, exchange: Exchange) -> None:
        self._recorder.add(exchange)
        self._work_waits.set()
        if self._config.concurrency is None:
            self._note_if_idle()
        elif exchange.error is None and exchange.status == 200:
            self._go_on(self._client.selector.stamp)
        else:
            self._pausing += 1
            asyncio.get_running_loop().call_later(_PAUSE_AFTER_FAILURE_S, self._end_pause)

    def _end_pause(self) -> None:
        self._pausing -= 1
        self._go_on(now())

    def _go_on(self, due: float) -> None:
        """Let a closed loop's freed slot send again, if anything is left to send."""
        within = self._limit is None or self._sent + self._to_schedule < self._limit
        if within and not self.interrupted and not self._past_end(due):
            self._send(due)
        else:
            self._note_if_idle()

    def _note_if_idle(self) -> None:
        if not self._client.in_flight and not self._pausing:
            self._idle.set()

    async def _drain(self) -> None:
        """Wait for the requests in flight; every one of them has a deadline."""
        if self._config.concurrency is None:
            self._phase = "drain"
        while self._client.in_flight or self._pausing:
            self._idle.clear()
            if self.interrupted:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), _GRACE_AFTER_INTERRUPT_S)
                self._client.abandon(self._client.in_flight, "interrupted")
            else:
                await self._idle.wait()

    @contextlib.contextmanager
    def _stop_on_interrupt(self) -> Iterator[None]:
        """Ctrl-C stops sending and keeps what there is; a second one drops what is in flight at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

    def _interrupt(self) -> None:
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
        more = self._limit is None or self._next_index < self._limit
        return more and len(self._prepared) < ahead and not self.interrupted

    def _top_up(self, count: int) -> None:
        for _ in range(count):
            self._prepared.append((self._next_index, self._payload(self._next_index)))
            self._next_index += 1

    def _keep(self, record: RequestRecord) -> None:
        self.store.add(record)
        self._writer.write(record)
        self._failed += not record.ok
        self._output_tokens += record.output_tokens

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
            completed=len(self.store.records) - self._failed,
            failed=self._failed,
            in_flight=len(self._client.in_flight),
            output_tokens=self._output_tokens,
            total_requests=self._limit,
            duration_s=self._config.planned_duration_s,
        )


@contextlib.asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines beside the block and end them with it; what they raise is raised here."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for result in ended:
        if isinstance(result, Exception):
            raise result


@contextlib.contextmanager
def _quiet_garbage_collector() -> Iterator[None]:
    """Keep full collections, which stop everything for milliseconds, out of the run.

    The hot path makes no cycles, so nothing piles up; young generations are still collected.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(thresholds[0] * 20, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()

"""The run: identify, calibrate, warm up, offer the load, judge, summarise.

An open loop sends on schedule whatever the server does; nothing caps the requests in flight. A closed
loop keeps a number of requests in flight; each is due when its slot falls free. Latency counts from
the due time in both, so that neither the client's nor the server's queue is hidden.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import os
import platform
import random
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost import __version__
from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.measurements import Load, MeasuredWorkload, Measurements, RequestRecord
from qwenhost.probe import summary
from qwenhost.probe.arrivals import closed_loop, schedule
from qwenhost.probe.client import Client, Exchange, Target, parse_url, request_bytes
from qwenhost.probe.clock import LoopLag, StampingSelector, TurnStats, new_runner, now
from qwenhost.probe.content import FilePrompts, Prompts, SyntheticPrompts, TextPool, TokenFit
from qwenhost.probe.counters import counter_deltas, read_counters
from qwenhost.probe.endpoints import PATHS, Ask, auth_headers, request_body
from qwenhost.probe.identify import Identity, Sampler, calibrate, identify
from qwenhost.probe.recording import Recorder, RecordWriter
from qwenhost.probe.verdict import void_reason, warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.probe.config import ProbeConfig

_LEAD_S: Final = 0.05
"""The schedule begins a little ahead, so that the first request is on time."""
_PREPARED: Final = 512
_WARMUP_TOKENS: Final = 32
_PROGRESS_EVERY_S: Final = 0.25
_GRACE_AFTER_INTERRUPT_S: Final = 1.0
_PAUSE_AFTER_FAILURE_S: Final = 0.25
"""Before a closed loop's slot sends again: a server that is gone is not hammered."""


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run's figures and the records they were drawn from."""

    measurements: Measurements
    records: tuple[RequestRecord, ...]
    """In the order in which they ended; those dropped at an interruption carry ``interrupted``."""
    clock_zero_s: float
    """The start of the run on CLOCK_MONOTONIC; records count from here."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands."""

    phase: str
    """``warm-up``, ``load`` or ``drain``."""
    elapsed_s: float
    sent: int
    completed: int
    failed: int
    in_flight: int
    output_tokens: int
    """Of ended requests."""
    total_requests: int | None
    duration_s: float | None


def run_probe(config: ProbeConfig, *, on_progress: Callable[[Progress], None] | None = None) -> ProbeResult:
    """Measure an endpoint.

    Args:
        config: what to send where.
        on_progress: called about four times a second.

    Raises:
        BadInputError: the configuration cannot be run, or the model is not served.
        UnavailableError: the endpoint does not answer.
    """
    config.check()
    target = parse_url(config.url)
    runner, selector = new_runner()
    with runner:
        return runner.run(_Run(config, target, selector, on_progress).execute())


class _Run:
    """One run's state; everything happens on one event loop."""

    def __init__(
        self,
        config: ProbeConfig,
        target: Target,
        selector: StampingSelector,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.config, self.target, self.selector = config, target, selector
        self.on_progress = on_progress
        self.seed = config.seed if config.seed is not None else random.SystemRandom().getrandbits(32)
        self.headers = auth_headers(config.endpoint, config.api_key)
        self.records: list[RequestRecord] = []
        self.writer = RecordWriter(config.records)
        self.phase = "warm-up"
        self.zero = 0.0
        self.sent = self.ended = self.failed = self.output_tokens = 0
        self.stopping = False
        self.done = asyncio.Event()
        self.wake: Callable[[], None] = self.done.set
        self.pausing = 0
        self.prepared: deque[tuple[int, bytes]] = deque()
        self.next_index = 0
        self.work_waits = asyncio.Event()
        self.stop_at: float | None = None

    async def execute(self) -> ProbeResult:
        """The whole run, in order."""
        identity = await identify(self.target, self.selector, self.headers, model=self.config.model)
        fit = await self._prepare_prompts(identity)
        self.client = Client(
            self.target,
            self.selector,
            on_end=self._on_warmup_end,
            timeout_s=self.config.timeout_s,
            idle_timeout_s=self.config.idle_timeout_s,
        )
        try:
            await self.client.open()
            await self._warm_up()
            before = await read_counters(self.target, self.selector)
            started_at = dt.datetime.now(dt.UTC)
            with _quiet_garbage_collector(), self._stop_on_interrupt():
                lag = await self._offer_load()
            after = await read_counters(self.target, self.selector)
        finally:
            await self.client.close()
            self.writer.close()
        counters = counter_deltas(before, after)
        return ProbeResult(
            measurements=self._measurements(identity, fit, counters, lag, started_at),
            records=tuple(self.records),
            clock_zero_s=self.zero,
        )

    # ----------------------------------------------------------------- before the load

    async def _prepare_prompts(self, identity: Identity) -> TokenFit | None:
        config = self.config
        self.model = identity.server.model
        self.exact = identity.speaks_vllm if config.exact_output is None else config.exact_output
        wanted = config.input_tokens.mean + config.output_tokens.mean
        if identity.max_model_len is not None and config.prompts is None and wanted > identity.max_model_len:
            raise BadInputError(
                f"{wanted:,.0f} tokens a request; the server's max_model_len is {identity.max_model_len:,}",
                remedy="Lower --input-tokens or --output-tokens.",
            )
        self.prompts: Prompts
        if config.prompts is not None:
            self.prompts = FilePrompts(config.prompts, max_tokens=round(config.output_tokens.mean))
            return None
        pool = TextPool(self.seed)
        sampler = Sampler(
            target=self.target,
            selector=self.selector,
            headers=self.headers,
            endpoint=config.endpoint,
            timeout_s=config.timeout_s,
        )
        fit = await calibrate(sampler, pool, model=self.model, seed=self.seed, thinking=config.thinking)
        self.prompts = SyntheticPrompts(
            input_tokens=config.input_tokens,
            output_tokens=config.output_tokens,
            distribution=config.distribution,
            prefix_hit=config.prefix_hit,
            fit=fit,
            seed=self.seed,
            pool=pool,
        )
        return fit

    def _payload(self, index: int, *, at_most: int | None = None) -> bytes:
        prompt = self.prompts[index]
        ask = Ask(
            model=self.model,
            prompt=prompt.text,
            messages=prompt.messages,
            max_tokens=prompt.max_tokens if at_most is None else min(at_most, prompt.max_tokens),
            exact_output=self.exact,
            thinking=self.config.thinking,
            temperature=self.config.temperature,
        )
        return request_bytes(
            self.target,
            "POST",
            PATHS[self.config.endpoint],
            headers=[*self.headers, ("x-request-id", f"qwenhost-{self.seed:x}-{index}")],
            body=request_body(self.config.endpoint, ask),
        )

    async def _warm_up(self) -> None:
        """Requests of the run's input size and a few output tokens; nothing of them is kept.

        Raises:
            UnavailableError: all of them failed.
        """
        self.warmup_errors: list[str] = []
        self.warmup_left = self.config.warmup_requests
        self.ended = 0
        if self.warmup_left:
            self._report()
            self.warmup_done = asyncio.Event()
            for _ in range(min(self.warmup_left, self.config.concurrency or self.warmup_left)):
                self._send_warmup()
            await self.warmup_done.wait()
            if len(self.warmup_errors) == self.config.warmup_requests:
                raise UnavailableError(
                    f"{self.target.origin}: every warm-up request failed: {self.warmup_errors[-1]}",
                    remedy="Try one request by hand, or look at the server's log.",
                )
        self.ended = 0

    def _send_warmup(self) -> None:
        self.warmup_left -= 1
        self.client.start(Exchange(self._payload(-2 - self.warmup_left, at_most=_WARMUP_TOKENS)))

    def _on_warmup_end(self, exchange: Exchange) -> None:
        self.ended += 1
        if exchange.error is not None or exchange.status != 200:
            said = exchange.error or f"HTTP {exchange.status}"
            detail = exchange.detail or bytes(exchange.body[:300]).decode(errors="replace")
            self.warmup_errors.append(f"{said} {detail}".strip())
        if self.warmup_left > 0:
            self._send_warmup()
        elif not self.client.in_flight:
            self.warmup_done.set()

    # ----------------------------------------------------------------- the load

    async def _offer_load(self) -> LoopLag:
        config = self.config
        self.limit = config.planned_requests
        self._top_up(min(_PREPARED, self.limit or _PREPARED, config.concurrency or 1))
        if config.concurrency is not None:
            await self.client.preconnect(min(config.concurrency, self.limit or config.concurrency))
        self.phase = "load"
        self.zero = now() + _LEAD_S
        self.recorder = Recorder(config.endpoint, self.zero, self._keep)
        self.client.on_end = self._on_end
        duration = config.planned_duration_s
        self.stop_at = None if duration is None else self.zero + duration
        due = self._due_times()
        self.selector.turns = TurnStats()
        background = asyncio.get_running_loop().create_task(self._background())
        progress = asyncio.get_running_loop().create_task(self._tick())
        try:
            await self._send_on_schedule(due)
            await self._drain()
            lag = self.selector.turns.summary()
            while self.recorder.pending:
                self.recorder.work()
        finally:
            for task in (background, progress):
                task.cancel()
            await asyncio.gather(background, progress, return_exceptions=True)
        return lag

    def _due_times(self) -> list[float]:
        config = self.config
        if config.rate is None:
            assert config.concurrency is not None  # noqa: S101 - checked in ProbeConfig.check
            starts = closed_loop(config.concurrency)
            return starts if self.limit is None else starts[: self.limit]
        return schedule(
            config.arrivals,
            config.rate,
            n=self.limit,
            duration_s=config.planned_duration_s,
            seed=self.seed,
            burstiness=config.burstiness,
        )

    async def _send_on_schedule(self, due: list[float]) -> None:
        """Send every request at its instant; returns when the last is sent, or the run is stopping."""
        if self.config.rate is not None:
            self.limit = len(due)
        self.to_schedule = len(due)
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        for at in due:
            instant = self.zero + at
            if instant > now():
                woken.clear()
                handle = loop.call_at(instant, woken.set)
                await self._first_of(woken)
                handle.cancel()
            if self.stopping or self._past_end(instant):
                break
            self._send(instant)
            self.to_schedule -= 1
        self.to_schedule = 0

    async def _first_of(self, woken: asyncio.Event) -> None:
        """Wait for the timer; an interruption sets it too."""
        self.wake = woken.set
        await woken.wait()

    def _past_end(self, instant: float) -> bool:
        return self.stop_at is not None and instant >= self.stop_at

    def _send(self, due: float) -> None:
        if not self.prepared:
            self._top_up(1)
        index, payload = self.prepared.popleft()
        self.sent += 1
        self.client.start(Exchange(payload, index=index, due=due))
        self.work_waits.set()

    def _on_end(self, exchange: Exchange) -> None:
        self.ended += 1
        self.recorder.add(exchange)
        self.work_waits.set()
        if self.config.concurrency is None:
            self._note_if_idle()
        elif exchange.error is None and exchange.status == 200:
            self._go_on(self.selector.stamp)
        else:
            self.pausing += 1
            asyncio.get_running_loop().call_later(_PAUSE_AFTER_FAILURE_S, self._end_pause)

    def _end_pause(self) -> None:
        self.pausing -= 1
        self._go_on(now())

    def _go_on(self, due: float) -> None:
        """Let a closed loop's freed slot send again, if anything is left to send."""
        within = self.limit is None or self.sent + self.to_schedule < self.limit
        if within and not self.stopping and not self._past_end(due):
            self._send(due)
        else:
            self._note_if_idle()

    def _note_if_idle(self) -> None:
        if not self.client.in_flight and not self.pausing:
            self.done.set()

    async def _drain(self) -> None:
        """Wait for the requests in flight; every one of them has a deadline."""
        self.phase = "load" if self.config.concurrency is not None else "drain"
        while self.client.in_flight or self.pausing:
            self.done.clear()
            if self.stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.done.wait(), _GRACE_AFTER_INTERRUPT_S)
                self.client.abandon(self.client.in_flight, "interrupted")
            else:
                await self.done.wait()

    # ----------------------------------------------------------------- beside the load

    def _top_up(self, count: int) -> None:
        for _ in range(count):
            self.prepared.append((self.next_index, self._payload(self.next_index)))
            self.next_index += 1

    def _wants_payload(self) -> bool:
        ahead = min(_PREPARED, self.config.concurrency or 8)
        more = self.limit is None or self.next_index < self.limit
        return more and len(self.prepared) < ahead and not self.stopping

    async def _background(self) -> None:
        """Prepare what is sent next and decode what came, in slices between turns of the loop."""
        while True:
            if self._wants_payload():
                self._top_up(1)
            elif self.recorder.pending:
                self.recorder.work()
            else:
                self.work_waits.clear()
                await self.work_waits.wait()
            await asyncio.sleep(0)

    def _keep(self, record: RequestRecord) -> None:
        self.records.append(record)
        self.writer.write(record)
        self.failed += not record.ok
        self.output_tokens += record.output_tokens

    async def _tick(self) -> None:
        while True:
            self.writer.flush()
            self._report()
            await asyncio.sleep(_PROGRESS_EVERY_S)

    def _report(self) -> None:
        if self.on_progress is None:
            return
        self.on_progress(
            Progress(
                phase=self.phase,
                elapsed_s=max(0.0, now() - self.zero) if self.zero else 0.0,
                sent=self.sent,
                completed=self.ended - self.failed,
                failed=self.failed,
                in_flight=len(self.client.in_flight),
                output_tokens=self.output_tokens,
                total_requests=self.limit if self.phase != "warm-up" else self.config.warmup_requests,
                duration_s=self.config.planned_duration_s,
            )
        )

    @contextlib.contextmanager
    def _stop_on_interrupt(self) -> Iterator[None]:
        """Ctrl-C stops sending and keeps what there is; a second one drops what is in flight at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _interrupt(self) -> None:
        if self.stopping:
            self.client.abandon(self.client.in_flight, "interrupted")
        self.stopping = True
        self.wake()
        self.done.set()

    # ----------------------------------------------------------------- after the load

    def _measurements(
        self,
        identity: Identity,
        fit: TokenFit | None,
        counters: dict[str, float],
        lag: LoopLag,
        started_at: dt.datetime,
    ) -> Measurements:
        config = self.config
        kept = [record for record in self.records if record.error != "interrupted"]
        window = summary.rate_window(kept)
        rates = summary.rates(kept, window)
        times = summary.latencies(kept)
        reason = void_reason(kept, open_loop=config.rate is not None, lag=lag, counters=counters)
        return Measurements(
            workload=self._workload(kept, fit),
            load=Load(
                kind="closed" if config.rate is None else "open",
                concurrency=config.concurrency,
                rate=config.rate,
                arrivals=None if config.rate is None else config.arrivals,
                duration_s=summary.run_duration_s(kept),
                warmup_requests=config.warmup_requests,
                rate_window_s=(window.start_s, window.end_s),
                rate_window=window.kind,
            ),
            requests=summary.request_counts(kept),
            output_tokens_per_s=rates.output_tokens,
            input_tokens_per_s=rates.input_tokens,
            total_tokens_per_s=rates.input_tokens + rates.output_tokens,
            request_per_s=rates.requests,
            ttft_ms=times.ttft_ms,
            first_visible_ms=times.first_visible_ms,
            tpot_ms=times.tpot_ms,
            itl_ms=times.itl_ms,
            e2e_ms=times.e2e_ms,
            tokens_per_chunk=times.tokens_per_chunk,
            goodput=None if config.slo is None else summary.goodput_in(kept, config.slo, window),
            send_lag_ms=times.send_lag_ms,
            void=reason is not None,
            void_reason=reason,
            warnings=tuple(
                warnings(
                    kept,
                    counters=counters,
                    wanted_output=config.output_tokens.mean if self._length_is_exact else None,
                    interrupted=len(self.records) - len(kept) if self.stopping else None,
                )
            ),
            interrupted=self.stopping,
            server=identity.server,
            engine_counters=counters,
            started_at=started_at,
            machine=_machine(),
            client=lag.as_mapping(),
            gpus=config.gpus,
        )

    @property
    def _length_is_exact(self) -> bool:
        return self.exact and self.config.prompts is None and self.config.distribution == "fixed"

    def _workload(self, records: list[RequestRecord], fit: TokenFit | None) -> MeasuredWorkload:
        config = self.config
        ok = [record for record in records if record.ok]
        made = (
            f"lines of {config.prompts}"
            if fit is None
            else f"synthetic, {config.distribution} length, tokens per word {fit.basis} from {fit.source}"
        )
        return MeasuredWorkload(
            id=config.workload,
            endpoint=config.endpoint,
            mean_input_tokens=summary.mean_of([r.input_tokens for r in ok]),
            mean_output_tokens=summary.mean_of([r.output_tokens for r in ok]),
            mean_cached_tokens=summary.mean_of([r.cached_tokens for r in ok]),
            thinking=config.thinking,
            prompts=made,
            seed=self.seed,
        )


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


def _machine() -> dict[str, Any]:
    """The client's machine."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "qwenhost": __version__,
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

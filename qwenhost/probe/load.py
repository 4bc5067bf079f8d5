"""A run from start to end: prepare, warm up, offer the load, judge."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.errors import UnavailableError
from qwenhost.measurements import Measurements, RequestRecord
from qwenhost.probe.client import Client
from qwenhost.probe.clock import new_runner, now
from qwenhost.probe.counters import counter_deltas, read_counters, summed, with_rates
from qwenhost.probe.course import Earlier
from qwenhost.probe.exchange import Exchange
from qwenhost.probe.prepare import prepare
from qwenhost.probe.records import Head, RecordWriter, Tail, head_of
from qwenhost.probe.replicas import Replicas
from qwenhost.probe.results import Run, measurements_of
from qwenhost.probe.traffic import Progress, Traffic
from qwenhost.probe.wire import parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.probe.clock import LoopLag, StampingSelector
    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.prepare import Prepared
    from qwenhost.probe.resume import Resumption
    from qwenhost.probe.wire import Target

_WARMUP_TOKENS: Final = 32


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run's figures and the records they were drawn from."""

    measurements: Measurements
    records: tuple[RequestRecord, ...]
    """In the order in which they ended; those dropped at an interruption carry ``interrupted``.

    Past two million token times they come without ``token_times_s``. Past 100,000 requests they are an
    even sample (``measurements.sampled``); a file of ``--records`` has all."""
    clock_zero_s: float
    """The start of the run on CLOCK_MONOTONIC; records count from here."""


def run_probe(
    config: ProbeConfig,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_prepared: Callable[[Prepared], None] | None = None,
    resumption: Resumption | None = None,
) -> ProbeResult:
    """Measure an endpoint.

    Args:
        config: what to send where.
        on_progress: called about four times a second.
        on_prepared: called once before the first request of the load; knows what a paid run may cost.
        resumption: go on with the run that this was read from; ``config`` is that run's.

    Raises:
        BadInputError: the configuration cannot be run, the model is not served, or the run could cost
            more than its cap.
        UnavailableError: the endpoint does not answer, or every warm-up request failed.
    """
    config.check()
    targets = [parse_url(url) for url in config.urls]
    runner, selector = new_runner()
    with runner:
        run = _Running(config, targets, selector, on_progress, resumption)
        return runner.run(run.result(on_prepared))


class _Running:
    def __init__(
        self,
        config: ProbeConfig,
        targets: Sequence[Target],
        selector: StampingSelector,
        on_progress: Callable[[Progress], None] | None,
        resumption: Resumption | None,
    ) -> None:
        self._config, self._targets, self._selector = config, targets, selector
        self._on_progress, self._resumption = on_progress, resumption
        self._earlier = Earlier() if resumption is None else resumption.earlier

    async def result(self, on_prepared: Callable[[Prepared], None] | None) -> ProbeResult:
        config, before = self._config, self._resumption
        prepared = await prepare(
            config, self._targets, self._selector, seed=self._seed(), earlier=self._earlier,
            fit=None if before is None else before.head.fit,
        )  # fmt: skip
        if on_prepared is not None:
            on_prepared(prepared)
        if before is not None:
            before.require_same_server(prepared.identity.server)
        client = self._client(prepared)
        await client.open()
        try:
            await self._warm_up(client, prepared)
            head = self._head(prepared)
            with RecordWriter(config.records, after=None if before is None else before.keep_bytes) as writer:
                if before is None:
                    writer.write(head)
                traffic, lag, counters = await self._offer(client, prepared, writer)
                tail = Tail(
                    lag=lag, counters=counters, interrupted=traffic.interrupted,
                    stopped_by_cap=prepared.purse is not None and prepared.purse.stopped,
                )  # fmt: skip
                writer.write(tail)
        finally:
            await client.close()
        measurements = measurements_of(self._run(head, tail, traffic, prepared))
        return ProbeResult(
            measurements=measurements, records=tuple(traffic.store.records), clock_zero_s=traffic.zero
        )

    def _seed(self) -> int:
        if self._resumption is not None:
            return self._resumption.head.seed
        if self._config.seed is not None:
            return self._config.seed
        return random.SystemRandom().getrandbits(32) if self._config.unique_prefix else 0

    def _client(self, prepared: Prepared) -> Client | Replicas:
        config = self._config
        clients = [
            Client(
                target, self._selector, on_end=lambda _: None, timeout_s=config.timeout_s,
                idle_timeout_s=config.idle_timeout_s,
            )
            for target in self._targets
        ]  # fmt: skip
        if len(clients) == 1:
            return clients[0]

        def replica_of(index: int) -> int | None:
            return prepared.course.label(index).replica if index >= 0 else -index % len(clients)

        return Replicas(clients, replica_of)

    def _head(self, prepared: Prepared) -> Head:
        if self._resumption is not None:
            return self._resumption.head
        return head_of(
            self._config, server=prepared.identity.server, fit=prepared.fit, seed=prepared.seed,
            exact=prepared.exact, about=prepared.about, notes=prepared.notes,
            image_tokens=prepared.image_tokens, worst_request_usd=prepared.worst_request_usd,
            started_at=dt.datetime.now(dt.UTC),
        )  # fmt: skip

    async def _offer(
        self, client: Client | Replicas, prepared: Prepared, writer: RecordWriter
    ) -> tuple[Traffic, LoopLag, dict[str, float]]:
        before = await self._counters()
        traffic = Traffic(
            self._config, client, course=prepared.course, seed=prepared.seed, writer=writer,
            on_progress=self._on_progress, earlier=self._earlier,
        )  # fmt: skip
        lag = await traffic.offer()
        # One by one: a replica that was started anew must not hide behind the others' sum.
        deltas = [counter_deltas(*pair) for pair in zip(before, await self._counters(), strict=True)]
        return traffic, lag, with_rates(summed(deltas))

    async def _counters(self) -> list[dict[str, float]]:
        """The counters of each URL; Claude's API has none."""
        if self._config.anthropic:
            return []
        headers = self._config.headers
        return [await read_counters(target, self._selector, headers) for target in self._targets]

    def _run(self, head: Head, tail: Tail, traffic: Traffic, prepared: Prepared) -> Run:
        before = self._resumption
        tail = tail if before is None else before.joined(tail)
        return Run(
            config=self._config, store=traffic.store,
            server=head.server, fit=head.fit, seed=head.seed, exact=head.exact, counters=tail.counters,
            lag=tail.lag, started_at=head.started_at, interrupted=traffic.interrupted, about=prepared.about,
            notes=prepared.notes, image_tokens=prepared.image_tokens,
            worst_request_usd=prepared.worst_request_usd, stopped_by_cap=tail.stopped_by_cap,
            resumed=0 if before is None else before.times + 1,
        )  # fmt: skip

    async def _warm_up(self, client: Client | Replicas, prepared: Prepared) -> None:
        """Send requests of the run's input size and at most 32 output tokens, and forget them.

        Raises:
            UnavailableError: all of them failed.
        """
        config, replicas = self._config, len(self._targets)
        count = config.warmup_requests
        if self._on_progress is not None:
            self._on_progress(Progress(phase="warm-up", total_requests=count))
        indices = [-2 - i for i in range(count)]
        waiting = [
            Exchange(
                prepared.encode(prepared.warm[i], i, replica=-i % replicas, at_most=_WARMUP_TOKENS), index=i
            )
            for i in indices
        ]
        ended = await _send_all(client, waiting, at_once=config.concurrency or count)
        failed = [exchange for exchange in ended if exchange.error is not None or exchange.status != 200]
        if failed and len(failed) == count:
            last = failed[-1]
            detail = last.detail or bytes(last.body[:300]).decode(errors="replace")
            raise UnavailableError(
                f"{client.target.origin}: every warm-up request failed: "
                f"{last.error or f'HTTP {last.status}'} {detail}".rstrip(),
                remedy="Try one request by hand, or look at the server's log.",
            )


async def _send_all(client: Client | Replicas, waiting: list[Exchange], *, at_once: int) -> list[Exchange]:
    """Send exchanges, so many at a time; returns them when the last has ended."""
    ended: list[Exchange] = []
    finished = asyncio.Event()
    count = len(waiting)
    if count == 0:
        return ended

    def go_on(exchange: Exchange) -> None:
        ended.append(exchange)
        if waiting:
            _start(client, waiting.pop())
        elif len(ended) == count:
            finished.set()

    client.on_end = go_on
    for _ in range(min(count, at_once)):
        _start(client, waiting.pop())
    await finished.wait()
    return ended


def _start(client: Client | Replicas, exchange: Exchange) -> None:
    exchange.due = now()
    client.start(exchange)

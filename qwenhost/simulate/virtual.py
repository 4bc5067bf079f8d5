"""Virtual time: a load against the engine's ranks, as fast as the machine computes."""

from __future__ import annotations

import heapq
import math
import time
from itertools import islice
from typing import TYPE_CHECKING, Literal

from qwenhost.facts import Slo, Value
from qwenhost.measurements import (
    Goodput,
    Load,
    MeasuredWorkload,
    Percentiles,
    RequestCounts,
    RequestRecord,
    goodput,
    percentiles,
)
from qwenhost.simulate.engine import Engine
from qwenhost.simulate.tabulate import tabulated
from qwenhost.simulate.weighted import Weighted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from qwenhost.plan import StepShape
    from qwenhost.simulate.config import EngineConfig
    from qwenhost.simulate.engine import Request, Sequence, StepResult
    from qwenhost.simulate.load import Arrival

SCHEMA = "qwenhost.simulation/1"
LONGEST_STRETCH = 1 << 40


class Simulation(Value, frozen=True, kw_only=True):
    """One simulated run; the keys it shares with Measurements mean the same."""

    schema: str = SCHEMA
    simulated: Literal[True] = True
    basis: Literal["modelled"] = "modelled"
    engine: str
    """The planned configuration."""
    gpus: str
    seed: int
    workload: MeasuredWorkload
    load: Load
    requests: RequestCounts
    output_tokens_per_s: float
    input_tokens_per_s: float
    total_tokens_per_s: float
    request_per_s: float
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    itl_ms: Percentiles
    e2e_ms: Percentiles
    goodput: Goodput | None
    preemptions: int
    kv_cache_usage: float
    """Mean over time of the held share of the cache, 0 to 1, as vLLM's ``kv_cache_usage_perc``."""
    kv_cache_usage_max: float
    running_mean: float
    """Mean over time of sequences admitted, all ranks."""
    running_max: int
    """Most sequences admitted on one rank."""
    prefix_cache_hit_rate: float
    steps: int
    wall_s: float
    """What the simulation itself took."""
    assumptions: tuple[str, ...] = ()


class Rank:
    """One engine with its own clock, and what was seen of it."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self.engine = engine
        self.clock_s = 0.0
        self._run = run

    def submit(self, request: Request, now: float) -> None:
        """Send a request; an idle engine begins at once."""
        if self.engine.idle:
            self.clock_s = max(self.clock_s, now)
        self.engine.submit(request, now)

    def step(self, until: float) -> list[Sequence]:
        """Advance by one stretch and record it; returns what finished."""
        result = self.engine.step(self.clock_s, until=until, max_steps=LONGEST_STRETCH)
        self.clock_s += result.duration_s
        self._run.record(result, self.clock_s)
        return result.finished


class Run:
    """What a run collects."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []
        self.refused: list[RequestRecord] = []
        self.itl = Weighted()
        self.steps = 0
        self.usage_max = 0.0
        self.running_max = 0
        self._usage_seconds = 0.0
        self._running_seconds = 0.0
        self.busy_s = 0.0

    def record(self, result: StepResult, end: float) -> None:
        """One stretch that ended at ``end``."""
        self.steps += result.steps
        self.busy_s += result.duration_s
        self._usage_seconds += result.kv_cache_usage * result.duration_s
        self._running_seconds += result.running * result.duration_s
        self.usage_max = max(self.usage_max, result.kv_cache_usage)
        self.running_max = max(self.running_max, result.running)
        if result.decode_sequences:
            self.itl.add(result.duration_s / result.steps, result.decode_sequences * result.steps)
        for sequence in result.first_tokens:
            if sequence.tag is None:
                sequence.tag = end
        for sequence in result.finished:
            self.records.append(_record(sequence, end, len(self.records)))

    def refuse(self, at_s: float) -> None:
        """A request vLLM would answer with 400."""
        self.refused.append(
            RequestRecord(
                index=len(self.refused), scheduled_s=at_s, sent_s=at_s, error="http_400", http_status=400
            )
        )

    @property
    def kv_cache_usage(self) -> float:
        """Mean over the engines' busy time."""
        return self._usage_seconds / self.busy_s if self.busy_s else 0.0

    @property
    def running(self) -> float:
        """Mean sequences over one engine's busy time."""
        return self._running_seconds / self.busy_s if self.busy_s else 0.0


def _record(sequence: Sequence, end: float, index: int) -> RequestRecord:
    return RequestRecord(
        index=index,
        scheduled_s=sequence.arrival_s,
        sent_s=sequence.arrival_s,
        first_token_s=sequence.tag,
        last_s=end,
        input_tokens=sequence.request.prompt_tokens,
        cached_tokens=sequence.cached_tokens,
        output_tokens=sequence.request.output_tokens,
    )


class Simulator:
    """A planned engine in virtual time.

    Args:
        config: of one rank; ``data_parallel_size`` ranks are simulated, each with its own clock.
        step_time: seconds of a step of one rank.
        seed: of everything drawn inside the engine.
    """

    def __init__(self, config: EngineConfig, step_time: Callable[[StepShape], float], *, seed: int) -> None:
        self.config = config
        self.run = Run()
        remembered = tabulated(step_time)
        self.ranks = [
            Rank(Engine(config, remembered, seed + index), self.run)
            for index in range(config.data_parallel_size)
        ]

    def open_loop(self, arrivals: Iterable[Arrival]) -> None:
        """Requests sent when due, whatever the engine does."""
        due = iter(arrivals)
        following = next(due, None)
        while True:
            at = math.inf if following is None else following.at_s
            busy = [rank for rank in self.ranks if not rank.engine.idle]
            earliest = min(busy, key=lambda rank: rank.clock_s, default=None)
            if earliest is not None and earliest.clock_s < at:
                earliest.step(at)
            elif following is not None:
                self._send(following.request, at)
                following = next(due, None)
            else:
                return

    def closed_loop(
        self, requests: Iterator[Request], *, concurrency: int, count: int, ramp_s: float = 0.0
    ) -> None:
        """So many users, each sending its next request when the last one ends; users keep their rank.

        Args:
            requests: taken in turn.
            concurrency: users.
            count: requests in all.
            ramp_s: the users begin evenly over this time. Those who begin together and get answers of one
                length stay together, here as in vLLM: their prompts come in bursts.
        """
        ranks = len(self.ranks)
        for index, rank in enumerate(self.ranks):
            users = concurrency // ranks + (index < concurrency % ranks)
            left = list(islice(requests, round(count * users / concurrency)))[::-1]
            _hold(rank, [ramp_s * user / users for user in range(users)], left)

    def _send(self, request: Request, at_s: float) -> None:
        if self.config.refusal(request.prompt_tokens, request.output_tokens):
            self.run.refuse(at_s)
        else:
            min(self.ranks, key=lambda rank: rank.engine.load).submit(request, at_s)


def _hold(rank: Rank, free: list[float], left: list[Request]) -> None:
    """One rank's users, from the instants they begin until nothing is left.

    An answer takes a moment to reach its user: the step that begins then begins without the next request.
    """
    while left or not rank.engine.idle:
        at = free[0] if left and free else math.inf
        if rank.engine.idle or at < rank.clock_s:
            now = max(at, rank.clock_s) if rank.engine.idle else rank.clock_s
            while left and free and (free[0] < now or free[0] == at):
                rank.submit(left.pop(), heapq.heappop(free))
        else:
            ended = rank.step(at)
            for _ in ended:
                heapq.heappush(free, rank.clock_s)


class Labels(Value, frozen=True, kw_only=True):
    """What the caller knows of a run."""

    engine: str
    gpus: str
    workload: str
    seed: int
    assumptions: tuple[str, ...] = ()


def summarise(
    simulator: Simulator, labels: Labels, load: Mapping[str, object], slo: Slo | None, started: float
) -> Simulation:
    """The run as the contract's keys.

    Args:
        simulator: after its loop.
        labels: of engine, hardware and workload.
        load: fields of :class:`Load` but its duration.
        slo: for goodput.
        started: ``time.perf_counter()`` before the loop.
    """
    run, records = simulator.run, simulator.run.records
    everything = [*records, *run.refused]
    span = _span(records)
    prompt = sum(record.input_tokens for record in records)
    output = sum(record.output_tokens for record in records)
    cached = sum(record.cached_tokens for record in records)
    done = max(1, len(records))
    queries = sum(rank.engine.prefix_queries for rank in simulator.ranks)
    hits = sum(rank.engine.prefix_hits for rank in simulator.ranks)
    return Simulation(
        engine=labels.engine,
        gpus=labels.gpus,
        seed=labels.seed,
        workload=MeasuredWorkload(
            id=labels.workload,
            endpoint="none",
            mean_input_tokens=prompt / done,
            mean_output_tokens=output / done,
            mean_cached_tokens=cached / done,
        ),
        load=Load(duration_s=span, **load),  # type: ignore[arg-type]
        requests=RequestCounts(
            sent=len(everything),
            completed=len(records),
            failed=len(run.refused),
            by_error={"http_400": len(run.refused)} if run.refused else {},
        ),
        output_tokens_per_s=output / span,
        input_tokens_per_s=prompt / span,
        total_tokens_per_s=(prompt + output) / span,
        request_per_s=len(records) / span,
        ttft_ms=percentiles([r.ttft_ms for r in records if r.ttft_ms is not None]),
        tpot_ms=percentiles([r.tpot_ms for r in records if r.tpot_ms is not None]),
        itl_ms=run.itl.percentiles_ms(),
        e2e_ms=percentiles([r.e2e_ms for r in records if r.e2e_ms is not None]),
        goodput=goodput(everything, slo, span) if slo else None,
        preemptions=sum(rank.engine.preemptions for rank in simulator.ranks),
        kv_cache_usage=run.kv_cache_usage,
        kv_cache_usage_max=run.usage_max,
        running_mean=run.busy_s * run.running / span,
        running_max=run.running_max,
        prefix_cache_hit_rate=hits / queries if queries else 0.0,
        steps=run.steps,
        wall_s=time.perf_counter() - started,
        assumptions=labels.assumptions,
    )


def _span(records: list[RequestRecord]) -> float:
    """First due time to last token."""
    if not records:
        return 1e-9
    last = max(record.last_s or 0.0 for record in records)
    return max(1e-9, last - min(record.scheduled_s for record in records))

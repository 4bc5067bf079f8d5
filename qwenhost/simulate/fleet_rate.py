"""The highest rate one replica carries within its service level, by bisection over the simulator."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo, Value, Workload
from qwenhost.measurements import Percentiles, percentiles
from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.load import Arrival, arrival_times, drawn_requests
from qwenhost.simulate.virtual import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.plan import StepShape

SETTLED_LENGTHS: Final = 20.0
"""A run lasts so many requests' lengths, so that a queue that grows is seen to grow."""
DOUBLINGS: Final = 12
CURVE: Final = (0.25, 0.5, 0.75, 0.9, 1.1)
"""Further points of the curve, as shares of the rate found."""


class RatePoint(Value, frozen=True, kw_only=True):
    """One offered rate and what was seen there."""

    rate: float
    """Requests per second offered."""
    requests: int
    """Judged: those sent after the first answer."""
    kept_slo: float
    meets: bool
    request_per_s: float
    """Answered, over the whole run."""
    output_tokens_per_s: float
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    e2e_ms: Percentiles
    running_mean: float
    """Requests in the engine, mean over its busy time, all ranks."""
    kv_cache_usage: float
    preemptions: int


class RateSearch(Value, frozen=True, kw_only=True):
    """What a search found."""

    slo: Slo
    found_rate: float | None
    """Highest rate that kept it; None where none did."""
    missed_rate: float | None
    """Lowest rate above it that did not."""
    tolerance: float
    points: tuple[RatePoint, ...]
    """Ascending."""

    @property
    def found(self) -> RatePoint | None:
        """The point at ``found_rate``."""
        return next((point for point in self.points if point.rate == self.found_rate), None)


class Bench(Value, frozen=True, kw_only=True):
    """What is searched: one planned engine under one workload."""

    config: EngineConfig
    workload: Workload
    arrivals: str = "poisson"
    requests: int = 2000
    """Of one run, at least."""
    seed: int = 0


def find_rate(
    bench: Bench,
    step_time: Callable[[StepShape], float],
    slo: Slo,
    *,
    start: float = 1.0,
    tolerance: float = 0.02,
    curve: bool = True,
    on_point: Callable[[RatePoint], None] | None = None,
) -> RateSearch:
    """Bracket by doubling or halving, then bisect; every run draws the same requests.

    Args:
        bench: engine and load.
        step_time: seconds per step of one rank.
        slo: limits, and the share of requests that must keep all of them.
        start: where to begin, requests per second.
        tolerance: stop when what keeps and what misses are so close, as a share.
        curve: also run below and above what was found, for a curve of latency against load.
        on_point: told of every run.

    Raises:
        BadInputError: the service level has no limit.
    """
    if all(limit is None for limit in (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms)):
        raise BadInputError("there is no SLO to keep", remedy="Give --slo ttft=2000,tpot=50 (ms).")
    points: dict[float, RatePoint] = {}
    length_s = 0.0

    def look(rate: float) -> bool:
        nonlocal length_s
        if rate not in points:
            points[rate] = _measure(bench, step_time, slo, rate, length_s)
            if on_point is not None:
                on_point(points[rate])
        if points[rate].meets:
            length_s = (points[rate].e2e_ms.mean or 0.0) / 1000
        return points[rate].meets

    low, high = _bracket(look, start)
    while low is not None and high is not None and high > low * (1 + tolerance):
        middle = (low + high) / 2
        low, high = (middle, high) if look(middle) else (low, middle)
    if low is not None and curve:
        for share in CURVE:
            look(low * share)
    ordered = tuple(points[rate] for rate in sorted(points))
    return RateSearch(slo=slo, found_rate=low, missed_rate=high, tolerance=tolerance, points=ordered)


def _bracket(look: Callable[[float], bool], start: float) -> tuple[float | None, float | None]:
    """The highest tried rate that keeps and the lowest that misses; None where there was none."""
    if look(start):
        low = start
        for _ in range(DOUBLINGS):
            if not look(2 * low):
                return low, 2 * low
            low *= 2
        return low, None
    high = start
    for _ in range(DOUBLINGS):
        if look(high / 2):
            return high / 2, high
        high /= 2
    return None, high


def _measure(
    bench: Bench, step_time: Callable[[StepShape], float], slo: Slo, rate: float, length_s: float
) -> RatePoint:
    config, seed = bench.config, bench.seed
    count = max(bench.requests, math.ceil(SETTLED_LENGTHS * length_s * rate))
    simulator = Simulator(config, step_time, seed=seed)
    due = zip(
        arrival_times(bench.arrivals, rate, seed),
        islice(drawn_requests(bench.workload, config, seed), count),
        strict=False,
    )
    simulator.open_loop(Arrival(at, request) for at, request in due)
    run = simulator.run
    # Before the first answer the engine was filling up, as the probe has it.
    since = min((record.last_s or 0.0 for record in run.records), default=0.0)
    judged = [record for record in (*run.records, *run.refused) if record.scheduled_s >= since]
    if not judged:
        judged = [*run.records, *run.refused]
    kept = sum(record.meets(slo) for record in judged) / len(judged)
    done = [record for record in judged if record.ok]
    span = max((record.last_s or 0.0 for record in run.records), default=1.0)
    return RatePoint(
        rate=rate,
        requests=len(judged),
        kept_slo=kept,
        meets=kept >= slo.percentile / 100,
        request_per_s=len(run.records) / span,
        output_tokens_per_s=sum(record.output_tokens for record in run.records) / span,
        ttft_ms=percentiles([r.ttft_ms for r in done if r.ttft_ms is not None]),
        tpot_ms=percentiles([r.tpot_ms for r in done if r.tpot_ms is not None]),
        e2e_ms=percentiles([r.e2e_ms for r in done if r.e2e_ms is not None]),
        running_mean=run.running * config.data_parallel_size,
        kv_cache_usage=run.kv_cache_usage,
        preemptions=sum(rank.engine.preemptions for rank in simulator.ranks),
    )

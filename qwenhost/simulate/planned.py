"""A planned engine under its load, simulated until it is steady: what a plan can set beside its formula."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.simulate.load import Arrival, arrival_times, drawn_requests
from qwenhost.simulate.virtual import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.facts import Slo, Workload
    from qwenhost.measurements import RequestRecord
    from qwenhost.plan import StepShape
    from qwenhost.simulate.config import EngineConfig

FEWEST_REQUESTS: Final = 600
MOST_REQUESTS: Final = 20_000
ROUNDS: Final = 12
"""Requests of each user of a closed loop, and of as many as an open loop has in flight."""
MOST_LOADS_TRIED: Final = 6
CLOSE: Final = 1.05


class Bench(NamedTuple):
    """What is run: an engine, its step times and who asks it."""

    config: EngineConfig
    step_time: Callable[[StepShape], float]
    workload: Workload
    slo: Slo
    request_s: float
    """How long a request takes, about: users begin over this time."""
    seed: int = 0


class Steady(NamedTuple):
    """An engine (all its ranks) in the second half of the time in which requests are sent."""

    requests_per_s: float
    output_tokens_per_s: float
    input_tokens_per_s: float
    ttft_s: float
    """Mean, as the closed formula has it; so is the next."""
    tpot_s: float
    in_flight: float
    kept_slo: float
    meets_slo: bool
    requests: int
    """Simulated."""


def at_rate(bench: Bench, rate: float) -> Steady:
    """Requests of a Poisson process, ``rate`` a second."""
    count = _count(rate * bench.request_s)
    simulator = Simulator(bench.config, bench.step_time, seed=bench.seed)
    due = zip(
        arrival_times("poisson", rate, bench.seed),
        islice(drawn_requests(bench.workload, bench.config, bench.seed), count),
        strict=False,
    )
    simulator.open_loop(Arrival(at, request) for at, request in due)
    return _steady(simulator, bench)


def with_users(bench: Bench, users: int) -> Steady:
    """A closed loop of so many users, who begin over one request's length."""
    simulator = Simulator(bench.config, bench.step_time, seed=bench.seed)
    drawn = drawn_requests(bench.workload, bench.config, bench.seed)
    simulator.closed_loop(drawn, concurrency=users, count=max(users, _count(users)), ramp_s=bench.request_s)
    return _steady(simulator, bench)


def most_users(bench: Bench, users: int) -> Steady:
    """The closed loop of ``users``, or of the most below that keep the service level, by bisection.

    Where not even one user keeps it, the run of one user.
    """
    found = with_users(bench, users)
    if found.meets_slo or users == 1:
        return found
    low, high = 1, users
    best = with_users(bench, 1)
    if not best.meets_slo:
        return best
    for _ in range(MOST_LOADS_TRIED):
        middle = (low + high) // 2
        if middle == low or high <= CLOSE * low:
            break
        tried = with_users(bench, middle)
        if tried.meets_slo:
            low, best = middle, tried
        else:
            high = middle
    return best


def _count(in_flight: float) -> int:
    return min(MOST_REQUESTS, max(FEWEST_REQUESTS, round(ROUNDS * in_flight)))


def _steady(simulator: Simulator, bench: Bench) -> Steady:
    """The second half of the time in which requests are sent.

    Lengths spread widely, so that an engine fills over several of them.
    """
    run = simulator.run
    everything = [*run.records, *run.refused]
    until = max(record.sent_s for record in everything)
    since = until / 2
    judged = [record for record in everything if record.scheduled_s >= since]
    within = [r for r in run.records if since < (r.last_s or 0.0) <= until]
    span = until - since
    if not within:  # so short that nothing ended in between: take it whole
        within, span = run.records, max(1e-9, max((r.last_s or 0.0 for r in run.records), default=0.0))
    done = [record for record in judged if record.ok]
    kept = sum(record.meets(bench.slo) for record in judged) / len(judged)
    rate = len(within) / span
    length_s = _mean([(r.e2e_ms or 0.0) / 1000 for r in done])
    return Steady(
        requests_per_s=rate,
        output_tokens_per_s=sum(record.output_tokens for record in within) / span,
        input_tokens_per_s=sum(record.input_tokens for record in within) / span,
        ttft_s=_mean([(r.ttft_ms or 0.0) / 1000 for r in done]),
        tpot_s=_mean_tpot(done),
        in_flight=rate * length_s,
        kept_slo=kept,
        meets_slo=kept >= bench.slo.percentile / 100,
        requests=len(everything),
    )


def _mean_tpot(done: list[RequestRecord]) -> float:
    return _mean([r.tpot_ms / 1000 for r in done if r.tpot_ms is not None])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0

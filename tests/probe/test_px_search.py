"""Searches for the highest load, against servers whose limit follows from queueing theory, with chance."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo
from qwenhost.measurements import RequestRecord, Server
from qwenhost.probe import ProbeConfig, ProbeResult
from qwenhost.probe.arrivals import after_rush
from qwenhost.probe.bench import judged
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.results import Run, measurements_of
from qwenhost.probe.saturation import LOOKS, Rule, Search, exact_interval, tail_below
from qwenhost.probe.store import store_of
from qwenhost.probe.sweep import Plan, find_limit, run_sweep, sweep_to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Latencies = Callable[[float, list[float], random.Random], list[float]]

CALM: Final = LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0.1)
STUCK: Final = LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0.99)


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confidence intervals of single figures play no part here; the search has its own, exact ones."""
    monkeypatch.setattr("qwenhost.probe.confidence._DRAWS", 40)


class Server_:  # noqa: N801 - a model of one
    """Answers every request with latencies that a law gives for the load."""

    def __init__(self, latencies: Latencies, *, lag: LoopLag = CALM, broken_above: float = math.inf) -> None:
        self.latencies, self.lag, self.broken_above = latencies, lag, broken_above
        self.runs: list[ProbeConfig] = []

    def __call__(self, config: ProbeConfig, /) -> ProbeResult:
        config.check()
        self.runs.append(config)
        draw = random.Random(f"{config.seed}/{len(self.runs)}")  # noqa: S311 - a model of chance
        load = float(config.rate or config.concurrency or 0)
        n = config.planned_requests or 100
        if config.rate:
            due = after_rush(
                "poisson", load, rush_s=config.rush_s, n=n, duration_s=None, seed=draw.getrandbits(32),
                burstiness=1.0,
            )  # fmt: skip
        else:
            due = [i // int(load) * 1.0 for i in range(n)]
        records = []
        for i, (at, first) in enumerate(zip(due, self.latencies(load, due, draw), strict=True)):
            one = RequestRecord(
                index=i, scheduled_s=at, sent_s=at, first_token_s=at + first, last_s=at + first,
                input_tokens=10, output_tokens=1,
            )  # fmt: skip
            broken = RequestRecord(index=i, scheduled_s=at, sent_s=at, error="http_503")
            records.append(broken if load > self.broken_above else one)
        run = Run(
            config=config, store=store_of(records), server=Server(name="m", version=None, model="m", url="m"),
            fit=None, seed=1, exact=False, counters={}, lag=self.lag, interrupted=False,
            started_at=dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
        )  # fmt: skip
        return ProbeResult(measurements=measurements_of(run), records=tuple(records), clock_zero_s=0)


MU: Final = 20.0
"""Requests a second that the modelled server can do."""
WITHIN_S: Final = 0.5
LIMIT: Final = MU - math.log(10) / WITHIN_S
"""M/M/1: the time in the system is exponential of rate mu - lambda, so that 90 % are within 0.5 s where
(mu - lambda) * 0.5 = ln 10: lambda = 15.39 a second."""


def mm1(rate: float, due: list[float], draw: random.Random) -> list[float]:
    """Times in an M/M/1 queue in equilibrium, each drawn on its own; beyond capacity there is none."""
    return [draw.expovariate(MU - rate) if rate < MU else 1e6 for _ in due]


def lindley(rate: float, due: list[float], draw: random.Random) -> list[float]:
    """The same queue played through: each request waits for the one before it."""
    free, found = 0.0, []
    for at in due:
        free = max(free, at) + draw.expovariate(MU)
        found.append(free - at)
    return found


def config(**options: Any) -> ProbeConfig:
    slo = Slo(ttft_ms=WITHIN_S * 1000, percentile=90)
    defaults: dict[str, Any] = {"warmup": 0, "seed": 1, "slo": slo}
    return ProbeConfig(url="http://model", **(defaults | options))


def test_a_queues_limit_is_found_from_below() -> None:
    """Five searches: the found rate keeps the SLO, the next one tried is at or above what can be shown.

    750 requests at a point show a share above 0.9 + 2.24 sqrt(0.09 / 750) = 0.925, which is 15.39 - 0.58 =
    14.8 a second; the bracket is 5 % wide. So what is found lies between 13.8 and 15.4, but for the one
    search of twenty that chance may spoil.
    """
    found = [
        find_limit(config(seed=seed), Plan(axis="rate"), measure=Server_(mm1)).found_at for seed in range(5)
    ]
    within = [at is not None and 13.8 <= at <= LIMIT for at in found]
    assert sum(within) >= 4, found
    assert all(at is not None and 0.8 * LIMIT < at < 1.05 * LIMIT for at in found)


def test_an_overloaded_queue_is_found_out_though_it_starts_empty() -> None:
    """A queue played through fills slowly: what is found exceeds its limit by an eighth at most.

    Fifty requests at 25 a second are over after 2 s, with 0.5 s of work in the queue: they would pass.
    Each look takes the limit over the tolerance, 0.5 s / 0.05 = 10 s, and what is found is looked at again
    with the server full. Before that was done, seven of 24 searches came out above 17.2 and the highest at
    20.6; now the highest is 17.0. Requests of a run wait for one another, so that they tell less than as many
    that do not: what is left above the limit comes from there.
    """
    servers = [Server_(lindley) for _ in range(8)]
    found = [
        find_limit(config(seed=seed), Plan(axis="rate"), measure=server).found_at
        for seed, server in enumerate(servers)
    ]
    assert all(at is not None and 0.8 * LIMIT < at < 1.125 * LIMIT for at in found), found
    for server in servers:
        offered = [(run.rate or 0.0, run.planned_requests or 0) for run in server.runs[1:]]
        assert all(count / rate >= 10.0 for rate, count in offered if rate)


class Forgetful(Server_):
    """Beyond 9 a second it never recovers from a rush; otherwise nothing is too much for it up to 13."""

    def __call__(self, config: ProbeConfig, /) -> ProbeResult:
        full = config.rush_s > 0
        self.latencies = lambda load, due, draw: [2.0 if load > (9 if full else 13) else 0.1 for _ in due]
        return super().__call__(config)


def test_what_holds_only_from_an_empty_server_is_not_the_answer() -> None:
    """From 1: 2, 4, 8 hold, 16 does not; up to 12.6 it seems to hold; full, only up to 9."""
    server = Forgetful(mm1)
    found = find_limit(config(), Plan(axis="rate", start=1.0), measure=server)
    assert found.end == "sure"
    assert found.found_at is not None
    assert found.not_shown_at is not None
    assert found.found_at <= 9 < found.not_shown_at <= found.found_at * 1.05
    said = {point.at: point.said for point in found.points}
    assert said[found.found_at] == "meets"
    assert said[found.not_shown_at] == "not when full"
    assert all(verdict == "misses" for at, verdict in said.items() if at > 13)
    by_at = {point.at: point for point in found.points}
    shown = by_at[found.found_at].when_full
    assert shown is not None
    assert (shown.verdict, shown.kept_slo) == ("meets", shown.judged)
    assert by_at[16.0].when_full is None  # What fails from empty is not tried full.


def test_a_full_look_judges_its_second_half() -> None:
    """Requests of 0.1 s: 0.1 s at twice the rate, 10 s in which that is worked off, and 10 s to be judged."""
    server = Server_(lambda load, due, draw: [0.1] * len(due))
    found = find_limit(config(), Plan(axis="rate", start=8.0, most=8.0), measure=server)
    plain, full = server.runs[-2:]
    assert plain.rush_s == 0.0
    assert full.rush_s == pytest.approx(0.1)
    # 10 s at 8 a second; then twice as many, and 2 * 8 * 0.1 = 1.6 more.
    assert plain.planned_requests == 80
    assert full.planned_requests == 162
    assert found.points[0].when_full is not None
    # 80 are due in the 10 s, within three standard deviations.
    assert 53 <= found.points[0].when_full.judged <= 107


def test_a_rush_that_is_worked_off_in_time_does_no_harm() -> None:
    """Ten requests a second more than the rate can be worked off: 0.8 s of rush bring 6.4, gone 0.64 s later.

    A queue played through without chance: 18 a second can be done, and 8 are asked for.
    """

    def steady(load: float, due: list[float], draw: random.Random) -> list[float]:
        free, found = 0.0, []
        for at in due:
            free = max(free, at) + 1 / 18
            found.append(free - at)
        return found

    found = find_limit(config(), Plan(axis="rate", start=8.0, most=8.0), measure=Server_(steady))
    assert (found.found_at, found.end) == (8.0, "limit")
    assert found.points[0].said == "meets"


def test_records_of_a_full_look_have_a_file_of_their_own(tmp_path: Path) -> None:
    """They would else overwrite those of the plain one."""
    server = Server_(lambda load, due, draw: [0.1] * len(due))
    find_limit(config(records=tmp_path / "r.jsonl"), Plan(axis="rate", start=8.0, most=8.0), measure=server)
    names = [run.records.name for run in server.runs if run.records is not None]
    assert names == ["r-rate-8-1.jsonl", "r-rate-8-full-1.jsonl"]


def test_concurrencies_are_never_looked_at_twice() -> None:
    """A closed loop fills the server at once."""
    server = Server_(batch)
    found = find_limit(config(slo=Slo(ttft_ms=30, percentile=90)), Plan(axis="concurrency"), measure=server)
    assert all(run.rush_s == 0 for run in server.runs)
    assert all(point.when_full is None for point in found.points)


def test_out_of_time_before_the_full_look_says_so() -> None:
    """What was found so far is kept, with the reservation."""
    server = Server_(lambda load, due, draw: [0.1] * len(due))
    # A plain look takes 10 s and one request; a full one twice as long.
    found = find_limit(config(), Plan(axis="rate", start=8.0, most=8.0, within_s=10.4), measure=server)
    assert (found.end, found.found_at) == ("time", 8.0)
    assert found.reason.startswith(
        "out of time (10.4 s): shown up to 8 requests/s (from an empty server only)"
    )


def test_nothing_that_holds_when_full_is_nothing_found() -> None:
    """Every rate fails after a rush, down to the lowest that may be tried."""

    class Never(Server_):
        def __call__(self, config: ProbeConfig, /) -> ProbeResult:
            late = 2.0 if config.rush_s else 0.1
            self.latencies = lambda load, due, draw: [late] * len(due)
            return super().__call__(config)

    found = find_limit(config(), Plan(axis="rate", start=4.0, most=4.0, within_s=1e9), measure=Never(mm1))
    assert (found.found_at, found.end) == (None, "none_meets")
    assert {point.said for point in found.points} == {"not when full"}


SIGMA: Final = 0.1


def batch(concurrency: float, due: list[float], draw: random.Random) -> list[float]:
    """5 ms and half a millisecond more for each in flight, in lognormal noise."""
    return [0.001 * (5 + 0.5 * concurrency) * draw.lognormvariate(0, SIGMA) for _ in due]


def test_a_batchs_limit_is_found_from_below() -> None:
    """90 % within 30 ms where the median is 30 / exp(1.2816 * 0.1) = 26.39 ms: 42.8 in flight.

    A share of 0.925 is z = 1.44: 30 / exp(0.144) = 25.98 ms, 41.9 in flight; less the bracket of 5 %.
    """
    slo = Slo(ttft_ms=30, percentile=90)
    found = [
        find_limit(config(slo=slo, seed=seed), Plan(axis="concurrency"), measure=Server_(batch))
        for seed in range(6)
    ]
    assert all(one.end == "sure" for one in found)
    inside = [one.found_at is not None and 38 <= one.found_at <= 42 for one in found]
    assert sum(inside) >= 5, [one.found_at for one in found]


@pytest.mark.parametrize("percentile", [50, 99])
def test_another_percentile_has_another_limit(percentile: float) -> None:
    """Half within 0.5 s: mu - 2 ln 2 = 18.61; 99 of 100: mu - 2 ln 100 = 10.79; found from below."""
    limit = MU - math.log(1 / (1 - percentile / 100)) / WITHIN_S
    slo = Slo(ttft_ms=WITHIN_S * 1000, percentile=percentile)
    found = find_limit(config(slo=slo), Plan(axis="rate"), measure=Server_(mm1))
    assert found.found_at is not None
    assert 0.85 * limit < found.found_at <= limit * 1.02


def test_every_point_says_what_it_saw() -> None:
    """Ascending, with evidence that adds up; meets where the lower bound reaches the required share."""
    found = find_limit(config(), Plan(axis="rate"), measure=Server_(mm1))
    loads = [point.at for point in found.points]
    assert loads == sorted(set(loads))
    for point in found.points:
        assert 0 <= point.kept_slo <= point.judged
        assert 1 <= point.looks <= LOOKS
        assert point.share_low <= point.kept_slo / point.judged <= point.share_high
        if point.verdict == "meets":
            assert point.share_low >= 0.9
        elif point.verdict == "misses":
            assert point.share_high < 0.9
        else:
            assert point.looks == LOOKS
    assert found.found is not None
    assert found.found.verdict == "meets"
    assert f"{found.found_at:.4g} requests/s keeps the SLO" in found.reason


def test_each_look_is_twice_as_long() -> None:
    """Near the limit a point gets 1, 2, 4, 8 times the requests, and those to fill the server each time."""
    server = Server_(lambda load, due, draw: [0.4 if draw.random() < 0.9 else 0.6 for _ in due])
    found = find_limit(config(requests=50), Plan(axis="rate", start=4.0, most=4.0), measure=server)
    # The share is 0.9 exactly: it can be shown on neither side.
    highest = found.points[-1]
    assert (highest.at, highest.verdict, highest.looks) == (4.0, "undecided", 4)
    assert highest.judged >= 700
    # The limit of 0.5 s over 5 % is 10 s, 40 requests: fewer than 50. Then 0.4 s at 4 a second are 1.6 more.
    assert [run.planned_requests for run in server.runs[:4]] == [50, 102, 202, 402]


def test_a_load_at_which_nothing_succeeds_misses() -> None:
    """503 for all says nothing ill of the client: the point misses, and the search goes on below it."""
    found = find_limit(config(), Plan(axis="rate", start=4.0), measure=Server_(mm1, broken_above=9.0))
    assert found.found_at is not None
    assert found.found_at <= 9.0 < found.not_shown_at  # type: ignore[operator]
    broken = [point for point in found.points if point.at > 9.0]
    assert all((point.verdict, point.kept_slo) == ("misses", 0) for point in broken)


def test_a_client_that_is_stuck_shows_nothing() -> None:
    """Four void looks at the first point end the search with their reason."""
    server = Server_(mm1, lag=STUCK)
    found = find_limit(config(), Plan(axis="rate", start=4.0), measure=server)
    assert (found.end, found.found_at, len(server.runs)) == ("void", None, 4)
    assert "its event loop was busy 99% of the time" in found.reason
    assert found.points[0].judged == 0


@pytest.mark.parametrize(("within", "end"), [(0.001, "time"), (1e6, "limit")])
def test_no_run_is_begun_that_would_not_end_in_time(within: float, end: str) -> None:
    """A point of 4 a second needs 12 s of requests."""
    found = find_limit(
        config(), Plan(axis="rate", start=4.0, most=4.0, within_s=within), measure=Server_(mm1)
    )
    assert found.end == end
    assert found.found_at == (None if end == "time" else 4.0)


def test_a_start_above_the_most_begins_at_the_most() -> None:
    """Nothing above it is offered, not even once."""
    server = Server_(mm1)
    found = find_limit(config(), Plan(axis="rate", start=50.0, most=6.0), measure=server)
    assert {run.rate for run in server.runs} == {6.0}
    assert (found.found_at, found.end) == (6.0, "limit")
    assert found.reason == "6 requests/s, the highest allowed, keeps the SLO"


def test_an_alone_run_that_fails_begins_at_one() -> None:
    """Nobody answers the request alone: a rate of 1 is tried, then lower ones."""
    found = find_limit(config(), Plan(axis="rate", within_s=1e9), measure=Server_(mm1, broken_above=0.0))
    assert (found.found_at, found.end) == (None, "none_meets")
    assert [point.at for point in found.points] == [1 / 2**k for k in range(6, -1, -1)]


@pytest.mark.parametrize("percentile", [0.0, 100.0, 150.0])
def test_a_share_that_cannot_be_shown_is_refused(percentile: float) -> None:
    """All requests would be shown by infinitely many."""
    slo = Slo(ttft_ms=1, percentile=percentile)
    with pytest.raises(BadInputError, match="no number of requests can show"):
        find_limit(config(slo=slo), Plan(axis="rate"), measure=Server_(mm1))


@pytest.mark.parametrize("slo", [None, Slo(), Slo(percentile=50)])
def test_without_limits_there_is_nothing_to_find(slo: Slo | None) -> None:
    """An SLO without a figure is none."""
    with pytest.raises(BadInputError, match="there is no SLO"):
        find_limit(config(slo=slo), Plan(axis="rate"), measure=Server_(mm1))


# --------------------------------------------------------------------------- sweeps


def test_a_sweep_follows_the_curve() -> None:
    """P(T <= 0.5) = 1 - exp(-(20 - rate) / 2): 0.9997 at 4, 0.9975 at 8, 0.632 at 18."""
    found = run_sweep(config(requests=400), "rate", [18.0, 4.0, 8.0, 4.0], measure=Server_(mm1))
    assert [point.at for point in found.points] == [4, 8, 18]
    for point in found.points:
        expected = 1 - math.exp(-(MU - point.at) * WITHIN_S)
        assert point.kept_slo / point.judged == pytest.approx(expected, abs=0.08)
        assert point.measurements.load.rate == point.at
    assert (found.found_at, found.not_shown_at, found.end) == (8, 18, "complete")
    assert found.reason == "3 of 3 loads measured"


def test_a_lucky_point_above_a_miss_proves_nothing() -> None:
    """4 meets, 8 misses, 12 meets: the answer is 4."""

    def odd(load: float, due: list[float], draw: random.Random) -> list[float]:
        return [2.0 if load == 8 else 0.1 for _ in due]

    found = run_sweep(config(requests=100), "rate", [4.0, 8.0, 12.0], measure=Server_(odd))
    assert [point.verdict for point in found.points] == ["meets", "misses", "meets"]
    assert (found.found_at, found.not_shown_at) == (4, 8)


def test_a_sweep_without_an_slo_finds_no_load() -> None:
    """It measures, and judges nothing."""
    found = run_sweep(config(slo=None, requests=60), "concurrency", [1, 2], measure=Server_(batch))
    assert (found.found_at, found.not_shown_at, found.slo) == (None, None, None)
    assert [point.kept_slo for point in found.points] == [point.judged for point in found.points]


def test_a_sweep_is_json() -> None:
    """With its schema, and points that hold whole measurements; no load allowed is infinite there."""
    found = run_sweep(config(requests=60), "rate", [4.0], measure=Server_(mm1))
    text = json.loads(sweep_to_json(found))
    assert text["schema"] == "qwenhost.sweep/1"
    assert text["points"][0]["measurements"]["schema"] == "qwenhost.measurements/1"
    assert msgspec.json.decode(sweep_to_json(found), type=type(found)) == found


def test_requests_while_the_server_fills_are_not_judged() -> None:
    """Due before the first completion: ten that wait, then fifty that do not; fifty are judged."""

    def filling(load: float, due: list[float], draw: random.Random) -> list[float]:
        return [3.0 if at < 3.0 else 0.1 for at in due]

    result = Server_(filling)(config(requests=200, rate=10.0))
    kept = judged(result)
    first_done = min(record.last_s or math.inf for record in result.records)
    assert 0 < len(result.records) - len(kept) < 60
    assert all(record.scheduled_s >= first_done for record in kept)


# --------------------------------------------------------------------------- exact intervals


@given(good=st.integers(0, 60), more=st.integers(0, 60), risk=st.sampled_from([0.2, 0.05, 0.0125]))
@settings(max_examples=50)
def test_a_bound_is_where_the_tail_is_the_risk(good: int, more: int, risk: float) -> None:
    """P(X <= good | upper bound) = risk; the lower bound is the upper one of failures, mirrored."""
    total = good + more
    if total == 0:
        return
    low, high = exact_interval(good, total, risk)
    assert low <= good / total <= high
    if high < 1:
        assert tail_below(good, total, high) == pytest.approx(risk, rel=1e-4)
    mirrored = exact_interval(more, total, risk)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-9)


@given(total=st.integers(1, 40), share=st.floats(0.01, 0.99))
@settings(max_examples=40)
def test_a_tail_is_the_sum_of_its_terms(total: int, share: float) -> None:
    """Against plain binomial coefficients."""
    for good in range(total):
        by_hand = sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(good + 1))
        assert tail_below(good, total, share) == pytest.approx(by_hand, rel=1e-9, abs=1e-300)
    assert tail_below(total, total, share) == 1.0


def test_a_tail_of_many_tries_does_not_underflow() -> None:
    """Half of a million tries at 1/2: a half and half of the middle term, 0.5 + 0.5 / sqrt(pi * 500,000)."""
    assert tail_below(500_000, 1_000_000, 0.5) == pytest.approx(
        0.5 + 0.5 / math.sqrt(math.pi * 500_000), abs=1e-6
    )


@pytest.mark.parametrize(
    ("required", "confidence", "first"),
    [
        # ceil(1.2 ln(0.0125) / ln(required)): 4.382 * 1.2 = 5.258 over 0.1054, 0.0513 and 0.01005.
        (0.9, 0.95, 50), (0.95, 0.95, 103), (0.99, 0.95, 524),
        # A low bar still takes twenty; more confidence takes more: ln(0.0025) = -5.991.
        (0.5, 0.95, 20), (0.9, 0.99, 69),
    ],
)  # fmt: skip
def test_how_many_requests_a_first_look_takes(required: float, confidence: float, first: int) -> None:
    """So many that all of them good suffices."""
    rule = Rule(required=required, confidence=confidence)
    assert rule.first_look == first
    assert rule.verdict(first, first) == "meets"
    assert rule.verdict(0, first) == "misses"


@given(limit=st.floats(0.02, 5000), start=st.floats(0.05, 100), tolerance=st.sampled_from([0.01, 0.05, 0.3]))
@settings(max_examples=60)
def test_every_limit_within_reach_is_bracketed(limit: float, start: float, tolerance: float) -> None:
    """Without chance: low <= limit < high, as close as asked; or it lies below all that may be tried."""
    search, tried = Search(start=start, whole=False, tolerance=tolerance), 0
    while (at := search.next) is not None:
        search = search.told(at, meets=at <= limit)
        tried += 1
        assert tried < 60
    if search.low is None:
        assert limit < start / 2**5
    else:
        assert search.high is not None
        assert search.low <= limit < search.high <= search.low * (1 + tolerance) * 1.0001
        assert search.closed

"""What is drawn from records: percentiles, intervals, goodput, windows, drift, plots; against known laws."""

from __future__ import annotations

import json
import math
import random
import statistics
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.facts import Slo
from qwenhost.measurements import RequestRecord, goodput, percentile, percentiles
from qwenhost.probe.clock import LoopLag, TurnStats
from qwenhost.probe.confidence import intervals, of_percentile, of_share
from qwenhost.probe.drift import drifts
from qwenhost.probe.gaps import GapHistogram
from qwenhost.probe.store import RecordStore
from qwenhost.probe.summary import Window, goodput_in, latencies, rate_window, rates
from qwenhost.probe.timeline import cumulative, timeline
from qwenhost.probe.totals import Totals
from qwenhost.probe.verdict import void_reason

if TYPE_CHECKING:
    from collections.abc import Sequence


def record(
    due: float, ttft: float = 0.1, tokens: int = 5, gap: float = 0.02, *, index: int = 0, **more: Any
) -> RequestRecord:
    """A request with evenly spaced tokens."""
    times = tuple(due + ttft + gap * k for k in range(tokens))
    fields: dict[str, Any] = {
        "index": index, "scheduled_s": due, "sent_s": due, "first_token_s": times[0], "last_s": times[-1],
        "token_times_s": times, "output_tokens": tokens, "input_tokens": 100,
    }  # fmt: skip
    return RequestRecord(**(fields | more))


def failed(due: float, error: str = "timeout") -> RequestRecord:
    return RequestRecord(index=0, scheduled_s=due, sent_s=due, error=error)


# --------------------------------------------------------------------------- percentiles


@pytest.mark.parametrize(
    ("sample", "q", "expected"),
    [
        ([7], 50, 7), ([7], 99, 7), ([1, 2], 50, 1.5), ([1, 2, 3, 4], 25, 1.75), ([1, 2, 3, 4], 100, 4),
        ([1, 2, 3, 4], 0, 1), (list(range(101)), 99, 99), (list(range(11)), 95, 9.5),
    ],
)  # fmt: skip
def test_a_percentile_by_hand(sample: list[float], q: float, expected: float) -> None:
    """Rank (n - 1) q / 100, in a straight line between its neighbours."""
    assert percentile(sample, q) == pytest.approx(expected)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60))
def test_percentiles_are_those_of_the_standard_library(sample: list[float]) -> None:
    """``statistics.quantiles`` in 100 parts, inclusive, is the same definition by other hands."""
    cuts = statistics.quantiles(sample, n=100, method="inclusive")
    found = percentiles(sample)
    assert [found.p50, found.p90, found.p95, found.p99] == pytest.approx(
        [cuts[49], cuts[89], cuts[94], cuts[98]], rel=1e-9, abs=1e-6
    )
    assert found.mean == pytest.approx(statistics.fmean(sample), abs=1e-6)


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=200))
@settings(max_examples=50)
def test_the_histogram_of_gaps_is_as_good_as_it_says(gaps: list[float]) -> None:
    """Its percentile is within half a percent of the value at its nearest rank, its mean exact."""
    histogram = GapHistogram()
    histogram.add_gaps(gaps)
    found = histogram.percentiles()
    ordered = sorted(gaps)
    for q, got in ((50, found.p50), (90, found.p90), (95, found.p95), (99, found.p99)):
        true = ordered[round((len(ordered) - 1) * q / 100)]
        assert got == pytest.approx(true, rel=0.0051, abs=1e-4)
    assert found.mean == pytest.approx(sum(gaps) / len(gaps), abs=1e-9)


def test_a_failed_requests_gaps_do_not_count() -> None:
    """A cut stream has gaps, but no place among those of good answers."""
    histogram = GapHistogram()
    histogram.add(record(0, tokens=3, error="cut_stream"))
    assert (histogram.count, histogram.chunks) == (0, 0)
    histogram.add(record(0, tokens=3))
    assert (histogram.count, histogram.chunks) == (2, 3)


# --------------------------------------------------------------------------- intervals


@pytest.fixture
def quick_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 draws in place of 2,000 where many intervals are made: their ends are a little less exact."""
    monkeypatch.setattr("qwenhost.probe.confidence._DRAWS", 400)


RUNS = 300
"""Samples of each law. A true coverage of 95 % is then seen within 4 sqrt(0.95 * 0.05 / 300) = 5 points."""


def exponential(draw: random.Random) -> float:
    return draw.expovariate(1)


def lognormal(draw: random.Random) -> float:
    return draw.lognormvariate(0, 1)


def two_humps(draw: random.Random) -> float:
    """Cache hits at 1 +- 0.1, misses at 5 +- 0.5; 70 and 30 of 100."""
    return draw.gauss(1, 0.1) if draw.random() < 0.7 else draw.gauss(5, 0.5)


Z90 = 1.2815515655446004


@pytest.mark.parametrize(
    ("law", "q", "n", "truth"),
    [
        # Quantiles of Exp(1) are -ln(1 - q); of a lognormal exp(z).
        (exponential, 90, 200, math.log(10)),
        (exponential, 99, 1000, math.log(100)),
        (lognormal, 50, 60, 1.0),
        (lognormal, 90, 200, math.exp(Z90)),
        # The upper third of the second hump: 0.7 + 0.3 F = 0.9 where F = 2/3, z = 0.430727.
        (two_humps, 90, 200, 5 + 0.5 * 0.430727),
    ],
)
@pytest.mark.usefixtures("quick_draws")
def test_intervals_hold_the_true_percentile_as_often_as_they_say(
    law: Any, q: float, n: int, truth: float
) -> None:
    """19 of 20 samples' intervals hold it; a bootstrap's may fall a little short."""
    draw = random.Random(17)  # noqa: S311 - a model of chance
    held = 0
    for seed in range(RUNS):
        low, high = of_percentile(sorted(law(draw) for _ in range(n)), q, seed)
        held += low <= truth <= high
    assert 0.90 <= held / RUNS <= 1.0


@pytest.mark.parametrize(("share", "n"), [(0.5, 40), (0.99, 200)])
@pytest.mark.usefixtures("quick_draws")
def test_intervals_of_a_share_are_never_too_narrow(share: float, n: int) -> None:
    """Clopper and Pearson's hold at least 95 of 100; with 300 runs 92 are chance's last word."""
    draw = random.Random(18)  # noqa: S311 - a model of chance
    held = 0
    for seed in range(RUNS):
        low, high = of_share(sum(draw.random() < share for _ in range(n)), n, seed)
        held += low <= share <= high
    assert held / RUNS >= 0.92


@pytest.mark.parametrize(("good", "total", "low", "high"), [(0, 20, 0, 0.168), (20, 20, 0.832, 1.0)])
def test_none_and_all_by_the_rule_of_3_7(good: int, total: int, low: float, high: float) -> None:
    """No success of 20: at most 1 - 0.025^(1/20) = 16.8 %; and the other way round."""
    assert of_share(good, total, seed=3) == pytest.approx((low, high), abs=0.01)


@given(st.lists(st.floats(0, 1e4), min_size=10, max_size=100), st.sampled_from([50, 90]), st.integers(0, 5))
@settings(max_examples=25)
def test_an_interval_holds_its_own_figure_and_stays_in_the_sample(
    sample: list[float], q: float, seed: int
) -> None:
    """Whatever the sample; the same seed gives the same one."""
    ordered = sorted(sample)
    low, high = of_percentile(ordered, q, seed)
    assert ordered[0] <= low <= high <= ordered[-1]
    k = round((len(ordered) - 1) * q / 100)
    assert low <= ordered[k] <= high
    assert of_percentile(ordered, q, seed) == (low, high)


def test_more_requests_make_narrower_intervals() -> None:
    """16 times the sample, a quarter of the width; within half of that either way."""
    draw = random.Random(3)  # noqa: S311 - a model of chance
    widths = []
    for n in (200, 3200):
        found = [of_percentile(sorted(draw.gauss(10, 1) for _ in range(n)), 50, seed) for seed in range(8)]
        widths.append(sum(high - low for low, high in found) / 8)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)
    # The median of 200 normal values varies by 1.2533 / sqrt(200) = 0.0886; 2 * 1.96 times that is 0.347.
    assert widths[0] == pytest.approx(0.347, rel=0.25)


@pytest.mark.parametrize(
    ("n", "names"),
    [
        (9, set()),
        (10, {"ttft_ms_p50", "ttft_ms_p90"}),
        (99, {"ttft_ms_p50", "ttft_ms_p90"}),
        (100, {"ttft_ms_p50", "ttft_ms_p90", "ttft_ms_p99"}),
    ],
)
def test_a_percentile_needs_a_request_beyond_it(n: int, names: set[str]) -> None:
    """p90 needs ten, p99 a hundred; nothing is said of fewer than ten."""
    found = intervals([record(i) for i in range(n)], None, seed=1)
    assert {name for name in found if name.startswith("ttft")} == names


def test_failed_requests_are_in_goodput_and_in_no_latency() -> None:
    """Ten good and ten failed ones: half keep the SLO; latency is of ten."""
    records = [record(i) for i in range(10)] + [failed(i) for i in range(10)]
    found = intervals(records, Slo(ttft_ms=1e6), seed=1)
    low, high = found["goodput_fraction"]
    # Clopper-Pearson of 10 of 20: 0.272 to 0.728.
    assert (low, high) == pytest.approx((0.272, 0.728), abs=0.02)
    assert "e2e_ms_p90" in found
    assert "e2e_ms_p99" not in found


# --------------------------------------------------------------------------- goodput


def grid(n: int = 200) -> list[RequestRecord]:
    """TTFT 5, 10 ... 1,000 ms; TPOT 1, 2 ... 200 ms; a request a second, ten tokens each."""
    return [record(float(i), ttft=0.005 * (i + 1), tokens=10, gap=0.001 * (i + 1), index=i) for i in range(n)]


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        (Slo(), 200),
        (Slo(ttft_ms=500.01), 100),
        (Slo(tpot_ms=50.01), 50),
        (Slo(ttft_ms=500.01, tpot_ms=50.01), 50),
        (Slo(ttft_ms=100.01, tpot_ms=50.01), 20),
        # 5 (i + 1) + 9 (i + 1) = 14 (i + 1) ms end to end: at most 1,400 for 100 of them.
        (Slo(e2e_ms=1400.01), 100),
        (Slo(ttft_ms=4.9), 0),
    ],
)
def test_goodput_by_hand_for_any_slo(slo: Slo, good: int) -> None:
    """The same records, judged by any limits afterwards: requests, tokens and share."""
    records = grid()
    found = goodput(records, slo, 200.0)
    assert found.fraction == pytest.approx(good / 200)
    assert found.requests_per_s == pytest.approx(good / 200)
    assert found.output_tokens_per_s == pytest.approx(10 * good / 200)
    window = Window(start_s=-1.0, end_s=1000.0, kind="whole")
    kept = goodput_in(records, slo, window)
    assert kept.fraction == pytest.approx(good / 200)
    assert kept.requests_per_s == pytest.approx(good / 1001)


@given(
    ttft=st.floats(0, 1200), tpot=st.floats(0, 250), looser=st.floats(0, 500),
)  # fmt: skip
@settings(max_examples=40)
def test_a_looser_limit_never_loses_a_request(ttft: float, tpot: float, looser: float) -> None:
    """And the share of two limits is at most that of either."""
    records = grid(60)

    def share(**limits: float) -> float:
        return goodput(records, Slo(**limits), 1.0).fraction

    both = share(ttft_ms=ttft, tpot_ms=tpot)
    assert both <= min(share(ttft_ms=ttft), share(tpot_ms=tpot))
    assert both <= share(ttft_ms=ttft + looser, tpot_ms=tpot + looser)


def test_a_single_token_keeps_any_limit_on_the_time_per_token() -> None:
    """It has no TPOT; its TTFT still counts."""
    one = record(0.0, ttft=0.3, tokens=1)
    assert one.tpot_ms is None
    assert one.meets(Slo(tpot_ms=1e-9))
    assert not one.meets(Slo(tpot_ms=1e9, ttft_ms=299))


def test_failed_requests_keep_nothing() -> None:
    """However quickly they failed."""
    assert not record(0.0, error="cut_stream").meets(Slo())
    assert goodput([], Slo(), 0.0).fraction == 0.0


# --------------------------------------------------------------------------- the window of rates


def test_rates_of_a_steady_stream_are_the_offered_ones() -> None:
    """A request every 0.5 s that takes 3 s: filling and draining are cut off, and 2 a second are left.

    Whole run: 200 requests in 0..102.5 s would be 1.95. Chunks at 1, 1.5, 2, 2.5, 3 s; the window is from
    the first completion (3 s) to the last send (99.5 s): 965 of 1,000 chunks lie in its 96.5 s.
    """
    records = [record(i * 0.5, ttft=1.0, tokens=5, gap=0.5, index=i) for i in range(200)]
    window = rate_window(Totals.of(records))
    assert (window.start_s, window.end_s, window.kind) == (3.0, 99.5, "steady")
    found = rates(records, window)
    assert found.requests == pytest.approx(2.0, rel=0.006)
    assert found.output_tokens == pytest.approx(10.0, rel=0.006)
    assert found.input_tokens == pytest.approx(200.0, rel=0.006)


def test_warm_up_of_the_server_does_not_lower_the_rate() -> None:
    """Ten requests that wait 20 s at the start: rates are those after the first completion."""
    slow = [record(0.0, ttft=20.0, tokens=2, gap=0.01, index=i) for i in range(10)]
    rest = [record(20.0 + i * 0.1, ttft=0.05, tokens=2, gap=0.01, index=i) for i in range(1000)]
    window = rate_window(Totals.of([*slow, *rest]))
    assert window.start_s == pytest.approx(20.01)
    # 10 requests of the start end at the window's edge with their last of two chunks: 5 of 1,000.
    assert rates([*slow, *rest], window).requests == pytest.approx(10.0, rel=0.01)


@given(
    st.lists(
        st.tuples(st.floats(0, 50), st.floats(0.01, 5), st.integers(1, 9), st.floats(0.001, 1)),
        min_size=1, max_size=30,
    ),
    st.floats(0, 60), st.floats(0.1, 60), st.floats(0.1, 60),
)  # fmt: skip
@settings(max_examples=50)
def test_two_windows_side_by_side_make_one(
    drawn: list[tuple[float, float, int, float]], start: float, first: float, second: float
) -> None:
    """What arrived in a..b and in b..c arrived in a..c, with chunks kept or only their span."""
    records = [record(*one) for one in drawn]
    spans = [
        RequestRecord(
            index=0, scheduled_s=r.scheduled_s, sent_s=r.sent_s, first_token_s=r.first_token_s,
            last_s=r.last_s, output_tokens=r.output_tokens,
        )
        for r in records
        if r.last_s != r.first_token_s
    ]  # fmt: skip
    middle, end = start + first, start + first + second

    def tokens(of: Sequence[RequestRecord], a: float, b: float) -> float:
        window = Window(start_s=a, end_s=b, kind="whole")
        return rates(of, window).output_tokens * window.duration_s

    # A chunk exactly at an edge lies in both; drawn at random that does not happen to spans.
    at_edge = sum(r.output_tokens for r in records if middle in r.token_times_s)
    for of, slack in ((records, at_edge), (spans, 0)):
        parts = tokens(of, start, middle) + tokens(of, middle, end)
        assert parts == pytest.approx(tokens(of, start, end), rel=1e-6, abs=1e-6 + slack)


# --------------------------------------------------------------------------- plots over time


@given(
    drawn=st.lists(
        st.tuples(
            st.integers(0, 40), st.integers(1, 10), st.integers(1, 12), st.integers(1, 5)
        ),
        min_size=1, max_size=25,
    ),
    step=st.sampled_from([0.1, 1 / 3, 0.05, 0.01, 0.7]),
    begin=st.sampled_from([0.0, 0.1, 1000.3, 86400.7]),
    stretches=st.sampled_from([1, 2, 7, 10, 60]),
    kept=st.booleans(),
)  # fmt: skip
@settings(max_examples=150)
def test_no_token_and_no_second_is_lost_between_stretches(
    drawn: list[tuple[int, int, int, int]], step: float, begin: float, stretches: int, *, kept: bool
) -> None:
    """On a grid, where every instant falls on an edge: the sums over the stretches are those of the run."""
    records = [
        record(begin + due * step, ttft * step, tokens, gap * step) for due, ttft, tokens, gap in drawn
    ]
    if not kept:
        records = [RequestRecord(**(vars_of(r) | {"token_times_s": ()})) for r in records]
    found = timeline(records, None, stretches)
    assert len(found) == stretches
    widths = [one.end_s - one.start_s for one in found]
    tokens = sum(one.output_tokens_per_s * width for one, width in zip(found, widths, strict=True))
    assert tokens == pytest.approx(sum(r.output_tokens for r in records), rel=1e-6)
    busy = sum(one.in_flight * width for one, width in zip(found, widths, strict=True))
    assert busy == pytest.approx(sum((r.last_s or 0) - r.scheduled_s for r in records), rel=1e-6)
    assert sum(one.sent for one in found) == len(records)


def vars_of(one: RequestRecord) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


def test_a_plot_by_hand() -> None:
    """Two stretches of 5 s: one request of 0..10 s with a token at each second from 1 on, one fails at 6."""
    found = timeline([record(0.0, ttft=1.0, tokens=10, gap=1.0), failed(6.0)], Slo(ttft_ms=2000), 2)
    first, second = found
    # Tokens at 1, 2, 3, 4 in the first; 5 ... 10 in the second.
    assert (first.output_tokens_per_s, second.output_tokens_per_s) == pytest.approx((0.8, 1.2))
    assert (first.in_flight, second.in_flight) == pytest.approx((1.0, 1.0))
    assert (first.sent, first.failed, second.sent, second.failed) == (1, 0, 1, 1)
    assert (first.kept_slo, second.kept_slo) == (1.0, 0.0)
    assert first.ttft_ms_p50 == pytest.approx(1000.0)
    assert second.ttft_ms_p50 is None


def test_what_was_interrupted_is_in_no_plot() -> None:
    """Nothing is left: no stretches."""
    assert timeline([failed(0.0, "interrupted")], None) == []
    assert timeline([], Slo(ttft_ms=1)) == []


@given(st.lists(st.floats(-100, 100), max_size=700))
@settings(max_examples=30)
def test_a_curve_ends_at_all_and_never_falls(sample: list[float]) -> None:
    """Shares rise to 1; each is the share of values up to its own; some two hundred points at most."""
    points = cumulative(sample)
    assert len(points) <= min(len(sample), 201)
    for value, share in points:
        assert share == pytest.approx(sum(one <= value for one in sample) / len(sample))
    assert points == sorted(points)
    if sample:
        assert (points[0][0], points[-1]) == (min(sample), (max(sample), 1.0))


# --------------------------------------------------------------------------- drift


def run_of(ttft_ms: Any, tpot_ms: Any = lambda _: 10.0, n: int = 120) -> list[RequestRecord]:
    return [record(float(i), ttft_ms(i) / 1000, 11, tpot_ms(i) / 1000, index=i) for i in range(n)]


@pytest.mark.parametrize("seed", range(3))
def test_a_queue_beyond_capacity_is_told_in_noise(seed: int) -> None:
    """A server a tenth too slow: each request waits 0.1 s longer, in noise of half the mean."""
    draw = random.Random(seed)  # noqa: S311 - noise
    told = drifts(run_of(lambda i: (200 + 100 * i) * draw.uniform(0.5, 1.5)), since_s=0, seed=seed)
    assert len(told) == 1
    assert told[0].startswith("not in a steady state: TTFT p50 rose from ")


def test_a_server_that_slows_down_shows_in_the_time_per_token() -> None:
    """10 to 20 ms a token while TTFT stays; and the other way round it falls."""
    rising = drifts(run_of(lambda _: 100.0, lambda i: 10 + i / 12), since_s=0, seed=1)
    falling = drifts(run_of(lambda _: 100.0, lambda i: 20 - i / 12), since_s=0, seed=1)
    # Thirds of 40: medians at i = 19.5 and 99.5, so 11.625 and 18.29 ms.
    assert rising == [
        "not in a steady state: TPOT p50 rose from 11.6 ms in the first third to 18.3 ms in the last"
    ]
    assert falling == [
        "not in a steady state: TPOT p50 fell from 18.4 ms in the first third to 11.7 ms in the last"
    ]


@pytest.mark.parametrize("shape", ["exponential", "heavy"])
@pytest.mark.usefixtures("quick_draws")
def test_steady_servers_are_seldom_accused(shape: str) -> None:
    """Of 60 steady runs with skewed latencies at most three are; the two intervals must lie apart."""
    draw = random.Random(5)  # noqa: S311 - noise
    drawn = {"exponential": lambda: draw.expovariate(1 / 300), "heavy": lambda: 100 * draw.paretovariate(1.5)}
    told = [bool(drifts(run_of(lambda _: drawn[shape]()), since_s=0, seed=run)) for run in range(60)]
    assert sum(told) <= 3


def test_failed_requests_say_nothing_of_the_state() -> None:
    """They are left out of the thirds: of 120 requests 70 failed, 50 are too few to judge."""
    records = run_of(lambda i: 100 + 100 * i)
    broken = [failed(r.scheduled_s) if i % 12 < 7 else r for i, r in enumerate(records)]
    assert drifts(broken, since_s=0, seed=1) == []
    assert drifts(records, since_s=0, seed=1) != []


def test_answers_of_one_token_have_no_time_per_token_to_drift() -> None:
    """TTFT is judged all the same."""
    records = [record(float(i), 0.1 + 0.1 * i, tokens=1) for i in range(90)]
    (told,) = drifts(records, since_s=0, seed=1)
    assert "TTFT" in told


def test_the_order_of_ends_is_not_the_order_of_dues() -> None:
    """Records come as their requests end; thirds are by due time."""
    records = run_of(lambda i: 100 + 50 * i)
    shuffled = records[:]
    random.Random(1).shuffle(shuffled)  # noqa: S311 - an order
    assert drifts(shuffled, since_s=0, seed=1) == drifts(records, since_s=0, seed=1) != []


# --------------------------------------------------------------------------- the client's own fitness

CALM = LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0)


def test_the_lag_of_a_regular_loop_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of 10 ms in every 20: an arrival waits with chance 1/2, uniformly up to 10 ms.

    P(delay > x) = (1 - x / 10 ms) / 2. 5 % wait longer than 9 ms, 1 % longer than 9.8 ms.
    """
    clock = [100.0]
    monkeypatch.setattr("qwenhost.probe.clock.now", lambda: clock[0])
    turns = TurnStats()
    for _ in range(500):
        clock[0] += 0.020
        turns.add(0.010, 0.0)
    found = turns.summary()
    assert found.p95_ms == pytest.approx(9.0, rel=0.001)
    assert found.p99_ms == pytest.approx(9.8, rel=0.001)
    assert found.max_ms == pytest.approx(10.0)
    assert found.busy_share == pytest.approx(0.5)
    assert turns.turns == 500


def test_a_loop_that_is_always_quick_is_never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns below 0.2 ms are summed and make no stamp late."""
    clock = [0.0]
    monkeypatch.setattr("qwenhost.probe.clock.now", lambda: clock[0])
    turns = TurnStats()
    for _ in range(1000):
        clock[0] += 0.0005
        turns.add(0.0001, 0.0)
    found = turns.summary()
    assert (found.p99_ms, found.max_ms) == (0.0, 0.0)
    assert found.busy_share == pytest.approx(0.2)


def test_one_long_pause_shows_in_the_highest_percentile_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause of 300 ms in 10 s: 3 % of arrivals meet it; P(delay > x) = (0.3 - x) / 10 s, p99 is 200 ms."""
    clock = [0.0]
    monkeypatch.setattr("qwenhost.probe.clock.now", lambda: clock[0])
    turns = TurnStats()
    turns.add(0.3, 0.0)
    clock[0] = 10.0
    found = turns.summary()
    assert found.p95_ms == pytest.approx(0.0, abs=0.01)
    assert found.p99_ms == pytest.approx(200.0, rel=0.001)
    # A sleep that no arrival could end counts as deafness, not as work.
    turns.add(0.0, 0.4)
    assert turns.summary().max_ms == pytest.approx(400.0)
    assert turns.summary().busy_share == pytest.approx(0.03)


def test_a_sample_without_a_success_is_judged_all_the_same() -> None:
    """One good answer and 5,000 refusals, of which 20 records are held: the run stands, nothing breaks."""
    store = RecordStore(kept_records=20)
    store.add(record(0.0))
    for i in range(5000):
        store.add(failed(i * 0.001, "refused"))
    assert not any(one.ok for one in store.records)
    assert store.totals.completed == 1
    reason = void_reason(store.records, store.totals, open_loop=True, lag=CALM, counters={})
    assert reason is None
    assert latencies(store.records, store.totals).ttft_ms.p50 is None


def test_records_are_json_that_others_can_read() -> None:
    """Every figure is drawn from plain numbers: a record survives JSON to the last bit."""
    one = record(1 / 3, ttft=0.1, tokens=7, gap=1 / 7, error_detail="Grüße")
    data = msgspec.json.encode(one)
    assert msgspec.json.decode(data, type=RequestRecord) == one
    assert json.loads(data)["token_times_s"] == list(one.token_times_s)

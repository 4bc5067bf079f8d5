"""Arrival laws held against their closed forms, with bounds that follow from the number of draws."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.probe.arrivals import SLOTS_PER_S, after_rush, closed_loop, schedule

if TYPE_CHECKING:
    from collections.abc import Callable

N = 10_000
RATE = 4.0


def gaps(law: Any, *, seed: int = 3, burstiness: float = 1.0, rate: float = RATE) -> list[float]:
    due = schedule(law, rate, n=N + 1, seed=seed, burstiness=burstiness)
    return [b - a for a, b in pairwise(due)]


def furthest_from(cdf: Callable[[float], float], sample: list[float]) -> float:
    """Kolmogorov's distance between a sample and a law."""
    n = len(sample)
    return max(
        max(cdf(x) - i / n, (i + 1) / n - cdf(x)) for i, x in enumerate(sorted(sample))
    )  # The step before x and the step at it.


BOUND = math.sqrt(math.log(2 / 1e-6) / (2 * N))
"""Dvoretzky, Kiefer and Wolfowitz: the distance of N draws exceeds this once in a million: 0.027."""


def exponential(x: float) -> float:
    return 1 - math.exp(-RATE * x)


def erlang_2(x: float) -> float:
    """Shape 2, mean 1/RATE: scale 1 / (2 RATE); 1 - e^-u (1 + u) with u = 2 RATE x."""
    return 1 - math.exp(-2 * RATE * x) * (1 + 2 * RATE * x)


def shape_half(x: float) -> float:
    """Shape 1/2, mean 1/RATE: scale 2 / RATE; a squared normal, so erf(sqrt(x / scale))."""
    return math.erf(math.sqrt(x * RATE / 2))


@pytest.mark.parametrize(
    ("law", "burstiness", "cdf"),
    [
        ("poisson", 1.0, exponential),
        ("gamma", 1.0, exponential),
        ("gamma", 2.0, erlang_2),
        ("gamma", 0.5, shape_half),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_gaps_follow_their_law_everywhere(law: Any, burstiness: float, cdf: Any, seed: int) -> None:
    """Not the mean alone: no point of the distribution is off by more than chance allows."""
    assert furthest_from(cdf, gaps(law, seed=seed, burstiness=burstiness)) < BOUND


@pytest.mark.parametrize(("law", "burstiness"), [("poisson", 0.5), ("gamma", 2.0), ("gamma", 0.5)])
def test_the_distance_tells_one_law_from_another(law: Any, burstiness: float) -> None:
    """The bound is no formality: each law is far from one of the other forms. Poisson takes no shape."""
    other = shape_half if law == "poisson" else exponential
    assert furthest_from(other, gaps(law, burstiness=burstiness)) > 3 * BOUND


@pytest.mark.parametrize(("law", "burstiness"), [("poisson", 1.0), ("gamma", 0.25), ("gamma", 5.0)])
def test_a_gap_says_nothing_of_the_next(law: Any, burstiness: float) -> None:
    """The correlation of neighbours is 0, within four standard errors of 1 / sqrt(n)."""
    sample = gaps(law, burstiness=burstiness)
    mean = sum(sample) / N
    spread = sum((x - mean) ** 2 for x in sample)
    together = sum((a - mean) * (b - mean) for a, b in pairwise(sample))
    assert abs(together / spread) < 4 / math.sqrt(N)


def counts_per_second(law: Any, *, burstiness: float = 1.0, seconds: int = 4000) -> list[int]:
    counts = [0] * seconds
    for at in schedule(law, 5.0, duration_s=seconds, seed=11, burstiness=burstiness):
        counts[int(at)] += 1
    return counts


def dispersion(counts: list[int]) -> float:
    mean = sum(counts) / len(counts)
    return sum((count - mean) ** 2 for count in counts) / len(counts) / mean


def test_poisson_counts_vary_as_much_as_they_are_large() -> None:
    """Variance over mean of 4,000 one-second counts is 1, within four deviations of sqrt(2 / 4,000)."""
    assert dispersion(counts_per_second("poisson")) == pytest.approx(1.0, abs=4 * math.sqrt(2 / 4000))


def test_bursty_counts_vary_by_one_over_burstiness() -> None:
    """A renewal process tends to a dispersion of cv^2 = 1 / shape: 4 and 0.25, less near the window's edges.

    For a window of five mean gaps the exact figure is cv^2 + (1 - cv^4) / (6 * 5) and smaller terms (the
    second moment of the equilibrium renewal process): 4 - 15/30 = 3.5 and 0.25 + 0.94/30 = 0.28.
    """
    assert dispersion(counts_per_second("gamma", burstiness=0.25)) == pytest.approx(3.5, rel=0.12)
    assert dispersion(counts_per_second("gamma", burstiness=4.0)) == pytest.approx(0.28, rel=0.12)


def test_constant_counts_do_not_vary() -> None:
    """Five in every second."""
    assert set(counts_per_second("constant", seconds=50)) == {5}


def test_a_poisson_run_has_one_request_more_than_the_rate_times_its_length() -> None:
    """The one at 0 and rate * T after it: 1 + 2 * 30 on average; 400 runs are within 4 * sqrt(60 / 400)."""
    lengths = [len(schedule("poisson", 2.0, duration_s=30, seed=seed)) for seed in range(400)]
    assert sum(lengths) / 400 == pytest.approx(61, abs=4 * math.sqrt(60 / 400))


def test_the_lengths_of_poisson_runs_vary_like_poisson() -> None:
    """Variance 60 over 400 runs; its own relative error is sqrt(2 / 400) = 7 %, four times that allowed."""
    lengths = [len(schedule("poisson", 2.0, duration_s=30, seed=seed)) for seed in range(400)]
    mean = sum(lengths) / 400
    assert sum((n - mean) ** 2 for n in lengths) / 400 == pytest.approx(60, rel=4 * math.sqrt(2 / 400))


@pytest.mark.parametrize("law", ["poisson", "gamma"])
def test_seeds_are_independent(law: Any) -> None:
    """No gap of one seed's schedule occurs in its neighbour's, and their correlation is chance."""
    one, other = gaps(law, seed=1), gaps(law, seed=2)
    assert not set(one) & set(other)
    mean_1, mean_2 = sum(one) / N, sum(other) / N
    both = sum((a - mean_1) * (b - mean_2) for a, b in zip(one, other, strict=True))
    spread = math.sqrt(sum((a - mean_1) ** 2 for a in one) * sum((b - mean_2) ** 2 for b in other))
    assert abs(both / spread) < 4 / math.sqrt(N)


@settings(max_examples=30)
@given(rate=st.floats(0.01, 1e4), factor=st.floats(0.1, 10), seed=st.integers(0, 1000))
def test_the_rate_only_stretches_time(rate: float, factor: float, seed: int) -> None:
    """The same seed at another rate is the same pattern, so that searches compare loads and not luck."""
    slow = schedule("poisson", rate, n=20, seed=seed)
    fast = schedule("poisson", rate * factor, n=20, seed=seed)
    assert fast == pytest.approx([at / factor for at in slow])


@settings(max_examples=30)
@given(shape=st.floats(0.2, 5), seed=st.integers(0, 1000))
def test_a_bursty_schedule_stretches_as_well(shape: float, seed: int) -> None:
    """Gamma gaps are scaled by 1 / (rate * shape)."""
    slow = schedule("gamma", 1.0, n=20, seed=seed, burstiness=shape)
    fast = schedule("gamma", 8.0, n=20, seed=seed, burstiness=shape)
    assert fast == pytest.approx([at / 8 for at in slow])


# --------------------------------------------------------------------------- ramps


def brought(at: float, start: float, end: float, duration: float) -> float:
    """Requests that a ramp has brought by an instant: the area under the line of its rate."""
    return start * at + (end - start) / duration * at**2 / 2


@settings(max_examples=60)
@given(
    start=st.floats(0.1, 50), end=st.floats(0.1, 50), duration=st.floats(1, 100),
)  # fmt: skip
def test_a_constant_ramp_sends_the_kth_request_when_the_area_is_k(
    start: float, end: float, duration: float
) -> None:
    """Integral of the rate up to the k-th due time is k, and the last lies before the end."""
    due = schedule("constant", start, ramp_to=end, duration_s=duration)
    assert [brought(at, start, end, duration) for at in due] == pytest.approx(
        list(range(len(due))), rel=1e-6, abs=1e-6
    )
    assert due[-1] < duration
    total = (start + end) / 2 * duration
    assert len(due) == pytest.approx(total, abs=1.0)


def test_a_ramp_by_hand() -> None:
    """From 1 to 3 a second in 10 s: t + t^2 / 10 = k has t = 5 (sqrt(1 + 0.4 k) - 1); 20 requests in all."""
    due = schedule("constant", 1, ramp_to=3, duration_s=10)
    assert len(due) == 20
    assert due[:3] == pytest.approx([0, 0.916079783, 1.708203932])


def test_a_ramp_down_ends_as_slowly_as_asked() -> None:
    """From 10 to 1 a second in 20 s: 110 requests; the last gaps are near a second, the first near 0.1 s."""
    due = schedule("constant", 10, ramp_to=1, duration_s=20)
    assert len(due) == 110
    assert due[1] - due[0] == pytest.approx(0.1, rel=0.05)
    assert 0.6 < due[-1] - due[-2] < 1.0


def test_a_ramp_to_nearly_nothing_ends() -> None:
    """The rate falls below what another request needs: no instant is infinite or behind the end."""
    due = schedule("poisson", 5.0, ramp_to=1e-9, duration_s=10, seed=4)
    assert all(math.isfinite(at) and at < 10 for at in due)
    # 5 * 10 / 2 = 25 requests and the one at 0, within five deviations.
    assert len(due) == pytest.approx(26, abs=25)


def test_a_level_ramp_is_no_ramp() -> None:
    """From 4 to 4 is the plain schedule, to rounding."""
    plain = schedule("poisson", 4.0, duration_s=25, seed=9)
    assert schedule("poisson", 4.0, ramp_to=4.0, duration_s=25, seed=9) == pytest.approx(plain)


@pytest.mark.parametrize("law", ["poisson", "gamma"])
def test_each_quarter_of_a_ramp_gets_its_share(law: Any) -> None:
    """From 0.5 to 7.5 a second over 400 s: the rate at quarter's ends is 0.5, 2.25, 4, 5.75, 7.5.

    100 s at the means 1.375, 3.125, 4.875, 6.625 are 137.5, 312.5, 487.5 and 662.5 requests; of 25 runs
    each quarter's mean is within four deviations of sqrt(mean / 25) (gamma of shape 2 varies less).
    """
    quarters = [0.0] * 4
    for seed in range(25):
        for at in schedule(law, 0.5, ramp_to=7.5, duration_s=400, seed=seed, burstiness=2.0):
            quarters[int(at // 100)] += 1 / 25
    for got, expected in zip(quarters, (137.5, 312.5, 487.5, 662.5), strict=True):
        assert got == pytest.approx(expected, abs=4 * math.sqrt(expected / 25) + 1)


def test_a_number_cuts_a_ramp() -> None:
    """Seven of the 20 requests, the same ones."""
    whole = schedule("constant", 1, ramp_to=3, duration_s=10)
    assert schedule("constant", 1, ramp_to=3, duration_s=10, n=7) == whole[:7]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ramp_to": 2.0, "n": 5}, "needs a duration"),
        ({"ramp_to": 0.0, "duration_s": 5.0}, "positive rate"),
        ({"ramp_to": -1.0, "duration_s": 5.0}, "positive rate"),
        ({"n": 5, "burstiness": 0.0}, "must be positive"),
        ({}, "n or duration_s"),
    ],
)
def test_a_schedule_that_cannot_be_made_is_refused(options: dict[str, Any], said: str) -> None:
    """At once, and with the figure that is wrong."""
    with pytest.raises(ValueError, match=said):
        schedule("gamma", 1.0, **options)


def test_no_request_and_no_time_are_empty_schedules() -> None:
    """Zero of anything is nothing; the first request at 0 is not within 0 s."""
    assert schedule("poisson", 5.0, n=0) == []
    assert schedule("constant", 5.0, duration_s=0.0) == []


# --------------------------------------------------------------------------- closed loops


@given(concurrency=st.integers(1, 5000), ramp_up=st.floats(0, 600))
@settings(max_examples=50)
def test_slots_open_evenly_and_not_all_at_once(concurrency: int, ramp_up: float) -> None:
    """As many as there are, from 0, equally far apart, at most 2,000 a second and within the ramp."""
    due = closed_loop(concurrency, ramp_up)
    assert len(due) == concurrency
    assert due[0] == 0
    steps = [b - a for a, b in pairwise(due)]
    assert all(step >= 1 / SLOTS_PER_S - 1e-9 for step in steps)
    assert steps == pytest.approx([max(1 / SLOTS_PER_S, ramp_up / concurrency)] * len(steps), rel=1e-3)
    assert due[-1] <= max(ramp_up, concurrency / SLOTS_PER_S)


@pytest.mark.parametrize("law", ["constant", "poisson", "gamma"])
def test_a_rush_doubles_the_rate_and_then_it_is_the_rate(law: Any) -> None:
    """300 s at 20 a second, then 300 s at 10: 6,000 and 3,000, within four standard deviations."""
    due = after_rush(law, 10.0, rush_s=300.0, n=None, duration_s=600.0, seed=3, burstiness=1.0)
    rush = sum(at < 300 for at in due)
    slack = 1 if law == "constant" else 4 * math.sqrt(6000)
    assert abs(rush - 6000) <= slack
    assert abs(len(due) - rush - 3000) <= slack
    assert due == sorted(due)
    assert due[-1] < 600


def test_a_number_of_requests_counts_those_of_the_rush() -> None:
    """At 2 a second: four in the second of the rush, then one each half second from 1 s on."""
    due = after_rush("constant", 2.0, rush_s=1.0, n=7, duration_s=None, seed=0, burstiness=1.0)
    assert due == [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]


def test_fewer_requests_than_a_rush_has() -> None:
    """It ends in the middle of it."""
    due = after_rush("constant", 2.0, rush_s=1.0, n=3, duration_s=None, seed=0, burstiness=1.0)
    assert due == [0.0, 0.25, 0.5]


def test_a_duration_shorter_than_the_rush() -> None:
    """Nothing follows; the rush itself is not cut, as the search never asks for that."""
    due = after_rush("constant", 2.0, rush_s=1.0, n=None, duration_s=1.0, seed=0, burstiness=1.0)
    assert due == [0.0, 0.25, 0.5, 0.75]

"""The laws of arrival schedules."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.probe.arrivals import closed_loop, schedule

RATES = st.floats(0.1, 1000)
SEEDS = st.integers(0, 2**32)


def test_constant_arrivals_are_exactly_constant() -> None:
    """Four a second means 0, 0.25, 0.5, 0.75, 1."""
    assert schedule("constant", 4, n=5) == [0, 0.25, 0.5, 0.75, 1]


def test_constant_arrivals_do_not_drift() -> None:
    """The millionth request at 3 a second is due at 999,999 / 3, to the last bit."""
    assert schedule("constant", 3, n=1_000_000)[-1] == 999_999 / 3


def test_a_duration_ends_the_schedule_before_it() -> None:
    """Ten a second for one second is ten requests, the last at 0.9."""
    assert schedule("constant", 10, duration_s=1) == [i / 10 for i in range(10)]


def test_the_earlier_of_number_and_duration_wins() -> None:
    """Three requests although a second has room for ten; ten although a hundred were asked for."""
    assert len(schedule("constant", 10, n=3, duration_s=1)) == 3
    assert len(schedule("constant", 10, n=100, duration_s=1)) == 10


@given(law=st.sampled_from(["constant", "poisson", "gamma"]), rate=RATES, n=st.integers(1, 200), seed=SEEDS)
def test_every_schedule_starts_at_zero_and_never_goes_back(law: str, rate: float, n: int, seed: int) -> None:
    """N due times, ascending from 0."""
    due = schedule(law, rate, n=n, seed=seed, burstiness=0.5)  # type: ignore[arg-type]
    assert len(due) == n
    assert due[0] == 0
    assert all(a <= b for a, b in pairwise(due))


@given(law=st.sampled_from(["poisson", "gamma"]), rate=RATES, seed=SEEDS)
def test_a_seed_fixes_the_schedule(law: str, rate: float, seed: int) -> None:
    """The same seed gives the same due times."""
    assert schedule(law, rate, n=50, seed=seed) == schedule(law, rate, n=50, seed=seed)  # type: ignore[arg-type]


@given(rate=RATES, seed=SEEDS, shorter=st.integers(1, 50), longer=st.integers(50, 100))
def test_a_longer_schedule_begins_like_a_shorter_one(
    rate: float, seed: int, shorter: int, longer: int
) -> None:
    """More requests do not move the first ones."""
    assert schedule("poisson", rate, n=longer, seed=seed)[:shorter] == schedule(
        "poisson", rate, n=shorter, seed=seed
    )


def gaps_of(law: str, burstiness: float = 1.0) -> list[float]:
    due = schedule(law, 2.0, n=40_001, seed=7, burstiness=burstiness)  # type: ignore[arg-type]
    return [b - a for a, b in pairwise(due)]


def mean_and_cv(sample: list[float]) -> tuple[float, float]:
    mean = math.fsum(sample) / len(sample)
    return mean, math.sqrt(math.fsum((x - mean) ** 2 for x in sample) / len(sample)) / mean


def test_poisson_gaps_have_mean_and_deviation_of_one_over_the_rate() -> None:
    """At 2 a second the mean gap is 0.5 s and its coefficient of variation 1; 40,000 gaps, 2 %."""
    assert mean_and_cv(gaps_of("poisson")) == pytest.approx((0.5, 1.0), rel=0.02)


def test_a_share_exp_minus_one_of_poisson_gaps_exceeds_the_mean() -> None:
    """The exponential law: 36.8 % of the gaps are longer than the mean."""
    gaps = gaps_of("poisson")
    assert sum(gap > 0.5 for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), abs=0.01)


def test_gamma_gaps_keep_the_rate_and_vary_by_one_over_root_burstiness() -> None:
    """Burstiness 0.25 doubles the coefficient of variation, 4 halves it."""
    assert mean_and_cv(gaps_of("gamma", 0.25)) == pytest.approx((0.5, 2.0), rel=0.03)
    assert mean_and_cv(gaps_of("gamma", 4.0)) == pytest.approx((0.5, 0.5), rel=0.03)


def test_closed_loop_slots_open_half_a_millisecond_apart() -> None:
    """Three slots open at 0, 0.5 and 1 ms."""
    assert closed_loop(3) == [0, 0.0005, 0.001]


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_must_be_positive(rate: float) -> None:
    """Zero requests a second is no load."""
    with pytest.raises(ValueError, match="positive"):
        schedule("poisson", rate, n=1)


def test_a_schedule_needs_a_length() -> None:
    """Neither number nor duration is an error, not an endless list."""
    with pytest.raises(ValueError, match="n or duration_s"):
        schedule("poisson", 1)


def test_a_ramp_opens_the_slots_evenly() -> None:
    """Four slots over two seconds: one each half second."""
    assert closed_loop(4, 2.0) == [0, 0.5, 1.0, 1.5]

"""Intervals, held against resampling by hand and against truth."""

from __future__ import annotations

import random

import pytest

from qwenhost.facts import Slo
from qwenhost.measurements import RequestRecord, percentile
from qwenhost.probe.confidence import intervals, of_percentile, of_share


def test_it_is_what_resampling_gives() -> None:
    """Median and 90th percentile of 100 values against 4,000 resamples by hand: both ends within 10 %."""
    draw = random.Random(5)  # noqa: S311 - a model of chance
    sample = sorted(draw.expovariate(1) for _ in range(100))
    for q in (50, 90):
        by_hand = sorted(percentile(sorted(draw.choices(sample, k=100)), q) for _ in range(4000))
        low, high = of_percentile(sample, q, seed=1)
        assert low == pytest.approx(by_hand[100], rel=0.1)
        assert high == pytest.approx(by_hand[-101], rel=0.1)


def test_it_holds_the_true_median_19_times_of_20() -> None:
    """400 samples of 100 from an exponential law, whose median is ln 2: between 92 and 98 of 100 hold it."""
    draw = random.Random(6)  # noqa: S311 - a model of chance
    held = 0
    for seed in range(400):
        low, high = of_percentile(sorted(draw.expovariate(1) for _ in range(100)), 50, seed)
        held += low <= 0.693147 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_share_of_a_textbook_case() -> None:
    """81 of 263: 0.2527 to 0.3676 (Newcombe 1998, table I, method 5), from 2,000 draws."""
    assert of_share(81, 263, seed=1) == pytest.approx((0.2527, 0.3676), abs=0.006)


def test_all_and_none_have_an_end_in_0_and_1() -> None:
    """Ten of ten: 0.69 to 1 (0.025^(1/10)); none of ten: 0 to 0.31."""
    assert of_share(10, 10, seed=1) == pytest.approx((0.69, 1.0), abs=0.02)
    assert of_share(10, 10, seed=1)[1] == 1
    assert of_share(0, 10, seed=1) == pytest.approx((0.0, 0.31), abs=0.02)
    assert of_share(0, 10, seed=1)[0] == 0


def record(index: int, ttft_s: float) -> RequestRecord:
    return RequestRecord(
        index=index, scheduled_s=0, sent_s=0, first_token_s=ttft_s, last_s=ttft_s + 1, output_tokens=11
    )


def test_a_run_names_what_it_can_tell() -> None:
    """Twenty requests: p50 and p90 but no p99; none at all below ten."""
    records = [record(i, 0.1 + i / 100) for i in range(20)]
    found = intervals(records, Slo(ttft_ms=205), seed=1)
    assert sorted(found) == [
        "e2e_ms_p50", "e2e_ms_p90", "goodput_fraction",
        "tpot_ms_p50", "tpot_ms_p90", "ttft_ms_p50", "ttft_ms_p90",
    ]  # fmt: skip
    assert found["tpot_ms_p50"] == pytest.approx((100, 100))
    low, high = found["ttft_ms_p50"]
    assert 100 <= low < 195 < high <= 290
    assert found["goodput_fraction"][0] < 11 / 20 < found["goodput_fraction"][1]
    assert intervals(records[:9], None, seed=1) == {}
    assert "ttft_ms_p99" in intervals([record(i, i / 100) for i in range(100)], None, seed=1)

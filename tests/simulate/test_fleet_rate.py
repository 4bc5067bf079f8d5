"""The highest rate within a service level."""

from __future__ import annotations

import datetime as dt

import pytest
from fleets import engine_limits, one_second

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo, Source, TokenStats, Workload
from qwenhost.simulate.fleet_rate import Bench, RatePoint, find_rate

ONE_TOKEN = Workload(
    id="one", description="", input_tokens=TokenStats(mean=1), output_tokens=TokenStats(mean=1),
    slo=Slo(ttft_ms=5000), source=Source(where="test", as_of=dt.date(2026, 11, 23)),
)  # fmt: skip
BENCH = Bench(config=engine_limits(max_num_seqs=1), workload=ONE_TOKEN, arrivals="constant", requests=400)


def test_a_server_of_one_second_carries_one_a_second() -> None:
    """Constant arrivals never wait up to 1/s and always beyond: the bisection closes in on 1."""
    found = find_rate(BENCH, one_second, Slo(ttft_ms=5000, percentile=99), start=0.3, tolerance=0.01)
    assert found.found_rate is not None
    assert found.found_rate == pytest.approx(1.0, rel=0.02)
    assert found.missed_rate is not None
    assert found.missed_rate <= found.found_rate * 1.011
    assert [p.rate for p in found.points] == sorted(p.rate for p in found.points)
    assert found.found is not None
    assert found.found.meets
    assert all(p.meets for p in found.points if p.rate <= found.found_rate)


def test_it_also_comes_down() -> None:
    """From far above the limit."""
    found = find_rate(BENCH, one_second, Slo(ttft_ms=5000), start=40.0, curve=False)
    assert found.found_rate == pytest.approx(1.0, rel=0.05)


def test_a_limit_that_nothing_keeps() -> None:
    """A step takes a second: half a second to the first token is never met."""
    seen: list[RatePoint] = []
    found = find_rate(BENCH, one_second, Slo(ttft_ms=500), start=1.0, on_point=seen.append)
    assert (found.found_rate, found.found) == (None, None)
    assert len(seen) == len(found.points) == 13


def test_a_limit_that_is_never_reached() -> None:
    """Doubling ends."""
    bench = Bench(config=engine_limits(max_num_seqs=4000), workload=ONE_TOKEN, requests=20)
    found = find_rate(bench, one_second, Slo(e2e_ms=1e9), start=1e-3, curve=False)
    assert found.missed_rate is None
    assert found.found_rate == pytest.approx(4.096)


def test_without_limits_there_is_nothing_to_find() -> None:
    """A sentence, with what to give."""
    with pytest.raises(BadInputError, match="no SLO"):
        find_rate(BENCH, one_second, Slo())

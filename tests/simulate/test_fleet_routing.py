"""Where requests are sent, and what that does to the prefix cache."""

from __future__ import annotations

import datetime as dt
import math
from itertools import pairwise
from typing import Any

import pytest
from fleets import engine_limits, fleet, one_second, pool

from qwenhost.facts import Slo, Source, TokenStats, Workload
from qwenhost.simulate.engine import Request
from qwenhost.simulate.fleet import Fleet
from qwenhost.simulate.fleet_demand import Demand, calls, comes_in_sessions, demand_assumptions
from qwenhost.simulate.fleet_routing import PrefixAware, router
from qwenhost.simulate.load import Arrival

TALKS = Workload(
    id="talks", description="", input_tokens=TokenStats(mean=600, p50=500, p90=1100),
    output_tokens=TokenStats(mean=20), requests_per_session=8, gap_s_p50=30, gap_s_p95=90,
    slo=Slo(ttft_ms=2000), source=Source(where="test", as_of=dt.date(2026, 11, 23)),
)  # fmt: skip
CACHED = engine_limits(enable_prefix_caching=True, num_blocks=2000)


def hit(routing: Any, replicas: int = 4) -> float:
    """Share of prompt tokens found in a cache over half an hour of conversations."""
    demand = Demand(mean_rate=1.0)
    simulated = Fleet(fleet(pool(replicas, config=CACHED), routing=routing), [one_second], seed=0)
    log = simulated.run(calls(TALKS, CACHED, demand, 1800, 0))
    return sum(log.cached_tokens) / sum(log.input_tokens)


def test_where_a_conversation_goes_decides_what_is_cached() -> None:
    """Sticky and prefix-aware find at least what one replica would, turns and least load much less."""
    alone, sticky, prefix = hit("least-load", 1), hit("session-sticky"), hit("prefix-aware")
    assert sticky > alone  # four caches hold more than one
    assert prefix == pytest.approx(sticky, abs=0.03)
    assert hit("round-robin") < 0.7 * sticky
    assert hit("least-load") < 0.8 * sticky


def ready(number: int) -> tuple[Fleet, Any]:
    """A fleet at time 0 and its ready replicas."""
    simulated = Fleet(fleet(pool(number, config=CACHED)), [one_second], seed=0)
    simulated.scaling.begin()
    return simulated, simulated.lives.ready


def test_a_session_moves_only_when_it_must() -> None:
    """It stays although another replica is idle, and moves when its own drains."""
    simulated, replicas = ready(3)
    sticky = router("session-sticky")
    call = Arrival(0.0, Request(10, 1), "a")
    home = sticky.choose(call, replicas)
    home.outstanding = 50
    assert sticky.choose(call, replicas) is home
    simulated.lives.drain(home, 1.0)
    assert sticky.choose(call, replicas) is not home


def test_prefix_affinity_has_a_guard() -> None:
    """An owner far busier than the others is passed over; a short match is none."""
    _, replicas = ready(2)
    aware = PrefixAware()
    call = Arrival(0.0, Request(1600, 1, 0, tuple(range(100))))
    home = aware.choose(call, replicas)
    other = next(replica for replica in replicas if replica is not home)
    home.outstanding = 60
    assert aware.choose(call, replicas) is home
    home.outstanding, other.outstanding = 65, 0
    assert aware.choose(call, replicas) is other
    home.outstanding, other.outstanding = 5, 6
    barely = Arrival(0.0, Request(1600, 1, 0, (*range(20), *range(1000, 1080))))
    home.outstanding = 7
    assert aware.choose(barely, replicas) is other


def test_a_forgotten_replica_attracts_nobody() -> None:
    """After a crash its cache is empty, and the router knows."""
    _, replicas = ready(2)
    aware = PrefixAware()
    call = Arrival(0.0, Request(1600, 1, 0, tuple(range(100))))
    home = aware.choose(call, replicas)
    aware.forget(home)
    home.outstanding = 1
    assert aware.choose(call, replicas) is not home


class TestDemand:
    @pytest.mark.parametrize("share", [0.2, 0.376, 0.5, 0.7, 1.0])
    def test_mean_and_peak(self, share: float) -> None:
        """The day's mean is the rate asked for, its peak the mean over the share, at the peak hour."""
        demand = Demand(mean_rate=2.0, mean_over_peak=share, peak_hour=15.0)
        assert demand.expected_requests(86_400) == pytest.approx(2.0 * 86_400, rel=1e-3)
        assert demand.rate_at(15 * 3600) == pytest.approx(2.0 / share, rel=1e-6)
        assert max(demand.rate_at(m * 60) for m in range(1440)) <= 2.0 / share + 1e-9

    def test_arrivals_follow_the_rate(self) -> None:
        """Within four standard deviations, over the day and in the busiest hour; the weekend is halved."""
        demand = Demand(mean_rate=0.5, mean_over_peak=0.5, weekend=0.5)
        times = list(demand.times(7 * 86_400, 3))
        assert len(times) == pytest.approx(0.5 * 86_400 * 6, abs=4 * math.sqrt(0.5 * 86_400 * 6))
        busiest = sum(13.5 * 3600 <= at < 14.5 * 3600 for at in times)
        assert busiest == pytest.approx(3600, abs=4 * 60)

    def test_conversations_grow(self) -> None:
        """Each prompt of a session holds the one before, with its answer; the mean count is kept."""
        found = list(calls(TALKS, CACHED, Demand(mean_rate=2.0), 20_000, 0))
        assert len(found) == pytest.approx(40_000, rel=0.1)
        assert [a.at_s for a in found] == sorted(a.at_s for a in found)
        by_session: dict[str | None, list[Request]] = {}
        for call in found:
            by_session.setdefault(call.session, []).append(call.request)
        assert len(found) / len(by_session) == pytest.approx(8, rel=0.1)
        for turns in by_session.values():
            for before, after in pairwise(turns):
                assert after.prompt_tokens >= before.prompt_tokens
                assert after.block_hashes[: len(before.block_hashes)] == before.block_hashes
        mean = sum(a.request.prompt_tokens for a in found) / len(found)
        assert mean == pytest.approx(600, rel=0.15)

    def test_what_is_assumed_is_said(self) -> None:
        """The curve, the weekend and the sessions."""
        said = " ".join(
            demand_assumptions(TALKS, CACHED, Demand(mean_rate=2, mean_over_peak=0.5, weekend=0.4))
        )
        assert "peak 4 requests/s" in said
        assert "40%" in said
        assert "sessions of 8" in said
        assert not comes_in_sessions(TALKS, engine_limits())

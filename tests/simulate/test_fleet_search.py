"""The cheapest fleet: found, explained, and none where none will do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from fleets import engine_limits, fleet, one_second, pool

from qwenhost.facts import Slo
from qwenhost.simulate.engine import Request
from qwenhost.simulate.fleet import Fleet
from qwenhost.simulate.fleet_config import DAY_S, StartUp
from qwenhost.simulate.fleet_demand import Demand
from qwenhost.simulate.fleet_figures import FleetLabels, fleet_run
from qwenhost.simulate.fleet_hours import hours_for
from qwenhost.simulate.fleet_reasons import why
from qwenhost.simulate.fleet_result import FleetRun, fleet_to_json, load_fleet
from qwenhost.simulate.fleet_search import Candidate, Load, Search
from qwenhost.simulate.load import Arrival

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.simulate.fleet_config import Pool

SLO = Slo(ttft_ms=3000, percentile=90)
DEMAND = Demand(mean_rate=0.6, mean_over_peak=0.4, peak_hour=0.5)
HORIZON_S = 3600.0
QUICK = StartUp(cold={"weights": 10.0}, warm={"weights": 5.0})
ONE = engine_limits(max_num_seqs=1)


def trial(pools: tuple[Pool, ...]) -> FleetRun | None:
    """Requests of one step each, the hour around the peak."""
    config = fleet(*pools)
    calls = [Arrival(at, Request(1, 1)) for at in DEMAND.times(HORIZON_S, 0)]
    simulated = Fleet(config, [one_second] * len(pools), seed=0, slo=SLO, misses_allowed=0.12 * len(calls))
    log = simulated.run(calls, horizon_s=HORIZON_S)
    names = {p.name: p.name for p in pools}
    run = fleet_run(config, log, FleetLabels(workload="x", engines=names, gpus=names, seed=0), 0.0)
    return run if run.meets_slo else None


def search(*pools: Pool) -> tuple[Search, list[Candidate], Load, list[str]]:
    """A search over pools whose replicas carry 0.7 a second."""
    candidates = [Candidate(one, 0.7, 2.0) for one in pools]
    load = Load(DEMAND.peak_rate, DEMAND.rate_at)
    said: list[str] = []
    return Search(candidates, load, trial, said.append), candidates, load, said


def test_the_cheapest_is_found_and_explained() -> None:
    """It keeps the SLO, nothing tried that keeps it costs less, and the smallest fixed fleet is known."""
    one, candidates, load, said = search(pool(1, config=ONE, start=QUICK))
    pools, label, tried = one.run()
    assert pools is not None
    keeping = [t for t in tried if t.verdict in ("cheapest", "dearer")]
    best = next(t for t in tried if t.verdict == "cheapest")
    assert best.label == label
    assert all((t.usd_per_day or math.inf) >= (best.usd_per_day or 0) for t in keeping)
    fixed = {int(t.label.split()[0]): t.verdict for t in tried if "fixed" in t.label}
    fewest = min(n for n, verdict in fixed.items() if verdict != "misses the SLO")
    assert trial((pool(fewest, config=ONE),)) is not None
    assert fewest == 1 or trial((pool(fewest - 1, config=ONE),)) is None
    assert any("by the hour" in t.label for t in tried)
    assert any("autoscaled" in t.label for t in tried)
    reasons = why(tried, label, candidates, load)
    assert any(label in line and "USD a day" in line for line in reasons)
    assert said == [t.label for t in tried if t.verdict != "not run"]


def test_a_dearer_pool_is_not_run_where_it_must_cost_more() -> None:
    """Ten times the price: its fixed fleets above the best are skipped."""
    cheap, dear = pool(1, name="cheap", config=ONE), pool(1, name="dear", config=ONE, usd_per_hour=100.0)
    one, *_ = search(cheap, dear)
    pools, label, tried = one.run()
    assert pools is not None
    assert "dear" not in label
    assert any(t.verdict == "not run" and "dear" in t.label for t in tried)


def test_spare_replicas_are_in_the_price() -> None:
    """N+1 costs one replica's day more."""
    found = [search(pool(1, config=ONE, spare=spare))[0].run() for spare in (0, 1)]
    fixed = [next(t for t in tried if "fixed" in t.label and t.usd_per_day) for _, _, tried in found]
    assert fixed[1].usd_per_day == pytest.approx((fixed[0].usd_per_day or 0) + 240.0)


def test_none_will_do() -> None:
    """A step of a second never answers within half of one."""
    candidates = [Candidate(pool(1, config=ONE), 100.0, 1.0)]
    one = Search(candidates, Load(0.5, None), lambda pools: None, lambda label: None)
    pools, label, tried = one.run()
    assert (pools, label) == (None, "")
    assert {t.verdict for t in tried} == {"misses the SLO"}


def test_the_hours_cover_the_day() -> None:
    """Each instant has one row; numbers follow demand, a start ahead of it, the top at the peak."""
    rows = hours_for(Demand(mean_rate=1, mean_over_peak=0.5).rate_at, 2.0, 8, 1.0, 600.0)
    for minute in range(0, 1440, 5):
        assert sum(row.hold_at(minute * 60.0) for row in rows) == 1
    at_peak = next(row for row in rows if row.hold_at(14 * 3600.0))
    assert at_peak.replicas.low == 8
    assert min(row.replicas.low for row in rows) == 1
    weekly = hours_for(Demand(mean_rate=1, mean_over_peak=0.5, weekend=0.3).rate_at, 2.0, 8, 1.0, 0.0)
    saturday = next(row for row in weekly if row.hold_at(5 * DAY_S + 14 * 3600.0))
    assert saturday.replicas.low == 3


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    """Written and read again it is the same."""
    run = trial((pool(4, config=ONE),))
    assert run is not None
    file = tmp_path / "fleet.json"
    file.write_bytes(fleet_to_json(run))
    assert load_fleet(file) == run

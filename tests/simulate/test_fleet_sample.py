"""Samples stand for a whole load, and what a search finds by them is run over all of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import pytest
from fleets import engine_limits, fleet, one_second, pool
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.facts import Slo
from qwenhost.simulate.engine import Request
from qwenhost.simulate.fleet import Fleet
from qwenhost.simulate.fleet_config import DAY_S, Autoscale, Hours, Range, Trigger
from qwenhost.simulate.fleet_demand import Demand, seen_rate
from qwenhost.simulate.fleet_figures import FleetLabels, fleet_run
from qwenhost.simulate.fleet_reasons import why
from qwenhost.simulate.fleet_sample import (
    Sampled,
    Stretch,
    Worth,
    bin_seconds,
    lead_seconds,
    opening,
    sample,
    stretches,
)
from qwenhost.simulate.fleet_search import Candidate, Load, Search
from qwenhost.simulate.load import Arrival

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.simulate.fleet_config import Pool
    from qwenhost.simulate.fleet_result import FleetRun
    from qwenhost.simulate.fleet_search import Tried

IN_FLIGHT = Autoscale(triggers=(Trigger(metric="in-flight", target=10.0),))


class TestStretches:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 500), min_size=1, max_size=300), st.floats(0, 2000))
    def test_they_stand_for_everything(self, counts: list[int], lead_s: float) -> None:
        """Strata add up to all requests and all seconds; each is a bin of the load, with its lead."""
        found = stretches([float(count) for count in counts], 300.0, lead_s)
        assert 1 <= len(found) <= 6
        assert sum(one.requests for one in found) == pytest.approx(sum(counts))
        assert sum(one.seconds for one in found) == pytest.approx(300.0 * len(counts))
        assert [one.since_s for one in found] == sorted({one.since_s for one in found})
        for one in found:
            assert one.since_s % 300 == 0
            assert one.until_s == one.since_s + 300 <= 300 * len(counts)
            assert one.begin_s == max(0.0, one.since_s - lead_s)

    def test_by_hand(self) -> None:
        """A hundred bins that rise from 1 to 100: the busiest two, the next eight, twenty, thirty, 25 and 15.

        1 + ... + 100 = 5050; the two busiest hold 199, the last fifteen 1 + ... + 15 = 120.
        """
        found = stretches([float(n) for n in range(1, 101)], 600.0, 1200.0)
        # 15 numbers from 1, 25 from 16, 30 from 41, 20 from 71, 8 from 91 and 2 from 99.
        assert [one.requests for one in found] == [120, 700, 1665, 1610, 756, 199]
        assert [one.seconds / 600 for one in found] == [15, 25, 30, 20, 8, 2]
        assert found[-1].since_s in (98 * 600.0, 99 * 600.0)
        assert found[-1].begin_s == found[-1].since_s - 1200

    def test_bins_and_leads(self) -> None:
        """A day has 288 bins of five minutes, a week longer ones; a fleet that scales begins earlier."""
        assert bin_seconds(DAY_S) == 300
        assert bin_seconds(7 * DAY_S) == pytest.approx(2100)
        assert lead_seconds([pool(2)], 10.0) == 50
        assert lead_seconds([pool(2), pool(1, 3, autoscale=IN_FLIGHT)], 10.0) == 60 + 300


class TestOpening:
    WORTH: ClassVar = {
        "pool": Worth(in_flight=10.0, request_s=5.0),
        "base": Worth(in_flight=20.0, request_s=5.0),
    }

    @pytest.mark.parametrize(("rate", "number"), [(0.0, 1), (2.0, 1), (2.1, 2), (7.0, 4), (100.0, 8)])
    def test_littles_law(self, rate: float, number: int) -> None:
        """In flight is rate x 5 s, ten to a replica, within 1 to 8."""
        one = pool(1, 8, autoscale=IN_FLIGHT)
        assert opening((one,), rate, 0.0, self.WORTH) == (number,)

    def test_fixed_ones_as_their_hours_say(self) -> None:
        """The number of the hour, whatever the rate."""
        hours = Hours(from_s=3600.0, to_s=7200.0, replicas=Range(low=5, high=5))
        one = pool(2, schedule=(hours,))
        assert opening((one,), 100.0, 0.0, self.WORTH) == (2,)
        assert opening((one,), 100.0, 4000.0, self.WORTH) == (5,)

    def test_a_base_takes_its_share_first(self) -> None:
        """30/s x 5 s = 150 in flight; two of the base hold 40; eleven of ten hold the rest. Order is kept."""
        burst, base = pool(1, 20, autoscale=IN_FLIGHT), pool(2, name="base")
        assert opening((burst, base), 30.0, 0.0, self.WORTH) == (11, 2)
        assert opening((base, burst), 30.0, 0.0, self.WORTH) == (2, 11)


class TestSample:
    LIMITS = engine_limits(max_num_seqs=1)

    def parts(self, rate: float, number: int) -> list[tuple[Stretch, list[Arrival], tuple[int, ...]]]:
        """Two stretches of an hour-long Poisson load."""
        demand = Demand(mean_rate=rate)
        found: list[tuple[Stretch, list[Arrival], tuple[int, ...]]] = []
        for since in (600.0, 2400.0):
            part = Stretch(since - 300, since, since + 600, rate * 1800, 1800.0)
            calls = [Arrival(at, Request(1, 1)) for at in demand.times(part.until_s, 0, since_s=part.begin_s)]
            found.append((part, calls, (number,)))
        return found

    def test_price_and_share_of_a_fixed_fleet(self) -> None:
        """Three at 10 USD an hour are 720 a day; far below capacity every request is kept."""
        found = sample(
            fleet(pool(3, config=self.LIMITS)), [one_second], self.parts(0.2, 3),
            slo=Slo(ttft_ms=5000), seed=0,
        )  # fmt: skip
        assert found.usd_per_day == pytest.approx(720)
        assert found.kept_slo == 1

    def test_it_agrees_with_the_whole(self) -> None:
        """One server at load 0.7: the share that waits under 2 s, by samples and over the hour."""
        slo, config = Slo(ttft_ms=3000), fleet(pool(1, config=self.LIMITS))
        found = sample(config, [one_second], self.parts(0.7, 1), slo=slo, seed=0)
        calls = [Arrival(at, Request(1, 1)) for at in Demand(mean_rate=0.7).times(40_000.0, 0)]
        whole = Fleet(config, [one_second], seed=0, slo=slo).run(calls)
        assert found.kept_slo == pytest.approx(sum(whole.kept) / len(whole), abs=0.1)
        assert 0.5 < found.kept_slo < 0.99

    def test_strata_weigh(self) -> None:
        """A stretch that keeps nothing and stands for a quarter of the requests costs a quarter."""
        idle = Stretch(0.0, 0.0, 100.0, 300.0, 500.0)
        busy = Stretch(1000.0, 1000.0, 1100.0, 100.0, 500.0)
        crowd = [Arrival(1000.0, Request(1, 50))] * 10
        parts = [(idle, [Arrival(1.0, Request(1, 1))], (1,)), (busy, crowd, (1,))]
        found = sample(fleet(pool(1)), [one_second], parts, slo=Slo(e2e_ms=10_000), seed=0)
        assert found.kept_slo == pytest.approx(0.75)

    def test_what_warms_it_up_does_not_count(self) -> None:
        """Misses before the stretch are no misses of it."""
        part = Stretch(0.0, 500.0, 600.0, 10.0, 100.0)
        calls = [Arrival(0.0, Request(1, 50)), Arrival(550.0, Request(1, 1))]
        found = sample(fleet(pool(1)), [one_second], [(part, calls, (1,))], slo=Slo(e2e_ms=10_000), seed=0)
        assert found.kept_slo == 1

    def test_an_unknown_price_stays_unknown(self) -> None:
        """One pool without a price: no sum is given."""
        config = fleet(pool(1), pool(1, name="own", usd_per_hour=None))
        part = Stretch(0.0, 0.0, 10.0, 1.0, 10.0)
        calls = [Arrival(0.0, Request(1, 1))]
        found = sample(config, [one_second] * 2, [(part, calls, (1, 1))], slo=Slo(e2e_ms=9000), seed=0)
        assert found.usd_per_day is None


class TestBeginning:
    def test_a_fleet_may_begin_late(self) -> None:
        """At 1,000 s with three: rent runs from there, and the hours that hold then are kept."""
        hours = Hours(from_s=1200.0, to_s=2000.0, replicas=Range(low=1, high=1))
        log = Fleet(fleet(pool(3, schedule=(hours,))), [one_second], seed=0).run(
            [Arrival(1010.0, Request(1, 5))], horizon_s=1500.0, begin_s=1000.0, begin_with=(3,)
        )
        assert sorted(log.billed()) == [(0, 1000.0, 1200.0), (0, 1000.0, 1200.0), (0, 1000.0, 1500.0)]
        assert list(log.e2e_s) == [5.0]

    def test_the_number_is_not_the_lowest(self) -> None:
        """A sample of a scaled fleet begins in the middle; without a number it begins with the fewest."""
        one = pool(1, 9, autoscale=IN_FLIGHT)
        starts = [
            len(Fleet(fleet(one), [one_second], seed=0).run([], horizon_s=1.0, begin_with=numbers).replicas)
            for numbers in (None, (4,))
        ]
        assert starts == [1, 4]


class TestSeenRate:
    def test_by_hand(self) -> None:
        """Two requests in the first minute, none in the second, one in the half third."""
        rate_at, peak = seen_rate([0.0, 30.0, 130.0], 150.0)
        assert [rate_at(at) for at in (0.0, 59.0, 60.0, 149.0)] == [2 / 60, 2 / 60, 0.0, 1 / 30]
        assert peak == 2 / 60

    def test_past_the_end_days_repeat(self) -> None:
        """Two days, the second busier at noon: later days expect the busier noon."""
        times = [DAY_S / 2] * 10 + [1.5 * DAY_S] * 30 + [2 * DAY_S - 1]
        rate_at, _ = seen_rate(sorted(times), 2 * DAY_S)
        width = 2 * DAY_S / 288
        assert rate_at(DAY_S / 2) == pytest.approx(10 / width)
        assert rate_at(4.5 * DAY_S) == pytest.approx(30 / width)

    def test_a_single_instant(self) -> None:
        """A trace of one moment has a rate, not an error."""
        rate_at, peak = seen_rate([0.0], 1e-9)
        assert rate_at(0.0) > 0
        assert peak > 0

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(0, 5e5), min_size=1, max_size=200))
    def test_its_integral_is_the_trace(self, times: list[float]) -> None:
        """Rates times widths are the requests, up to the stretch that the end cuts short."""
        span = max([*times, 1.0])
        rate_at, peak = seen_rate(sorted(times), span)
        width = max(60.0, span / 288)
        edges = [width * n for n in range(math.ceil(span / width))]
        lengths = [min(width, span - edge) for edge in edges]
        pairs = zip(edges, lengths, strict=True)
        total = sum(rate_at(edge + length / 2) * length for edge, length in pairs)
        assert total <= len(times) + 1e-6
        assert all(rate_at(edge) <= 2 * peak * (1 + 1e-9) for edge in edges)


def test_a_part_of_the_demand_has_its_rate() -> None:
    """From the middle of a day on: as many as the curve's integral says, none before or after."""
    demand = Demand(mean_rate=5.0, mean_over_peak=0.5)
    times = list(demand.times(50_000.0, 3, since_s=46_000.0))
    expected = demand.expected_requests(50_000.0) - demand.expected_requests(46_000.0)
    assert len(times) == pytest.approx(expected, rel=0.05)
    assert min(times) >= 46_000
    assert max(times) < 50_000


class Told:
    """A screen that says what it is told to say, by number of replicas."""

    allowed = 0.1

    def __init__(self, kept: dict[int, float]) -> None:
        self.kept = kept
        self.prepared: list[tuple[Pool, ...]] = []

    def prepare(self, shapes: Sequence[tuple[Pool, ...]], /) -> None:
        """Remember what was announced."""
        self.prepared = list(shapes)

    def __call__(self, pools: tuple[Pool, ...], /) -> Sampled:
        """Fixed fleets as told; whatever scales keeps nothing."""
        one = pools[0]
        if len(pools) > 1 or one.autoscale is not None or one.schedule:
            return Sampled(0.0, 1e6)
        return Sampled(self.kept.get(one.replicas.low, 0.0), 240.0 * one.replicas.low)


class TestSearch:
    def found(
        self, sampled: dict[int, float], whole: set[int]
    ) -> tuple[tuple[Pool, ...] | None, dict[str, Tried], list[int], Told]:
        """A search in which samples and whole runs say so much of each number; the whole runs in order."""
        runs: list[int] = []

        def trial(pools: tuple[Pool, ...]) -> FleetRun | None:
            number = pools[0].replicas.low
            runs.append(number)
            config = fleet(*pools)
            log = Fleet(config, [one_second], seed=0, slo=Slo(e2e_ms=9000)).run(
                [Arrival(0.0, Request(1, 1))], horizon_s=DAY_S
            )
            names = {"pool": "pool"}
            run = fleet_run(config, log, FleetLabels(workload="x", engines=names, gpus=names, seed=0), 0.0)
            return run if number in whole else None

        screen = Told(sampled)
        search = Search([Candidate(pool(1), 1.0, 5.0)], Load(4.0, None), trial, lambda _label: None, screen)
        pools, _, tried = search.run()
        return pools, {one.label: one for one in tried}, runs, screen

    def test_only_the_cheapest_is_run_whole(self) -> None:
        """Samples say four keeps it and three misses clearly: one whole run, of four."""
        pools, tried, runs, _ = self.found({3: 0.5, 4: 0.95, 5: 0.99}, {4, 5})
        assert runs == [4]
        assert pools is not None
        assert pools[0].replicas == Range(low=4, high=4)
        assert tried["4 x pool, fixed"].verdict == "cheapest"
        assert not tried["4 x pool, fixed"].sampled
        assert tried["3 x pool, fixed"].sampled
        assert tried["3 x pool, fixed"].kept_slo == 0.5

    def test_a_near_miss_is_run_too(self) -> None:
        """12 % missed of 10 allowed decides nothing: three is run whole, and keeps it."""
        pools, _, runs, _ = self.found({3: 0.88, 4: 0.95}, {3, 4})
        assert runs == [3]
        assert pools is not None
        assert pools[0].replicas.low == 3

    def test_a_clear_miss_is_not(self) -> None:
        """16 % missed of 10 allowed is a miss."""
        assert self.found({3: 0.84, 4: 0.95}, {3, 4})[2] == [4]

    def test_samples_that_hoped_too_much(self) -> None:
        """Four misses over the whole load, so five is tried, which nobody had sampled."""
        pools, tried, runs, _ = self.found({4: 0.95}, {5, 6})
        assert runs == [4, 5]
        assert pools is not None
        assert pools[0].replicas.low == 5
        assert tried["4 x pool, fixed"].verdict == "misses the SLO"
        assert not tried["4 x pool, fixed"].sampled

    def test_what_is_tried_is_announced(self) -> None:
        """Everything that scales is told to the screen before the first of it is asked for."""
        screen = self.found({4: 0.95}, {4})[3]
        assert len(screen.prepared) == 6
        assert all(pools[0].autoscale is not None for pools in screen.prepared)

    def test_reasons_say_that_samples_judged(self) -> None:
        """For people."""
        _, tried, _, _ = self.found({4: 0.95}, {4})
        candidates, load = [Candidate(pool(1), 1.0, 5.0)], Load(4.0, None)
        said = why(list(tried.values()), "4 x pool, fixed", candidates, load)
        assert any("samples" in line for line in said)

    def test_interrupted_it_tells_what_it_has(self) -> None:
        """Ctrl-C in the second whole run: the first, which kept it, is the answer so far."""
        runs: list[int] = []

        def trial(pools: tuple[Pool, ...]) -> FleetRun | None:
            runs.append(pools[0].replicas.low)
            if len(runs) == 2:
                raise KeyboardInterrupt
            config = fleet(*pools)
            log = Fleet(config, [one_second], seed=0, slo=Slo(e2e_ms=9000)).run(
                [Arrival(0.0, Request(1, 1))], horizon_s=DAY_S
            )
            names = {"pool": "pool"}
            return fleet_run(config, log, FleetLabels(workload="x", engines=names, gpus=names, seed=0), 0.0)

        search = Search([Candidate(pool(1), 1.0, 5.0)], Load(4.0, None), trial, lambda _label: None)
        with pytest.raises(KeyboardInterrupt):
            search.run()
        pools, label, tried = search.so_far()
        assert pools is not None
        assert pools[0].replicas.low == runs[0] == 4
        assert label == "4 x pool, fixed"
        assert [one.verdict for one in tried] == ["cheapest"]

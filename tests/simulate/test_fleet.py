"""A fleet keeps its laws, agrees with one engine where it is one, and with queueing theory."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from fleets import engine_limits, fleet, one_second, pool
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.facts import Slo
from qwenhost.simulate.engine import Request
from qwenhost.simulate.fleet import Fleet
from qwenhost.simulate.fleet_config import Autoscale, Failures, Hours, Range, Spot, Trigger
from qwenhost.simulate.fleet_figures import FleetLabels, fleet_run, keeps
from qwenhost.simulate.fleet_log import ERRORS, FleetLog
from qwenhost.simulate.load import Arrival, arrival_times
from qwenhost.simulate.virtual import Simulator

if TYPE_CHECKING:
    from qwenhost.simulate.fleet_config import FleetConfig
    from qwenhost.simulate.fleet_result import FleetRun

ROUTINGS = ("round-robin", "least-load", "prefix-aware", "session-sticky")


def ran(config: FleetConfig, calls: list[Arrival], horizon_s: float = 0.0, **options: Any) -> FleetLog:
    """The log of a run with one-second steps."""
    simulated = Fleet(config, [one_second] * len(config.pools), seed=options.pop("seed", 0), **options)
    return simulated.run(calls, horizon_s=horizon_s)


def figures(config: FleetConfig, log: FleetLog) -> FleetRun:
    """The run's figures."""
    names = {p.name: "test" for p in config.pools}
    return fleet_run(config, log, FleetLabels(workload="test", engines=names, gpus=names, seed=0), 0.0)


def steady(rate: float, count: int, request: Request, seed: int = 0) -> list[Arrival]:
    """Equal requests of a Poisson process."""
    return [Arrival(at, request) for at in islice(arrival_times("poisson", rate, seed), count)]


calls_lists = st.lists(
    st.tuples(st.floats(0, 400), st.integers(1, 200), st.integers(1, 60), st.integers(0, 4)),
    min_size=1, max_size=60,
).map(
    lambda rows: [
        Arrival(at, Request(prompt, output, 0, tuple(range(s << 20, (s << 20) + prompt // 16))), str(s))
        for at, prompt, output, s in sorted(rows)
    ]
)  # fmt: skip

hostile_pools = st.builds(
    pool,
    st.integers(0, 2),
    st.integers(2, 5),
    config=st.sampled_from([
        engine_limits(max_num_seqs=2),
        engine_limits(max_num_seqs=4, enable_prefix_caching=True, num_blocks=60, data_parallel_size=2),
    ]),
    spare=st.integers(0, 1),
    autoscale=st.none() | st.builds(
        Autoscale,
        triggers=st.sampled_from([
            (Trigger(metric="in-flight", target=2.0),),
            (Trigger(metric="waiting", target=1.0), Trigger(metric="kv", target=0.5)),
            (Trigger(metric="rate", target=0.2), Trigger(metric="running", target=3.0)),
        ]),
        cooldown_s=st.sampled_from([30.0, 300.0]),
    ),
    failures=st.none() | st.just(Failures(mtbf_s=150.0, repair_s=5.0)),
    spot=st.none() | st.just(Spot(interruptions_per_day=400.0, notice_s=10.0)),
    schedule=st.sampled_from([(), (Hours(from_s=100.0, to_s=250.0, replicas=Range(low=3, high=4)),)]),
)  # fmt: skip


class TestLaws:
    @settings(max_examples=150, deadline=None)
    @given(
        calls_lists, hostile_pools, st.sampled_from(ROUTINGS), st.integers(0, 9),
        st.sampled_from([(40.0, None), (600.0, 3), (600.0, None), (40.0, 1)]),
    )  # fmt: skip
    def test_no_request_is_lost_or_answered_twice(
        self, calls: list[Arrival], one: Any, routing: Any, seed: int, limits: tuple[float, int | None]
    ) -> None:
        """Whatever breaks, each is settled once; replicas stay in bounds; rent is their integral."""
        timeout_s, most = limits
        config = fleet(one, routing=routing, timeout_s=timeout_s, max_outstanding=most, drain_s=30.0)
        log = ran(config, calls, 500.0, seed=seed)
        assert sorted(log.at_s) == [call.at_s for call in calls]
        run = figures(config, log)
        assert run.requests.completed + sum(run.requests.by_error.values()) == len(calls)
        if most is None:
            assert "http_429" not in run.requests.by_error
        for at, outcome, e2e in zip(log.at_s, log.outcome, log.e2e_s, strict=True):
            assert ERRORS[outcome] or 0 < e2e <= timeout_s + 1e-9
            assert at <= log.end_s
        ranges = [one.replicas, *(row.replicas for row in one.schedule)]
        highest = max(1, *(r.high for r in ranges)) + one.spare
        # Several changes at one instant are one to an observer.
        last = {at: count for at, _, count, _ in log.counts}
        assert all(0 <= count <= highest for count in last.values())
        assert min(last.values()) >= min(r.low for r in ranges)
        changes = sorted(
            [(since, 1) for _, since, _ in log.billed()] + [(until, -1) for _, _, until in log.billed()]
        )
        area = at = 0.0
        rented = 0
        for instant, change in changes:
            area += rented * (instant - at)
            at, rented = instant, rented + change
        assert run.usd == pytest.approx(area / 3600 * 10.0)
        assert run.gpu_hours == pytest.approx(area / 3600 * 2)
        assert sum(w.usd or 0.0 for w in run.windows) == pytest.approx(run.usd)
        assert sum(w.requests for w in run.windows) == len(calls)

    @settings(max_examples=40, deadline=None)
    @given(calls_lists, hostile_pools, st.sampled_from(ROUTINGS), st.integers(0, 9))
    def test_the_seed_decides(self, calls: list[Arrival], one: Any, routing: Any, seed: int) -> None:
        """The same seed gives the same run to the last digit."""
        config = fleet(one, routing=routing)
        logs = [ran(config, calls, 500.0, seed=seed) for _ in range(2)]
        assert logs[0].e2e_s.tobytes() == logs[1].e2e_s.tobytes()
        assert list(logs[0].billed()) == list(logs[1].billed())
        assert logs[0].counts == logs[1].counts

    @settings(max_examples=80, deadline=None)
    @given(calls_lists, st.booleans(), st.sampled_from(ROUTINGS), st.integers(0, 9))
    def test_one_replica_is_the_single_engine(
        self, calls: list[Arrival], cached: bool, routing: Any, seed: int
    ) -> None:
        """Every instant of every request is the one the single-engine simulator gives."""
        limits = engine_limits(
            max_num_seqs=3, enable_prefix_caching=cached, num_blocks=80,
            num_speculative_tokens=1, acceptance_rates=(0.7,),
        )  # fmt: skip
        log = ran(fleet(pool(1, config=limits), routing=routing, timeout_s=1e9), calls, seed=seed)
        alone = Simulator(limits, one_second, seed=seed)
        alone.open_loop(calls)
        one = sorted((r.scheduled_s, r.ttft_ms, r.e2e_ms) for r in alone.run.records)
        many = sorted(zip(log.at_s, log.ttft_s, log.e2e_s, strict=True))
        assert len(one) + len(alone.run.refused) == len(many)
        for (at, ttft_ms, e2e_ms), (at_too, ttft_s, e2e_s) in zip(one, many, strict=False):
            assert (at, ttft_ms, e2e_ms) == pytest.approx((at_too, ttft_s * 1000, e2e_s * 1000))

    @pytest.mark.parametrize("routing", ROUTINGS)
    def test_nobody_waits_beside_an_idle_replica(self, routing: Any) -> None:
        """With as many replicas as requests at once, least load answers each as if it were alone."""
        calls = [Arrival(0.0, Request(1, 5), str(i)) for i in range(4)]
        log = ran(fleet(pool(4, config=engine_limits(max_num_seqs=1)), routing=routing), calls)
        assert list(log.e2e_s) == [5.0] * 4


class TestTheory:
    def test_one_queue_for_many_servers(self) -> None:
        """Four servers, load 0.8, service always 1 s: least load and turns both are one shared queue, M/D/4.

        Erlang C gives M/M/4 a wait of 0.746 s; M/D/4 waits half of that, within the 2 % of Cosmetatos.
        """
        calls = steady(3.2, 40_000, Request(1, 1))
        limits = engine_limits(max_num_seqs=1)
        shared = erlang_c(4, 3.2) / (4 - 3.2) / 2
        assert shared == pytest.approx(0.373, abs=0.001)
        for routing in ("least-load", "round-robin"):
            log = ran(fleet(pool(4, config=limits), routing=routing), calls)
            assert math.fsum(log.wait_s) / len(log) == pytest.approx(shared, rel=0.06)

    def test_littles_law(self) -> None:
        """Mean requests present = rate x mean time, over replicas that never meet a limit."""
        calls = steady(2.0, 4_000, Request(5, 10))
        run = figures(config := fleet(pool(3)), ran(config, calls))
        assert run.e2e_ms.mean == pytest.approx(10_500, rel=0.03)  # ten steps, and half a step's wait
        assert run.request_per_s == pytest.approx(2.0, rel=0.05)


def erlang_c(servers: int, load: float) -> float:
    """Probability of waiting in M/M/c."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


class TestEvents:
    def test_a_failed_replica_gives_its_requests_back(self) -> None:
        """Both replicas fail often: requests are sent again, from the start, and still answered."""
        one = pool(2, failures=Failures(mtbf_s=40.0))
        log = ran(fleet(one, retries=100), steady(0.5, 100, Request(5, 20)))
        assert log.failures > 5
        assert log.resent > 0
        assert set(log.outcome) == {0}

    def test_retries_end(self) -> None:
        """A request that was lost more often than allowed fails as lost."""
        one = pool(1, failures=Failures(mtbf_s=5.0))
        log = ran(fleet(one, retries=0), [Arrival(0.0, Request(5, 500))])
        assert [ERRORS[o] for o in log.outcome] == ["lost"]

    def test_a_start_takes_its_time(self) -> None:
        """From none: KEDA looks after 30 s, the start takes 60 s, the answer 3 s."""
        one = pool(0, 1, autoscale=Autoscale(triggers=(Trigger(metric="in-flight", target=1.0),)))
        log = ran(fleet(one), [Arrival(1.0, Request(5, 3))])
        assert log.e2e_s[0] == pytest.approx(30 - 1 + 60 + 3)
        assert log.wait_s[0] == pytest.approx(89.0)

    def test_a_drained_replica_finishes_what_it_has(self) -> None:
        """The hours end at 100 s with an answer under way: it is finished and not sent again."""
        hours = Hours(from_s=0.0, to_s=100.0, replicas=Range(low=2, high=2))
        calls = [Arrival(90.0, Request(5, 50)), Arrival(90.0, Request(5, 50))]
        log = ran(fleet(pool(1, schedule=(hours,))), calls, 300.0)
        assert list(log.e2e_s) == [50.0, 50.0]
        assert log.resent == 0
        assert sorted(until for _, _, until in log.billed()) == [140.0, 300.0]

    def test_a_drain_has_a_deadline(self) -> None:
        """After drain_s the rest is sent again elsewhere."""
        hours = Hours(from_s=0.0, to_s=100.0, replicas=Range(low=2, high=2))
        calls = [Arrival(90.0, Request(5, 50)), Arrival(90.0, Request(5, 50))]
        log = ran(fleet(pool(1, schedule=(hours,)), drain_s=20.0), calls, 300.0)
        assert sorted(log.e2e_s) == [50.0, 80.0]
        assert log.resent == 1

    def test_a_withdrawn_replica_is_replaced(self) -> None:
        """Spot: another is ordered at the notice and the number is kept."""
        one = pool(2, spot=Spot(interruptions_per_day=100.0, notice_s=30.0))
        log = ran(fleet(one), steady(0.2, 100, Request(5, 5)))
        assert log.interruptions > 0
        last = {at: count for at, _, count, _ in log.counts}
        assert set(last.values()) == {2}
        assert set(log.outcome) == {0}

    def test_patience_ends(self) -> None:
        """Nothing ever takes the request: it times out, and not a moment late."""
        log = ran(fleet(pool(0), timeout_s=50.0), [Arrival(5.0, Request(5, 5))])
        assert [ERRORS[o] for o in log.outcome] == ["timeout"]
        assert log.end_s == 55.0

    def test_a_full_router_sheds(self) -> None:
        """Two at most on the one replica: the third of three at once is answered 429."""
        log = ran(fleet(pool(1), max_outstanding=2), [Arrival(0.0, Request(5, 5))] * 3)
        assert [ERRORS[o] for o in log.outcome] == ["http_429", "", ""]

    def test_a_spare_replica_stands_beside_those_needed(self) -> None:
        """N+1 of two is three."""
        assert len(ran(fleet(pool(2, spare=1)), [Arrival(0.0, Request(1, 1))]).replicas) == 3

    def test_the_bigger_pool_gets_more(self) -> None:
        """Least load weighs: a replica that carries three times as much gets three times as many."""
        config = fleet(pool(1, name="small"), pool(1, name="big", weight=3.0))
        chosen = fleet_shares(config)
        assert chosen == {"small": 10, "big": 30}

    def test_too_many_misses_end_the_run(self) -> None:
        """A search gives up as soon as the service level cannot be kept any more."""
        calls = steady(10.0, 2_000, Request(1, 5))
        one = pool(1, config=engine_limits(max_num_seqs=1))
        log = ran(fleet(one), calls, slo=Slo(ttft_ms=2000), misses_allowed=20.0)
        assert log.abandoned
        assert len(log) < 100
        assert not keeps(log, Slo(ttft_ms=2000))


def fleet_shares(config: FleetConfig) -> dict[str, int]:
    """Requests in flight by pool after forty at once."""
    simulated = Fleet(config, [one_second] * 2, seed=0)
    simulated.scaling.begin()
    for _ in range(40):
        simulated._arrive(Arrival(0.0, Request(5, 5)), 0.0)
    return {replica.pool.name: replica.outstanding for replica in simulated.lives.ready}

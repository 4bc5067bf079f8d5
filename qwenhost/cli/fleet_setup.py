"""From the options of ``qwenhost simulate`` to a fleet and its load."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.cli import fleet_options as parse
from qwenhost.cli.simulation_setup import plan_of, planned_engine, workload_of
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from qwenhost.facts import Catalog, Slo, Workload
    from qwenhost.plan import Plan, StepShape
    from qwenhost.simulate.fleet_config import FleetConfig, Pool, StartUp
    from qwenhost.simulate.fleet_demand import Demand
    from qwenhost.simulate.load import Arrival

PHASES = ("machine", "process", "weights", "compile", "graphs")


@dataclass(frozen=True)
class Work:
    """What is sent."""

    name: str
    calls: Callable[[], Iterable[Arrival]]
    """The same requests each time."""
    expected: float
    """How many, about."""
    horizon_s: float
    peak_rate: float
    """Requests per second in the busiest stretch."""
    notes: tuple[str, ...]
    demand: Demand | None = None
    rate_at: Callable[[float], float] | None = None
    """Requests per second at an instant, where a curve is known: drawn from it, or seen in a trace."""
    sizes: Workload | None = None
    """A trace's own sizes, to measure a replica by."""

    def rate_between(self, since_s: float, until_s: float) -> float:
        """Mean requests per second, by the curve at a few instants."""
        if self.rate_at is None:
            return self.expected / max(self.horizon_s, 1e-9)
        step = (until_s - since_s) / 4
        return sum(self.rate_at(since_s + step * (number + 0.5)) for number in range(4)) / 4


@dataclass(frozen=True)
class Setup:
    """A fleet, ready to be run."""

    config: FleetConfig
    step_times: tuple[Callable[[StepShape], float], ...]
    engines: Mapping[str, str]
    gpus: Mapping[str, str]
    plans: tuple[Plan, ...]
    workload: Workload
    slo: Slo
    work: Work
    notes: tuple[str, ...] = field(default=())


def wants_fleet(options: Mapping[str, Any]) -> bool:
    """Whether more is asked for than one engine."""
    asked = ("fleet_replicas", "pools", "autoscale", "schedules", "fail_mtbf", "spot", "days", "find_fleet",
             "max_outstanding", "spare", "html", "save")  # fmt: skip
    return any(options[name] for name in asked)


def fleet_setup(known: Catalog, options: Mapping[str, Any]) -> Setup:
    """Pools, rules and load.

    Raises:
        BadInputError: what does not go together, or is not understood.
    """
    from qwenhost.simulate.fleet_config import FleetConfig

    _check(options)
    parts = [_pool(known, options, text) for text in options["pools"] or (None,)]
    pools = _named([pool for pool, _, _ in parts])
    plans = tuple(plan for _, plan, _ in parts)
    workload = workload_of(known, plans[0], {**options})
    config = FleetConfig(
        pools=pools,
        routing=options["routing"],
        timeout_s=options["timeout_s"],
        max_outstanding=options["max_outstanding"],
    )
    return Setup(
        config=config,
        step_times=tuple(step_time for _, _, step_time in parts),
        engines={pool.name: plan.chosen.label for pool, plan in zip(pools, plans, strict=True)},
        gpus={pool.name: plan.inputs.node.description for pool, plan in zip(pools, plans, strict=True)},
        plans=plans,
        workload=workload,
        slo=parse.parse_slo(options["slo"] or "", workload.slo),
        work=_work(known, options, workload, pools[0]),
        notes=_notes(config, plans, workload, options),
    )


def start_up(known: Catalog, plan: Plan, text: str) -> StartUp:
    """Seconds of each phase from the plan's bytes and what is assumed of machines.

    Raises:
        BadInputError: neither ``cold`` nor ``warm`` nor seconds.
    """
    from qwenhost.simulate.fleet_config import StartUp

    assumed = {key: row.value for key, row in known.assumptions.items()}
    disk = plan.chosen.checkpoint.disk_bytes
    graphs = 0.0 if plan.chosen.engine_args.enforce_eager else assumed["start_graphs_s"]
    cold = (
        assumed["start_machine_s"], assumed["start_process_s"], disk / assumed["weights_read_bytes_per_s"],
        assumed["start_compile_cold_s"], graphs,
    )  # fmt: skip
    warm = (
        0.0, assumed["start_process_s"], disk / assumed["weights_warm_read_bytes_per_s"],
        assumed["start_compile_warm_s"], graphs,
    )  # fmt: skip
    by_phase = {name: dict(zip(PHASES, row, strict=True)) for name, row in (("cold", cold), ("warm", warm))}
    if text in by_phase:
        return StartUp(cold=by_phase[text], warm=by_phase["warm"])
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e7:
        raise BadInputError(f"--start-up {text!r}: expected cold, warm or seconds")
    return StartUp(cold={"given": seconds}, warm={"given": seconds})


def _check(options: Mapping[str, Any]) -> None:
    def refuse(message: str, remedy: str) -> None:
        raise BadInputError(message, remedy=remedy)

    if options["concurrency"]:
        refuse("--concurrency drives one engine", "Give a fleet --rate or --trace.")
    if options["ramp_up_s"]:
        refuse("--ramp-up has no effect on a fleet", "It is for the users of --concurrency.")
    if options["pools"] and (options["plan_file"] or options["gpus"] or options["fleet_replicas"]):
        refuse("--pool names plan, GPUs and replicas of each pool", "Leave --plan, --gpus, --replicas out.")
    if not options["trace_file"] and not options["rate"]:
        refuse("a fleet needs a load", "Give --rate R (with --days the day's mean), or --trace FILE.")
    if options["trace_file"] and options["days"]:
        refuse("a trace has its own length", "Leave --days out, or --trace.")
    if options["trace_file"] and options["rate"]:
        refuse("--rate and --trace exclude each other", "Give one of them.")
    if options["days"] and options["count"]:
        refuse("--days and --requests both say how long", "Give one of them.")


def _pool(
    known: Catalog, options: Mapping[str, Any], text: str | None
) -> tuple[Pool, Plan, Callable[[StepShape], float]]:
    from qwenhost.simulate.fleet_config import Failures, Pool

    given = parse.parse_pool(text) if text is not None else parse.PoolText("", {})
    values = given.values
    own = _own_options(options, given)
    plan = plan_of(known, own["plan_file"], own)
    config, step_time = planned_engine(known, plan, options["acceptance"])
    replicas = parse.parse_range(values.get("replicas") or options["fleet_replicas"] or "1", "--replicas")
    autoscale = parse.parse_autoscale(options["autoscale"]) if options["autoscale"] else None
    schedule = tuple(parse.parse_hours(row) for row in options["schedules"])
    if not options["find_fleet"]:
        _check_scaling(replicas.low, replicas.high, autoscale=autoscale is not None)
    engines = plan.chosen.parallelism.replicas
    gpus = max(1, len(plan.inputs.node.gpus) // engines)
    usd = _usd_per_hour(plan, own, gpus, engines)
    notice = known.assumptions["spot_notice_s"].value
    spot = values.get("spot") or options["spot"]
    mtbf = options["fail_mtbf"]
    pool = Pool(
        name=values.get("name") or f"{plan.inputs.node.description}",
        config=config,
        replicas=replicas,
        start=start_up(known, plan, values.get("start") or options["start_up"]),
        gpus_per_replica=gpus,
        usd_per_hour=usd,
        weight=plan.chosen.estimate.requests_per_s.value / engines,
        autoscale=autoscale if replicas.high > replicas.low or schedule else None,
        spare=int(values["spare"]) if values.get("spare", "").isdigit() else options["spare"],
        schedule=schedule,
        failures=Failures(mtbf_s=mtbf * 3600, repair_s=options["fail_repair"]) if mtbf else None,
        spot=parse.parse_spot(spot, notice) if spot else None,
    )
    return pool, plan, step_time


def _own_options(options: Mapping[str, Any], given: parse.PoolText) -> dict[str, Any]:
    """The options a pool's plan is made with; the fleet's rate is not one node's."""
    own = {**options, "rate": None}
    if given.what:
        is_file = given.what.endswith(".json") or Path(given.what).is_file()
        own |= {"plan_file": Path(given.what)} if is_file else {"gpus": given.what}
    if "tier" in given.values:
        own["gpu_tier"] = given.values["tier"]
    if "usd" in given.values:
        try:
            own["gpu_price"] = float(given.values["usd"])
        except ValueError:
            raise BadInputError(f"--pool usd={given.values['usd']}: no number") from None
    return own


def _usd_per_hour(plan: Plan, own: Mapping[str, Any], gpus: int, engines: int) -> float | None:
    """A saved plan keeps its price unless another is given."""
    if own.get("gpu_price") is not None:
        return float(own["gpu_price"]) * gpus
    return None if plan.chosen.usd_per_hour is None else plan.chosen.usd_per_hour / engines


def _check_scaling(low: int, high: int, *, autoscale: bool) -> None:
    if high > low and not autoscale:
        raise BadInputError(
            f"--replicas {low}..{high}: nothing says when to have how many",
            remedy="Add --autoscale in-flight=32, or give one number.",
        )


def _named(pools: list[Pool]) -> tuple[Pool, ...]:
    """Names told apart by a number."""
    seen: dict[str, int] = {}
    named = []
    for pool in pools:
        seen[pool.name] = seen.get(pool.name, 0) + 1
        again = seen[pool.name]
        named.append(msgspec.structs.replace(pool, name=f"{pool.name} #{again}") if again > 1 else pool)
    return tuple(named)


def _work(known: Catalog, options: Mapping[str, Any], workload: Workload, pool: Pool) -> Work:
    from itertools import islice

    from qwenhost.simulate.fleet_config import DAY_S
    from qwenhost.simulate.fleet_demand import Demand, calls, demand_assumptions
    from qwenhost.simulate.load import Arrival, arrival_times, assumptions, drawn_requests

    config, seed, rate = pool.config, options["seed"], options["rate"]
    if options["trace_file"]:
        return _trace_work(options, workload, pool)
    if not options["days"]:
        count = options["count"] or 1000

        def drawn() -> Iterable[Arrival]:
            times = arrival_times(options["arrivals"], rate, seed)
            pairs = zip(times, islice(drawn_requests(workload, config, seed), count), strict=False)
            return (Arrival(at, request) for at, request in pairs)

        return Work(workload.id, drawn, count, count / rate, rate, assumptions(workload))
    share = options["mean_over_peak"] or workload.mean_over_peak or known.assumptions["mean_over_peak"].value
    demand = Demand(
        mean_rate=rate, mean_over_peak=share, peak_hour=options["peak_hour"], weekend=options["weekend"]
    )
    horizon = options["days"] * DAY_S
    return Work(
        name=workload.id,
        calls=lambda: calls(workload, config, demand, horizon, seed),
        expected=demand.expected_requests(horizon),
        horizon_s=horizon,
        peak_rate=max(demand.rate_at(300.0 * step) for step in range(max(1, round(horizon / 300)))),
        notes=(*demand_assumptions(workload, config, demand), *assumptions(workload)),
        demand=demand,
        rate_at=demand.rate_at,
    )


def _trace_work(options: Mapping[str, Any], workload: Workload, pool: Pool) -> Work:
    from qwenhost.simulate.fleet_demand import seen_rate, sizes_of
    from qwenhost.simulate.trace import read_trace

    arrivals = read_trace(options["trace_file"], block_size=pool.config.block_size, limit=options["count"])
    span = max(arrivals[-1].at_s, 1e-9)
    rate_at, peak = seen_rate([arrival.at_s for arrival in arrivals], span)
    notes: tuple[str, ...] = ()
    if options["schedules"] or options["find_fleet"]:
        notes = ("hours of a schedule count from the trace's first request, taken as Monday 00:00",)
    return Work(
        options["trace_file"].name, lambda: arrivals, len(arrivals), span, peak, notes, rate_at=rate_at,
        sizes=sizes_of(arrivals, workload),
    )  # fmt: skip


def _notes(
    config: FleetConfig, plans: tuple[Plan, ...], workload: Workload, options: Mapping[str, Any]
) -> tuple[str, ...]:
    from qwenhost.simulate.fleet_demand import comes_in_sessions

    said = []
    for pool, plan in zip(config.pools, plans, strict=True):
        start = pool.start
        said.append(
            f"{pool.name}: an added replica takes {start.cold_s:,.0f} s to start ("
            + ", ".join(f"{name} {seconds:,.0f}" for name, seconds in start.cold.items() if seconds)
            + f"), a failed one {start.warm_s:,.0f} s"
        )
        used, there = plan.chosen.parallelism.world_size, len(plan.inputs.node.gpus)
        if used < there:
            said.append(f"{pool.name}: {used} of the node's {there} GPUs are used, all are paid")
    if options["routing"] in ("prefix-aware", "session-sticky") and not options["trace_file"]:
        drawn = options["days"] and comes_in_sessions(workload, config.pools[0].config)
        if not drawn:
            said.append(f"requests are drawn singly, so {options['routing']} routing acts as least load")
    return tuple(said)

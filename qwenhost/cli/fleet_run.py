"""``qwenhost simulate`` for fleets, and for the highest rate of one replica: run, price, show, write."""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.cli.fleet_setup import Setup, fleet_setup
from qwenhost.cli.output import console, say, write_json
from qwenhost.errors import BadInputError, InfeasibleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.facts import Catalog
    from qwenhost.simulate.fleet_config import Pool
    from qwenhost.simulate.fleet_rate import RateSearch
    from qwenhost.simulate.fleet_result import FleetRun
    from qwenhost.simulate.fleet_search import FleetSearch

SLACK = 1.2
"""A trial is given up once it has missed what this many times the expected requests would allow."""


def run_fleet(known: Catalog, options: dict[str, Any], *, as_json: bool) -> int:
    """Simulate the fleet asked for, or search the cheapest; the exit code.

    Raises:
        BadInputError: options that do not go together.
        InfeasibleError: no fleet keeps the service level.
    """
    for name in ("html", "save"):
        folder = options[name] and options[name].absolute().parent
        if folder and not folder.is_dir():
            raise BadInputError(f"--{name} {options[name]}: no such folder", remedy="Make the folder first.")
    setup = fleet_setup(known, options)
    search: FleetSearch | None = None
    curves: dict[str, RateSearch] = {}
    if options["find_fleet"]:
        search, curves = _found(setup, options)
        if search.chosen is None:
            _print(search, search.chosen, as_json=as_json)
            raise InfeasibleError("no fleet tried keeps the SLO", remedy="Loosen --slo, or add a --pool.")
        run = search.chosen
    else:
        with _progress(setup.work.expected, setup.work.horizon_s) as on_progress:
            run = _simulate(setup, setup.config.pools, options, on_progress=on_progress)
        if options["html"] and not options["trace_file"]:
            curves = _curves(setup, options)
    from qwenhost.cli.fleet_bill import with_api_bills

    run = with_api_bills(known, run, setup.workload, options)
    if search is not None:
        search = msgspec.structs.replace(search, chosen=run)
    _write(run, search, curves, options)
    _print(search, run, as_json=as_json)
    if options["slo"] is not None and not run.meets_slo:
        say(f"SLO missed: {run.kept_slo:.1%} of requests kept it, {setup.slo.percentile:g} % must.")
        return 5
    return 0


def find_replica_rate(known: Catalog, options: dict[str, Any], *, as_json: bool) -> int:
    """``--slo`` alone: the highest rate of one replica; the exit code.

    Raises:
        BadInputError: a load that leaves nothing to find.
    """
    from qwenhost.cli import fleet_options, fleet_view
    from qwenhost.cli.simulation_setup import plan_of, planned_engine, workload_of
    from qwenhost.simulate.fleet_rate import Bench, find_rate

    if options["concurrency"] or options["trace_file"]:
        raise BadInputError(
            "--slo alone searches the rate of a workload", remedy="Leave --concurrency and --trace out."
        )
    plan = plan_of(known, options["plan_file"], {**options, "rate": None})
    config, step_time = planned_engine(known, plan, options["acceptance"])
    workload = workload_of(known, plan, options)
    slo = fleet_options.parse_slo(options["slo"], workload.slo)
    bench = Bench(
        config=config, workload=workload, arrivals=options["arrivals"],
        requests=options["count"] or 2000, seed=options["seed"],
    )  # fmt: skip
    start = options["rate"] or plan.chosen.estimate.requests_per_s.value / plan.chosen.parallelism.replicas
    with _line() as tell:
        found = find_rate(
            bench, step_time, slo, start=start,
            on_point=lambda p: tell(f"{p.rate:.4g} requests/s: {p.kept_slo:.1%} kept the SLO"),
        )  # fmt: skip
    head = {"engine": plan.chosen.label, "gpus": plan.inputs.node.description, "workload": workload.id,
            "seed": options["seed"]}  # fmt: skip
    if as_json:
        tail = {"simulated": True, "basis": "modelled", **head, "search": found}
        write_json({"schema": "qwenhost.rate_search/1", **tail})
    else:
        fleet_view.show_rate(found, head)
    return 0 if found.found_rate is not None else 5


def _simulate(
    setup: Setup,
    pools: tuple[Pool, ...],
    options: dict[str, Any],
    *,
    misses_allowed: float = math.inf,
    on_progress: Callable[[float, int], None] | None = None,
) -> FleetRun:
    from qwenhost.simulate.fleet import Fleet
    from qwenhost.simulate.fleet_figures import FleetLabels, fleet_run

    config = msgspec.structs.replace(setup.config, pools=pools)
    by_name = dict(zip((pool.name for pool in setup.config.pools), setup.step_times, strict=True))
    started = time.perf_counter()
    fleet = Fleet(
        config, [by_name[pool.name] for pool in pools], seed=options["seed"], slo=setup.slo,
        misses_allowed=misses_allowed, on_progress=on_progress,
    )  # fmt: skip
    log = fleet.run(setup.work.calls(), horizon_s=setup.work.horizon_s)
    labels = FleetLabels(
        workload=setup.work.name, engines=setup.engines, gpus=setup.gpus, seed=options["seed"],
        assumptions=(*setup.work.notes, *setup.notes),
    )  # fmt: skip
    return fleet_run(config, log, labels, started)


def _found(setup: Setup, options: dict[str, Any]) -> tuple[FleetSearch, dict[str, RateSearch]]:
    """The cheapest fleet, run once more with everything that may break."""
    from qwenhost.simulate import fleet_search as searching

    with _line() as tell:
        tell("what one replica carries...")
        curves = _curves(setup, options)
        candidates = []
        for pool in setup.config.pools:
            point = curves[pool.name].found
            if point is not None:
                in_flight = point.rate * (point.e2e_ms.mean or 0.0) / 1000
                candidates.append(searching.Candidate(pool, point.rate, in_flight))
        allowed = (1 - setup.slo.percentile / 100) * setup.work.expected * SLACK

        def trial(pools: tuple[Pool, ...]) -> FleetRun | None:
            # With a spare replica, one that is down is made up for: capacity is judged without failures.
            whole = tuple(
                msgspec.structs.replace(pool, failures=None) if setup.config.pools[0].spare else pool
                for pool in pools
            )
            run = _simulate(setup, whole, options, misses_allowed=allowed)
            return run if run.meets_slo else None

        demand = setup.work.demand
        load = searching.Load(setup.work.peak_rate, None if demand is None else demand.rate_at)
        search = searching.Search(candidates, load, trial, lambda label: tell(f"trying {label}"))
        pools, label, tried = search.run()
        chosen = None if pools is None else _simulate(setup, pools, options)
    reasons = searching.why(tried, label, candidates, load)
    return searching.FleetSearch(chosen=chosen, label=label, why=reasons, tried=tried), curves


def _curves(setup: Setup, options: dict[str, Any]) -> dict[str, RateSearch]:
    """Latency against load of one replica of each pool."""
    from qwenhost.simulate.fleet_rate import Bench, find_rate

    return {
        pool.name: find_rate(
            Bench(config=pool.config, workload=setup.workload, seed=options["seed"]),
            step_time, setup.slo, start=pool.weight,
        )
        for pool, step_time in zip(setup.config.pools, setup.step_times, strict=True)
    }  # fmt: skip


def _write(
    run: FleetRun, search: FleetSearch | None, curves: dict[str, RateSearch], options: dict[str, Any]
) -> None:
    from qwenhost.files import write_atomically
    from qwenhost.simulate.fleet_result import fleet_to_json

    if options["save"]:
        write_atomically(options["save"], fleet_to_json(run))
        say(f"Run: {options['save']}")
    if options["html"]:
        from qwenhost.report.fleet_page import fleet_html

        page = fleet_html(run, search, curves)
        write_atomically(options["html"], page.encode())
        say(f"Page: {options['html']}")


def _print(search: FleetSearch | None, run: FleetRun | None, *, as_json: bool) -> None:
    from qwenhost.cli import fleet_view

    if as_json:
        write_json(run if search is None else search)
        return
    if search is not None:
        fleet_view.show_search(search)
    if run is not None:
        fleet_view.show_run(run)


@contextmanager
def _progress(expected: float, horizon_s: float) -> Iterator[Callable[[float, int], None] | None]:
    """A bar on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("simulating", total=max(expected, 1))

        def tell(now: float, settled: int) -> None:
            bar.update(
                task,
                completed=settled,
                description=f"simulating {now / 3600:.1f} of {horizon_s / 3600:.1f} h",
            )

        yield tell


@contextmanager
def _line() -> Iterator[Callable[[str], None]]:
    """A line that changes in place on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.status import Status

    with Status("searching", console=console(stderr=True)) as status:
        yield status.update

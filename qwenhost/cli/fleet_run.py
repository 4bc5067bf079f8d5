"""``qwenhost simulate`` for fleets, and for the highest rate of one replica: run, price, show, write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.cli.fleet_setup import fleet_setup
from qwenhost.cli.fleet_trial import curves_of, line, progress, simulate
from qwenhost.cli.output import say, write_json
from qwenhost.errors import BadInputError, InfeasibleError

if TYPE_CHECKING:
    from qwenhost.facts import Catalog
    from qwenhost.simulate.fleet_rate import RateSearch
    from qwenhost.simulate.fleet_result import FleetRun
    from qwenhost.simulate.fleet_search import FleetSearch

INTERRUPTED = 130


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
        from qwenhost.cli.fleet_finding import found_fleet

        search, curves = found_fleet(setup, options)
        if search.chosen is None:
            _print(search, search.chosen, as_json=as_json)
            if search.interrupted:
                return INTERRUPTED
            raise InfeasibleError("no fleet tried keeps the SLO", remedy="Loosen --slo, or add a --pool.")
        run = search.chosen
    else:
        with progress(setup.work.expected, setup.work.horizon_s) as on_progress:
            run = simulate(setup, setup.config.pools, options, on_progress=on_progress)
        if options["html"]:
            curves = curves_of(setup, options)
    from qwenhost.cli.fleet_bill import with_api_bills

    run = with_api_bills(known, run, setup.workload, options)
    if search is not None:
        search = msgspec.structs.replace(search, chosen=run)
    _write(run, search, curves, options)
    _print(search, run, as_json=as_json)
    if search is not None and search.interrupted:
        return INTERRUPTED
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

    if options["concurrency"] or options["trace_file"] or options["ramp_up_s"]:
        raise BadInputError(
            "--slo alone searches the rate of a workload",
            remedy="Leave --concurrency, --ramp-up and --trace out.",
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
    with line() as tell:
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

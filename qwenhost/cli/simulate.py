"""``qwenhost simulate``: a plan against a load, in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from qwenhost.cli import wiring
from qwenhost.cli.fleet_options import fleet_options
from qwenhost.cli.options import (
    json_option,
    load_options,
    node_options,
    pin_options,
    price_options,
    workload_options,
)
from qwenhost.cli.output import console, write_json
from qwenhost.cli.pricing_options import api_options
from qwenhost.cli.ranges import FloatRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.facts import Catalog
    from qwenhost.simulate.virtual import Simulation

F = TypeVar("F", bound="Callable[..., Any]")


def _some(options: Callable[[F], F], wanted: Callable[[str], bool]) -> Callable[[F], F]:
    """Shared options, but only those whose names are wanted here."""

    def apply(function: F) -> F:
        before = list(vars(function).get("__click_params__", ()))
        function = options(function)
        added = [param for param in vars(function)["__click_params__"] if param not in before]
        vars(function)["__click_params__"] = before + [param for param in added if wanted(param.name)]
        return function

    return apply


BILLED = ("baselines", "as_of", "cache", "batch", "residency")


@click.command("simulate")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="Plan saved by qwenhost plan.")
@node_options
@workload_options
@load_options
@click.option(
    "--trace", "trace_file", type=click.Path(path_type=Path),
    help="Recorded arrivals: JSON lines (ours, Mooncake) or CSV (Azure, BurstGPT).",
)  # fmt: skip
@click.option(
    "--arrivals", default="poisson", show_default=True, type=click.Choice(["poisson", "constant"]),
    help="Law of --rate.",
)  # fmt: skip
@click.option(
    "--requests", "count", type=click.IntRange(1), help="Requests to send.  [default: 1000, or the trace's]"
)
@click.option("--ramp-up", "ramp_up_s", type=FloatRange(0), default=0.0, metavar="S",
              help="Let --concurrency users begin evenly over this time.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of everything drawn.")
@click.option(
    "--acceptance", metavar="A1,A2", help="Accepted share by draft position, where the plan drafts."
)
@fleet_options
@price_options
@_some(api_options, lambda name: name in BILLED)
@_some(pin_options, lambda name: name != "replicas")  # here it counts a fleet's, not engines on one node
@json_option
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    r"""Simulate the planned engine, or a fleet of them, under a load: latency, throughput, cache use, cost.

    The scheduler is vLLM's, the step times are the speed model's. Every figure is modelled, none measured.
    Without --rate, --concurrency or --trace the plan's own concurrency is held. --replicas, --pool and --days
    make a fleet: how many replicas when, what it costs a day, and what an API charges for the same requests.

    Exit codes: 0 done, 2 bad input, 3 no fleet keeps the SLO, 5 an SLO given with --slo was missed.

    \b
    qwenhost simulate --gpus 2xH200 --workload chat --rate 8
    qwenhost simulate --plan plan.json --trace AzureLLMInferenceTrace_conv.csv
    qwenhost simulate --gpus 2xH200 --workload chat --slo
    qwenhost simulate --gpus 2xH200 --slo ttft=1000,tpot=30,p=95 --json
    qwenhost simulate --gpus 2xH200 --replicas 1..8 --autoscale in-flight=99 --days 1 --rate 60 --html f.html
    qwenhost simulate --plan plan.json --replicas 4 --spare 1 --fail-mtbf 500 --trace week.jsonl --slo
    qwenhost simulate --gpus 2xH200 --replicas 2 --schedule "mon-fri 08:00-20:00=6" --days 7 --rate 60
    qwenhost simulate --pool 2xH200 --pool 2xH200,tier=spot,spot=2 --days 1 --rate 60 --find-fleet
    """
    from qwenhost.cli.plan_file import refuse_what_is_decided
    from qwenhost.cli.simulation_setup import simulated

    if options["plan_file"]:
        refuse_what_is_decided(options["plan_file"])
        if ctx.get_parameter_source("workload") is ParameterSource.DEFAULT:
            options["workload"] = None  # the plan's own
    fleet = _fleet(wiring.catalog(ctx), options, as_json=as_json)
    if fleet is not None:
        ctx.exit(fleet)
    result = simulated(wiring.catalog(ctx), options)
    if as_json:
        write_json(result)
    else:
        _show(result)


def _fleet(known: Catalog, options: dict[str, Any], *, as_json: bool) -> int | None:
    """The exit code of a fleet's run or of a search for the rate; None for one engine under a load."""
    from qwenhost.cli import fleet_run, fleet_setup

    if fleet_setup.wants_fleet(options):
        return fleet_run.run_fleet(known, options, as_json=as_json)
    if options["slo"] is not None:
        return fleet_run.find_replica_rate(known, options, as_json=as_json)
    return None


def _show(result: Simulation) -> None:
    from rich.table import Table

    out = console()
    load = result.load
    offered = f"{load.rate:g} requests/s" if load.kind == "open" else f"{load.concurrency} at once"
    out.print(f"[bold]SIMULATED[/bold] {result.engine} on {result.gpus}: {offered}")
    table = Table("ms", "mean", "p50", "p90", "p99", box=None)
    for name in ("ttft", "tpot", "itl", "e2e"):
        row = getattr(result, f"{name}_ms")
        values = (row.mean, row.p50, row.p90, row.p99)
        table.add_row(name.upper(), *("-" if value is None else f"{value:,.1f}" for value in values))
    out.print(table)
    out.print(
        f"{result.output_tokens_per_s:,.0f} output tokens/s, {result.request_per_s:,.2f} requests/s; "
        f"{result.requests.completed} done, {result.requests.failed} refused, "
        f"{result.preemptions} preemptions"
    )
    out.print(
        f"cache held {result.kv_cache_usage:.0%} on average, {result.kv_cache_usage_max:.0%} at most; "
        f"running {result.running_mean:,.1f} on average; prefix hits {result.prefix_cache_hit_rate:.0%}"
    )
    if result.goodput is not None:
        out.print(f"{result.goodput.fraction:.1%} of requests within the service level")
    for assumption in result.assumptions:
        out.print(f"[dim]assumed: {assumption}[/dim]")

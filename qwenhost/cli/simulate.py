"""``qwenhost simulate``: a plan against a load, in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from qwenhost.cli import wiring
from qwenhost.cli.options import json_option, load_options, node_options, pin_options, workload_options
from qwenhost.cli.output import console, write_json

if TYPE_CHECKING:
    from qwenhost.simulate.virtual import Simulation


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
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of everything drawn.")
@click.option(
    "--acceptance", metavar="A1,A2", help="Accepted share by draft position, where the plan drafts."
)
@pin_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    r"""Simulate the planned engine under a load: latency, throughput, preemptions, cache use.

    The scheduler is vLLM's, the step times are the speed model's. Every figure is modelled, none measured.
    Without --rate, --concurrency or --trace the plan's own concurrency is held.

    \b
    qwenhost simulate --gpus 2xH200 --workload chat --rate 8
    qwenhost simulate --plan plan.json --concurrency 64 --requests 5000 --json
    qwenhost simulate --plan plan.json --trace AzureLLMInferenceTrace_conv.csv
    """
    from qwenhost.cli.simulation_setup import simulated

    if ctx.get_parameter_source("workload") is ParameterSource.DEFAULT and options["plan_file"]:
        options["workload"] = None  # the plan's own
    result = simulated(wiring.catalog(ctx), options)
    if as_json:
        write_json(result)
    else:
        _show(result)


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

"""``qwenhost compare``: both sides priced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qwenhost.cli import pricing, wiring
from qwenhost.cli.options import (
    json_option,
    load_options,
    node_options,
    objective_option,
    pin_options,
    price_options,
    workload_options,
)
from qwenhost.cli.pricing_options import api_options, self_host_options
from qwenhost.cli.ranges import FloatRange
from qwenhost.errors import BadInputError


@click.command("compare")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    help="Plan by qwenhost plan --save; else one is made.",
)
@click.option(
    "--measurements",
    "measurements_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Run by qwenhost probe --save; without it the plan's prediction is priced. Of several, at different "
    "loads, the one with the most goodput is priced.",
)
@click.option(
    "--workloads",
    metavar="NAME,NAME...",
    help="Several presets side by side in one table, each with its own plan for the GPUs of --gpus.",
)
@click.option(
    "--usage",
    "usage_file",
    type=click.Path(path_type=Path),
    help="Recorded requests in place of a workload's sizes, rhythm and volume: formats as in qwenhost cost; "
    "--workload then gives the service level.",
)
@click.option(
    "--engine",
    type=click.Choice(["vllm", "simulated"]),
    help="Serve the plan here, measure it, stop it, and price that; simulated needs no GPU.",
)
@click.option(
    "--duration",
    "duration_s",
    type=FloatRange(5, 86400),
    help="Seconds of load with --engine.  [default: four requests' length, 30 at least]",
)
@click.option("--vllm-bin", envvar="QWENHOST_VLLM_BIN", help="vLLM's program. Also QWENHOST_VLLM_BIN.")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for plan.json, measurements.json, comparison.json and report.html.",
)
@click.option("--save", type=click.Path(path_type=Path), help="File for the comparison (JSON).")
@click.option(
    "--csv",
    "csv_dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for every table as CSV.",
)
@click.option("--html", type=click.Path(path_type=Path), help="File for the report (HTML).")
@self_host_options
@api_options
@node_options
@workload_options
@load_options
@price_options
@objective_option("What a new plan is chosen for.")
@pin_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    plan_file: Path | None,
    measurements_files: tuple[Path, ...],
    usage_file: Path | None,
    workloads: str | None,
    output_dir: Path | None,
    save: Path | None,
    html: Path | None,
    csv_dir: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    r"""Price self-hosting against Claude Sonnet 4.6 and hosted Qwen, with the break-even volume.

    Without measurements the plan's prediction is priced. With --engine the whole job is done: plan,
    serve, probe, compare, report.

    \b
    qwenhost compare --gpus 2xH200 --workload chat --requests-per-day 50000
    qwenhost compare --plan plan.json --measurements run.json --html report.html
    qwenhost compare --gpus 2xH200 --workloads chat,coding_agent,thinking_chat
    qwenhost compare --gpus 2xH200 --usage requests.jsonl
    qwenhost compare --engine vllm --workload coding_agent --output-dir verdict
    """
    from qwenhost.cli import live

    known = wiring.catalog(ctx)
    if workloads is not None:
        single = [
            plan_file,
            usage_file,
            output_dir,
            save,
            html,
            csv_dir,
            options["engine"],
            *measurements_files,
        ]
        pricing.side_by_side(ctx, known, workloads.split(","), options, single=any(single), as_json=as_json)
        return
    if options["duration_s"] is not None and not options["engine"]:
        raise BadInputError(
            "--duration has no effect without --engine", remedy="Add --engine, or leave it out."
        )
    files = live.Files.within(output_dir, comparison=save, report=html)
    if usage_file:
        known = pricing.with_trace(known, usage_file, options)
    known = pricing.with_pictures(known, options, file=plan_file or usage_file)
    plan, workload = pricing.plan_and_workload(ctx, known, plan_file, {**options, "usage_file": usage_file})
    runs = live.measurements(
        ctx, plan, workload, options, measured_before=measurements_files, files=files, quiet=as_json
    )
    comparison = pricing.make_comparison(ctx, known, plan=plan, workload=workload, runs=runs, options=options)
    pricing.deliver(comparison, save=files.comparison, html=files.report, csv_dir=csv_dir, as_json=as_json)

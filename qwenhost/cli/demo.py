"""``qwenhost demo``: the main job once, on a simulated engine, with nothing but this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qwenhost.cli.options import json_option, load_options, node_options, workload_options
from qwenhost.cli.ranges import FloatRange


@click.command("demo")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for plan.json, measurements.json, comparison.json and report.html.",
)
@click.option(
    "--duration",
    "duration_s",
    type=FloatRange(5, 86400),
    help="Seconds of load.  [default: four requests' length, 30 at least]",
)
@node_options
@workload_options
@load_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    r"""Plan, serve, probe and compare for 2xH200 on a simulated engine, and write the report.

    The engine's speed is the plan's prediction, not a measurement, and everything made from it says so.
    The same steps on this machine's own GPUs: qwenhost compare --engine vllm.

    \b
    qwenhost demo
    qwenhost demo --gpus 8xH100-80GB --workload thinking_chat --output-dir thinking
    """
    from qwenhost.cli.compare import command as compare
    from qwenhost.cli.output import hint

    ctx.invoke(compare, **{**options, "gpus": options["gpus"] or "2xH200"}, engine="simulated")
    hint(f"Open {options['output_dir'] / 'report.html'} in a browser.")

"""``qwenhost _simulated-engine``: the process the supervisor starts in place of vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qwenhost.cli import wiring
from qwenhost.cli.ranges import FloatRange


@click.command("_simulated-engine")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), required=True, help="Saved plan.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 picks one.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with one key per line.")
@click.option("--middleware", metavar="MODULE.CLASS", help="ASGI class in front of the API, as vLLM's.")
@click.option("--ssl-certfile", type=click.Path(), help="Certificate, to speak TLS.")
@click.option("--ssl-keyfile", type=click.Path(), help="Its key.")
@click.option("--served-model-name", "names", multiple=True, help="Name to answer as; repeatable.")
@click.option("--startup-seconds", default=2.0, show_default=True, type=FloatRange(0), help="To ready.")
@click.option("--shutdown-timeout", default=30.0, show_default=True, type=FloatRange(0), help="To drain.")
@click.option(
    "--fault", "faults", multiple=True, envvar="QWENHOST_SIMULATED_FAULTS", help="KIND[:PROBABILITY]."
)
@click.option(
    "--speedup", default=1.0, show_default=True, type=FloatRange(0, min_open=True),
    help="Simulated seconds per second.",
)  # fmt: skip
@click.option("--acceptance", metavar="A1,A2", help="Accepted share by draft position.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of everything drawn.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    r"""Serve a simulated engine for a plan on vLLM's HTTP API.

    \b
    qwenhost _simulated-engine --plan plan.json --port 8000 --fault 503:0.1
    """
    from qwenhost.cli.simulation_setup import serve_simulated

    serve_simulated(wiring.catalog(ctx), options)

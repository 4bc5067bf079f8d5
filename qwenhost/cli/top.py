"""``qwenhost top``: what a service does right now, and what it has cost so far."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.options import json_option
from qwenhost.cli.output import write_json
from qwenhost.cli.ranges import FloatRange

if TYPE_CHECKING:
    from qwenhost.cli.top_view import Screen


@click.command(name="top")
@click.argument("name", default="default")
@click.option("--interval", type=FloatRange(0.2), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="One look, over one interval, and out.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="Its first key is used.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, *, name: str, interval: float, once: bool, as_json: bool, **options: Any
) -> None:
    r"""Watch the service NAME ("default" unless given): load, latency, GPUs, cost so far.

    Latencies are those of the last interval, from the engine's histograms; GPU figures are NVML's, with Xid
    faults since the command began. The rent is the plan's; beside it
    stands what the same tokens would have cost at Claude Sonnet's list rates, without its cache. A guarded
    service wants QWENHOST_API_KEY or --api-key-file. Ctrl-C ends it.

    \b
    qwenhost top
    qwenhost top prod --once --json
    """
    from qwenhost.cli.top_view import Watch, show
    from qwenhost.launcher.access import read_api_key

    watch = Watch(ctx, name, read_api_key(options["api_key_file"], os.environ))
    if once or as_json:
        _print(watch.look(interval), as_json=as_json)
        return
    show(watch, interval)


def _print(screen: Screen, *, as_json: bool) -> None:
    if as_json:
        write_json(screen.as_data())
    else:
        from qwenhost.cli.output import console

        console().print(screen.table())

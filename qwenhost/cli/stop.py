"""``qwenhost stop``: drain and end a service."""

from __future__ import annotations

import os

import click

from qwenhost.cli.options import json_option
from qwenhost.cli.output import write_json
from qwenhost.cli.ranges import FloatRange
from qwenhost.errors import BadInputError


@click.command(name="stop")
@click.argument("name", default="default")
@click.option("--force", is_flag=True, help="Do not wait for requests in flight.")
@click.option("--timeout", type=FloatRange(0), default=90.0, show_default=True, help="Seconds to wait.")
@json_option
def command(name: str, force: bool, timeout: float, as_json: bool) -> None:
    r"""Drain and stop the service NAME ("default" unless given), and wait until it has ended.

    \b
    qwenhost stop
    qwenhost stop prod --force
    """
    from qwenhost.launcher.service import stop
    from qwenhost.launcher.state import ServiceHome, state_root

    state = stop(ServiceHome(name, root=state_root(os.environ)), timeout_s=timeout, force=force)
    if state is None:
        raise BadInputError(f"no service named {name!r}", remedy="List them with: qwenhost status")
    if as_json:
        write_json(state)
    else:
        click.echo(f"{state.name}: {state.status}")

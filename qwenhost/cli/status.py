"""``qwenhost status``: the services started by this user on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from qwenhost.cli.options import json_option
from qwenhost.cli.output import console, write_json
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from qwenhost.launcher.state import ServiceState

WIDE = 100
_COLOURS = {"ready": "green", "failed": "red", "backoff": "yellow", "draining": "yellow"}


@click.command(name="status")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    r"""Show every service started here, or one by NAME with all its figures.

    \b
    qwenhost status
    qwenhost status prod --json
    """
    from qwenhost.launcher.state import current_state, service_homes, state_root

    homes = service_homes(state_root(os.environ))
    states = [state for home in homes if name in (None, home.name) and (state := current_state(home))]
    if name is not None and not states:
        raise BadInputError(f"no service named {name!r}", remedy="List them with: qwenhost status")
    if as_json:
        write_json(states[0] if name is not None else states)
    elif not states:
        click.echo("No service was started here. Start one with: qwenhost serve")
    else:
        _print_table(states)
        if name is not None:
            _print_details(states[0])


def _print_table(states: list[ServiceState]) -> None:
    from rich.markup import escape
    from rich.table import Table

    screen = console()
    table = Table(box=None, pad_edge=False)
    wide = screen.width >= WIDE
    for name in (
        "name",
        "status",
        *(("phase",) if wide else ()),
        "restarts",
        "url",
        *(("what runs",) if wide else ()),
    ):
        table.add_column(name, overflow="fold", no_wrap=name in {"restarts", "url"})
    for state in states:
        colour = _COLOURS.get(state.status, "default")
        table.add_row(
            state.name,
            f"[{colour}]{state.status}[/]",
            *((escape(state.progress),) if wide else ()),
            str(state.restarts),
            state.base_url,
            *((escape(state.label),) if wide else ()),
        )
    screen.print(table)


def _print_details(state: ServiceState) -> None:
    from qwenhost.launcher.deviation import describe

    ready = "not ready yet" if state.ready_s is None else f"ready after {state.ready_s} s"
    click.echo(f"started {state.started_at}, {ready}")
    if (expected := state.expected) is not None:
        span = (
            f"{expected.low_s:g} to {expected.high_s:g} s"
            if expected.low_s < expected.high_s
            else "one start"
        )
        click.echo(f"  expected: {expected.ready_s:g} s ({span}), {expected.basis}: {expected.source}")
    figures = {
        field: value
        for field in state.figures.__struct_fields__
        if (value := getattr(state.figures, field)) is not None
    }
    for field, value in figures.items():
        click.echo(f"  {field}: {value}")
    for deviation in state.deviations:
        click.echo(f"  differs from the plan: {describe(deviation)}")
    for change in state.fallbacks:
        click.echo(f"  fallback ({change.trigger}): {change.change}")
    if state.failure:
        click.echo(f"  last failure: {state.failure.message}")
        click.echo(f"    {state.failure.remedy}")

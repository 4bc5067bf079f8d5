"""``qwenhost logs``: the engine's log of a service."""

from __future__ import annotations

import os

import click

from qwenhost.cli.options import json_option


@click.command(name="logs")
@click.argument("name", default="default")
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come, until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(0), help="Only the last N lines.")
@json_option
def command(name: str, follow: bool, lines: int | None, as_json: bool) -> None:
    r"""Print or follow a service's log; NAME is "default" unless given.

    \b
    qwenhost logs -n 50
    qwenhost logs prod -f
    """
    from qwenhost.launcher.log_reader import read_lines
    from qwenhost.launcher.state import ServiceHome, state_root

    home = ServiceHome(name, root=state_root(os.environ))
    for line in read_lines(home, last=lines, follow=follow):
        click.echo(_as_json(line) if as_json else line)


def _as_json(line: str) -> str:
    import msgspec

    from qwenhost.launcher.phases import split_line

    return msgspec.json.encode(split_line(line)).decode()

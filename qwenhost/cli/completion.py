"""``qwenhost completion``: Click's own completion scripts, under a name that people look for."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from qwenhost.cli.options import json_option
from qwenhost.cli.output import write_json

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
def command(shell: str, as_json: bool) -> None:
    r"""Print what makes a shell complete this command's names and options.

    \b
    eval "$(qwenhost completion bash)"     in ~/.bashrc
    eval "$(qwenhost completion zsh)"      in ~/.zshrc
    qwenhost completion fish | source      in ~/.config/fish/config.fish
    """
    from qwenhost.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - Click knows all three
    script = kind(cli, {}, "qwenhost", "_QWENHOST_COMPLETE").source()
    if as_json:
        write_json({"schema": "qwenhost.completion/1", "shell": shell, "script": script})
    else:
        click.echo(script)

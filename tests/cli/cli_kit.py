"""The command line run in this process: what came out, as text and as data."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.main import COMMANDS, cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Cli = Callable[..., "Outcome"]


PROBED_REQUESTS, PROBED_OUT = 10, 4
PROBED = (
    "--requests", PROBED_REQUESTS, "--concurrency", 2, "--input-tokens", 40, "--output-tokens", PROBED_OUT,
    "--warmup", 0, "--seed", 7,
)  # fmt: skip
"""A small run of the probe."""


@dataclass(frozen=True)
class Outcome:
    """What one command gave."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON on stdout; nothing else may stand there."""
        return json.loads(self.out)

    @property
    def text(self) -> str:
        """Stdout in one line, so that wrapping does not matter."""
        return " ".join(self.out.split())

    def refused(self, *words: str, code: int = 2) -> None:
        """One error with these words on stderr, this exit code, nothing on stdout, no traceback."""
        assert self.code == code, (self.code, self.out, self.err)
        assert sum(line.startswith("Error: ") for line in self.err.splitlines()) == 1, self.err
        assert "Traceback" not in self.err
        assert self.out == ""
        said = " ".join(self.err.split())
        for word in words:
            assert word in said, (word, said)

    def row(self, first: str) -> list[str]:
        """The cells of a table's first row that begins with ``first``, split at two blanks or more."""
        line = next(line for line in self.out.splitlines() if line.strip().startswith(first))
        return [cell.strip() for cell in line.strip().split("  ") if cell.strip()]


def leaves() -> Iterator[tuple[str, ...]]:
    """Every command that does something, by its words."""
    context = click.Context(cli)
    for name in COMMANDS:
        found = cli.get_command(context, name)
        if isinstance(found, click.Group):
            yield from ((name, inner) for inner in found.commands)
        else:
            yield (name,)


def command_of(words: tuple[str, ...]) -> click.Command:
    """The command of these words."""
    found: click.Command | None = cli
    for word in words:
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(cli), word)
    assert found is not None
    return found


def examples(command: click.Command) -> list[list[str]]:
    """The examples of a command's help, as words; comments after three blanks and pipes are cut."""
    found = []
    for line in (command.help or "").splitlines():
        # Behind a pipe or in $(...) it is an example too; in the middle of a sentence it is none.
        shown = re.search(r"(?:^\s*|\| |\$\()(qwenhost .+?)(?:   .*| [|>] .*|\)\".*)?$", line)
        if shown:
            found.append(shlex.split(shown[1]))
    return found

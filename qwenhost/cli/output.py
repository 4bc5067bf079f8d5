"""What every command prints with: JSON on stdout, words for people, progress on stderr."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console


def write_json(value: Any) -> None:
    """A msgspec value (or plain data) as indented JSON on stdout."""
    data = value if isinstance(value, bytes) else msgspec.json.encode(value)
    click.echo(msgspec.json.format(data, indent=2).decode().rstrip())


def console(*, stderr: bool = False) -> Console:
    """A rich console: no colour when piped or NO_COLOR is set, 60 columns at least."""
    from rich.console import Console as RichConsole

    stream = sys.stderr if stderr else sys.stdout
    asked = os.environ.get("COLUMNS", "")
    width = None if stream.isatty() else max(60, int(asked) if asked.isdecimal() else 100)
    return RichConsole(stderr=stderr, highlight=False, width=width)


def say(line: str) -> None:
    """A line of progress for people, on stderr."""
    click.echo(line, err=True)


def hint(line: str) -> None:
    """What to do next, on stderr and only for a person at a terminal."""
    if sys.stderr.isatty():
        click.echo(click.style(line, dim=True), err=True)


def require_folders(files: Mapping[str, Path | None]) -> None:
    """That each file of an option can be begun where it is to lie; asked before any work is done.

    Raises:
        BadInputError: there is no such folder.
    """
    for flag, file in files.items():
        if file is not None and not os.path.isdir(file.absolute().parent):  # noqa: PTH112 - long names too
            raise BadInputError(f"{flag} {file}: no such folder", remedy="Make the folder first.")


def make_folder(folder: Path, *, option: str) -> None:
    """The folder that ``option`` names, with those above it.

    Raises:
        BadInputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"{option} {folder}: {error.strerror}", remedy="Name a folder you may write to."
        ) from error

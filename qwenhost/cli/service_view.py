"""How a start is shown: one live line on a terminal, plain lines when piped, JSON lines on request."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from qwenhost.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.launcher.events import ServiceEvent

_QUIET = frozenset({"progress", "failed"})
_NEWS = frozenset({"fallback", "failure", "restart", "deviation", "unhealthy"})


class JsonView:
    """One JSON object per line on stdout."""

    def show(self, event: ServiceEvent) -> None:
        """Print at once."""
        click.echo(msgspec.json.encode(event).decode())
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing to undo."""


class PlainView:
    """A line per change on stderr."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._on_ready = on_ready

    def show(self, event: ServiceEvent) -> None:
        """Print all but mere counts."""
        if event.kind not in _QUIET:
            click.echo(f"[{format_seconds(event.elapsed_s):>10}] {event.message}", err=True)
        if event.kind == "ready":
            self._on_ready()

    def close(self) -> None:
        """Nothing to undo."""


class LiveView:
    """One line that changes in place, with the time elapsed; news above it."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._on_ready = on_ready
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None)

    def show(self, event: ServiceEvent) -> None:
        """Move the line; print what must stay."""
        from rich.markup import escape

        if event.kind in ("ready", "stopped", "failed"):
            self._progress.stop()
        elif event.kind == "start":
            self._progress.reset(self._task)
            self._progress.start()
        if event.kind in _NEWS or event.kind in ("ready", "stopping"):
            colour = "yellow" if event.kind in _NEWS else "green"
            self._console.print(f"[{colour}]{event.kind}[/] ", escape(event.message), sep="", markup=True)
        elif event.kind == "expected":
            self._console.print(f"[dim]{escape(event.message)}[/]")
            return
        self._progress.update(self._task, description=event.message)
        if event.kind == "ready":
            self._on_ready()

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.stop()


def view(*, as_json: bool, on_ready: Callable[[], None]) -> JsonView | PlainView | LiveView:
    """The one that fits where the output goes; ``on_ready`` tells people what to do next."""
    if as_json:
        return JsonView()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return LiveView(on_ready)
    return PlainView(on_ready)

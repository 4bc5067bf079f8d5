"""``qwenhost probe --sweep``, ``--find-rate`` and ``--find-concurrency``: options in, table and files out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from qwenhost.cli.output import console, say, write_json
from qwenhost.cli.probe_view import live_progress
from qwenhost.cli.ranges import FloatRange
from qwenhost.errors import BadInputError
from qwenhost.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.probe import ProbeConfig
    from qwenhost.probe.bench import Axis, Point
    from qwenhost.probe.sweep import Sweep

_ABOVE_ZERO = FloatRange(0, min_open=True)
_OPTIONS = (
    click.option(
        "--sweep", metavar="AXIS=A,B,...", help="Several loads: concurrency=1,2,4,8 or rate=0.5,1,2."
    ),
    click.option("--find-rate", is_flag=True, help="Search the highest rate that keeps the SLO."),
    click.option(
        "--find-concurrency", is_flag=True, help="Search the highest number in flight that keeps the SLO."
    ),
    click.option(
        "--confidence", type=FloatRange(0.5, 0.9999), default=0.95, show_default=True,
        help="Of the search's verdict on each load.",
    ),
    click.option(
        "--tolerance", type=FloatRange(0.001, 1), default=0.05, show_default=True,
        help="Stop the search when what holds and what does not are so close, as a share.",
    ),
    click.option(
        "--within", "within_s", type=_ABOVE_ZERO, default=1800.0, show_default=True,
        help="Seconds that a search may take.",
    ),
    click.option("--most", type=_ABOVE_ZERO, help="Highest load that a search may offer."),
    click.option(
        "--save-sweep", type=click.Path(), help="Write the sweep to this file; --save writes the found run."
    ),
)  # fmt: skip


def sweep_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def wants_sweep(options: dict[str, Any]) -> bool:
    """Whether more than one run is asked for.

    Raises:
        BadInputError: two ways at once, or one that contradicts another option.
    """
    asked = [name for name in ("sweep", "find_rate", "find_concurrency") if options[name]]
    if len(asked) > 1:
        raise BadInputError("give one of --sweep, --find-rate and --find-concurrency")
    if not asked:
        if options["save_sweep"]:
            raise BadInputError("--save-sweep goes with --sweep or --find-...")
        return False
    if options["resume"] is not None:
        raise BadInputError("--resume goes on with one run", remedy="Leave --sweep and --find-... out.")
    if options["from_records"] is not None:
        raise BadInputError("--from-records measures nothing", remedy="Leave --sweep and --find-... out.")
    if options["find_rate"] or options["find_concurrency"]:
        axis = "rate" if options["find_rate"] else "concurrency"
        other = "concurrency" if options["find_rate"] else "rate"
        for name in (other, "duration_s"):
            if options[name] is not None:
                flag = "--duration" if name == "duration_s" else f"--{name}"
                raise BadInputError(
                    f"{flag} has no meaning in a search by {axis}",
                    remedy=f"--{axis} sets where it begins, --requests the size of a first look.",
                )
    elif options["rate"] is not None or options["concurrency"] is not None:
        raise BadInputError("--sweep names the loads", remedy="Leave --rate and --concurrency out.")
    return True


def parse_sweep(text: str) -> tuple[Axis, list[float]]:
    """``rate=0.5,1`` as axis and loads.

    Raises:
        BadInputError: another form.
    """
    name, _, listed = text.partition("=")
    try:
        loads = [float(load) for load in listed.split(",")]
    except ValueError:
        loads = []
    if name not in ("concurrency", "rate") or not loads or not all(map(math.isfinite, loads)):
        raise BadInputError(
            f"--sweep {text!r}: not a list of loads",
            remedy="Write --sweep concurrency=1,2,4,8 or --sweep rate=0.5,1,2.",
        )
    return ("concurrency" if name == "concurrency" else "rate"), loads


class Files(NamedTuple):
    """What is written beside ``--save-sweep``."""

    save: Path | None
    html: Path | None
    csv: Path | None


def run(config: ProbeConfig, options: dict[str, Any], files: Files, *, as_json: bool) -> int:
    """Measure, show, write; the exit code."""
    from pathlib import Path as FilePath

    from qwenhost.files import write_atomically
    from qwenhost.measurements import measurements_to_json
    from qwenhost.probe.sweep import sweep_to_json

    # The file is made first: what cannot be written is told before hours of load.
    target = None if options["save_sweep"] is None else FilePath(options["save_sweep"])
    if target is not None and not target.absolute().parent.is_dir():
        raise BadInputError(f"--save-sweep {target}: no such folder", remedy="Make the folder first.")
    swept = _measured(config, options)
    if target is not None:
        write_atomically(target, sweep_to_json(swept))
    if files.html is not None and swept.points:
        from qwenhost.report.probe_page import sweep_html

        write_atomically(files.html, sweep_html(swept).encode())
    if files.csv is not None:
        from qwenhost.report.probe_csv import loads_csv

        write_atomically(files.csv, loads_csv(swept).encode())
    save = files.save
    if save is not None and swept.found is not None:
        write_atomically(save, measurements_to_json(swept.found.measurements))
    elif save is not None:
        say(f"{save} was not written: no load was shown to keep the SLO.")
    if as_json:
        write_json(sweep_to_json(swept))
    else:
        _show(swept)
    return _exit_code(swept)


def _measured(config: ProbeConfig, options: dict[str, Any]) -> Sweep:
    from qwenhost.probe.load import run_probe
    from qwenhost.probe.sweep import Plan, find_limit, run_sweep

    with live_progress() as on_progress:

        def measure(one: ProbeConfig, /) -> Any:
            return run_probe(one, on_progress=on_progress)

        if options["sweep"]:
            axis, loads = parse_sweep(options["sweep"])
            return run_sweep(config, axis, loads, measure=measure)
        most = options["most"] or math.inf
        if options["find_concurrency"] and most < 1:
            raise BadInputError("--most: less than one request in flight is none")
        plan = Plan(
            axis="rate" if options["find_rate"] else "concurrency",
            start=options["rate"] or options["concurrency"],
            most=most if options["find_rate"] or most == math.inf else float(int(most)),
            confidence=options["confidence"],
            tolerance=options["tolerance"],
            within_s=options["within_s"],
        )
        return find_limit(config, plan, measure=measure)


def _exit_code(swept: Sweep) -> int:
    if swept.end == "interrupted":
        return 130
    if swept.mode == "find":
        return 0 if swept.found is not None else 5
    return 5 if any(point.measurements.void for point in swept.points) else 0


def _show(swept: Sweep) -> None:
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("in flight" if swept.axis == "concurrency" else "requests/s", justify="right")
    for name in ("output tok/s", "TTFT p50", "p99 ms", "TPOT p50", "p99 ms", "SLO kept", "95 % within"):
        head = f"{swept.confidence * 100:g} % within" if name.startswith("95") else name
        table.add_column(head, justify="right")
    table.add_column("")
    for point in swept.points:
        table.add_row(*_row(point))
    out.print(table)
    if swept.points and swept.points[0].measurements.server.simulated:
        out.print("[magenta]A simulated engine: these are not measurements of hardware.[/magenta]")
    bold = "[bold]" if swept.found is not None else ""
    out.print(f"{bold}{swept.reason}{'[/bold]' if bold else ''} ({format_seconds(swept.took_s)})")


def _row(point: Point) -> list[str]:
    measured = point.measurements
    shown = (measured.ttft_ms.p50, measured.ttft_ms.p99, measured.tpot_ms.p50, measured.tpot_ms.p99)
    kept = f"{point.kept_slo} of {point.judged}" if point.judged else "-"
    return [
        f"{point.at:.4g}",
        f"{measured.output_tokens_per_s:,.1f}",
        *("-" if value is None else f"{value:,.1f}" for value in shown),
        kept,
        f"{point.share_low:.0%} to {point.share_high:.0%}",
        "[red]void[/red]" if measured.void else point.said,
    ]

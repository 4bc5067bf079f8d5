"""``qwenhost calibrate``: the speed model refitted to the user's own runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from qwenhost.cli import wiring
from qwenhost.cli.options import json_option
from qwenhost.cli.output import console, say, write_json

if TYPE_CHECKING:
    from qwenhost.planner.calibration import Refit


ENOUGH_RUNS: Final = 3


@click.command("calibrate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), help="Plan the runs were measured under."
)
@click.option("--dry-run", is_flag=True, help="Print what would be kept and keep nothing.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, files: tuple[Path, ...], plan_file: Path | None, dry_run: bool, as_json: bool
) -> None:
    r"""Refit the speed model to runs of your own node, measured by qwenhost probe --save.

    FILES are measurements; a plan among them says what the measurements after it ran under. Runs of one
    GPU kind and one vLLM at a time. Three runs at different loads (one at once, some, many) tell most.

    What is learned is kept under $XDG_CONFIG_HOME/qwenhost/profiles by GPU and vLLM version, every later
    plan for that GPU uses it and says so. Delete the file to undo.

    \b
    qwenhost calibrate --plan plan.json run-1.json run-16.json run-64.json
    qwenhost calibrate tp2.json tp2-runs/*.json tp4.json tp4-runs/*.json --dry-run
    """
    from qwenhost.cli.calibration_setup import keep, read_runs, refitted

    known = wiring.catalog(ctx)
    runs, warnings = read_runs(files, plan_file)
    found = refitted(known, runs)
    warnings += _suspicions(found)
    kept = None if dry_run else keep(found.calibration)
    if as_json:
        write_json(_document(found, warnings, kept, dry_run=dry_run))
        return
    _show(found)
    for line in warnings:
        say(f"Warning: {line}")
    if kept:
        say(f"Kept in {kept}; every plan for this GPU uses it from now on. Delete the file to undo.")
    else:
        say("Kept nothing (--dry-run).")


def _document(found: Refit, warnings: list[str], kept: Path | None, *, dry_run: bool) -> dict[str, Any]:
    row = found.calibration
    return {
        "schema": "qwenhost.calibration/1",
        "id": row.id,
        "gpu": row.gpu,
        "vllm_version": row.vllm_version,
        "runs": list(row.measurements),
        "scales": list(found.scales),
        "errors": list(found.errors),
        "band": {
            "low": row.relative_band_low, "high": row.relative_band_high,
            "low_before": found.band_before[0], "high_before": found.band_before[1],
        },
        "warnings": warnings,
        "path": str(kept) if kept else None,
        "dry_run": dry_run,
    }  # fmt: skip


def _suspicions(found: Refit) -> list[str]:
    """Too few runs; and those that scales cannot explain are more likely a set-up unlike the plan's."""
    from qwenhost.planner.calibration import SUSPICIOUS_ERROR

    few = len(found.calibration.measurements) < ENOUGH_RUNS
    told = ["fewer than three runs tell the scales apart poorly; measure at one at once, some and many"]
    return (told if few else []) + [
        f"{one.run}: {one.figure} still {one.after:+.0%} off. More likely the engine did not run as the plan "
        "says (eager mode, another kernel, throttled clocks, cached prompts) than that the model needs it."
        for one in found.errors
        if one.figure == "tpot_ms" and abs(one.after) > SUSPICIOUS_ERROR
    ]


def _show(found: Refit) -> None:
    from rich.table import Table

    out, row = console(), found.calibration
    count = len(row.measurements)
    out.print(f"[bold]{row.id}[/bold]  {count} run{'s' if count > 1 else ''}")
    scales = Table("constant", "built in", "refitted", "factor", "from", "to", "learned", box=None)
    for column in scales.columns[1:]:
        column.justify = "right"
    for one in found.scales:
        scales.add_row(
            one.name, f"{one.start:.4g}", f"{one.fitted:.4g}", f"{one.factor:.2f}",
            f"{one.low:.2f}", f"{one.high:.2f}", f"{one.learned:.0%}",
        )  # fmt: skip
    out.print(scales)
    out.print("learned: how much of what was uncertain the runs settled; 0 % stays as built in\n")
    errors = Table("run", "figure", "measured", "built in", "refitted", "left out", box=None)
    for column in errors.columns[2:]:
        column.justify = "right"
    for error in found.errors:
        blind = "-" if error.left_out is None else f"{error.left_out:+.1%}"
        errors.add_row(
            error.run,
            error.figure,
            f"{error.measured:,.1f}",
            f"{error.before:+.1%}",
            f"{error.after:+.1%}",
            blind,
        )
    out.print(errors)
    out.print(
        f"left out: fitted without that run{'' if len(row.measurements) > 1 else ' (needs two runs)'}\n\n"
        f"band of predictions -{row.relative_band_low:.0%} +{row.relative_band_high:.0%}, "
        f"built in -{found.band_before[0]:.0%} +{found.band_before[1]:.0%}"
    )

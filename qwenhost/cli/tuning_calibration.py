"""What the trials of ``tune`` teach the speed model, kept as ``calibrate`` keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cli.output import say
from qwenhost.errors import QwenhostError

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.facts import Catalog
    from qwenhost.tuning import TuneState


def calibrate_from(known: Catalog, folder: Path, state: TuneState) -> str | None:
    """The file of the user's profiles that was written; None where trials teach nothing, which is said."""
    from qwenhost.cli.calibration_setup import keep, read_runs, refitted

    files = trial_files(folder, state)
    if not files:
        return None
    try:
        runs, warnings = read_runs(files, None)
        found = refitted(known, runs)
        path = keep(found.calibration)
    except QwenhostError as error:
        say(f"Not calibrated: {error.message}. {error.remedy}")
        say(f"Try: qwenhost calibrate {' '.join(str(file) for file in files)}")
        return None
    for line in warnings:
        say(f"Warning: {line}")
    say(f"Kept in {path}; every plan for this GPU uses it from now on. Delete the file to undo.")
    return str(path)


def trial_files(folder: Path, state: TuneState) -> list[Path]:
    """Each measured trial's plan, then its run, as ``qwenhost calibrate`` reads them."""
    found: list[Path] = []
    for trial in state.trials:
        plan = folder / f"{trial.id}.plan.json"
        if trial.status == "measured" and trial.measurements and plan.exists():
            found += [plan, folder / trial.measurements]
    return found

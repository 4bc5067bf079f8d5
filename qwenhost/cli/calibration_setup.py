"""What ``qwenhost calibrate`` reads and keeps: runs with their plans, and the refitted row."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import yaml

from qwenhost.cli import wiring
from qwenhost.errors import BadInputError
from qwenhost.files import NOT_JSON, write_atomically
from qwenhost.measurements import load_measurements
from qwenhost.plan import SCHEMA as PLAN_SCHEMA
from qwenhost.plan import load_plan
from qwenhost.planner.calibration import Run, latencies, refit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from qwenhost.facts import Calibration, Catalog
    from qwenhost.measurements import Measurements
    from qwenhost.plan import Plan
    from qwenhost.planner.calibration import Refit

_RELEASE = re.compile(r"\d+\.\d+(?:\.\d+)?")
_HOW = "qwenhost probe URL --save run.json"


class PlannedRun(NamedTuple):
    """A run with the plan it was measured under."""

    run: Run
    vllm_version: str


def read_runs(files: Iterable[Path], plan_file: Path | None) -> tuple[list[PlannedRun], list[str]]:
    """Runs in order, each under the plan named last before it, and what a reader should know of them.

    Raises:
        BadInputError: unreadable, neither plan nor measurements, no plan for a run, or a run that is no
            measurement of hardware.
    """
    plan = load_plan(plan_file) if plan_file else None
    found: list[PlannedRun] = []
    warnings: list[str] = []
    seen: set[Path] = set()
    for path in files:
        if _is_plan(path):
            plan = load_plan(path)
            continue
        measured = load_measurements(path)
        _check(path, measured)
        if plan is None:
            raise BadInputError(
                f"{path}: no plan says what ran",
                remedy="Give it: --plan plan.json, or name the plan before its measurements.",
            )
        if path.resolve() in seen:
            raise BadInputError(f"{path} is named twice", remedy="Name each run once.")
        seen.add(path.resolve())
        name = path.name if all(one.run.name != path.name for one in found) else str(path)
        found.append(PlannedRun(Run(name, plan.chosen, plan.inputs.node, measured), _version(measured, plan)))
        warnings += [f"{name}: {text}" for text in _doubts(measured, plan)]
    if not found:
        raise BadInputError("no measurements among the files", remedy=f"Measure with: {_HOW}")
    return found, warnings


def refitted(known: Catalog, runs: list[PlannedRun]) -> Refit:
    """The calibration these runs ask for.

    Raises:
        BadInputError: several GPU kinds or vLLM versions, or a plan that the catalog does not know.
    """
    kinds = sorted({str(one.run.node.gpus[0].spec) for one in runs})
    versions = sorted({one.vllm_version for one in runs})
    if len(kinds) > 1 or len(versions) > 1:
        several = f"GPUs {', '.join(kinds)}" if len(kinds) > 1 else f"vLLM {', '.join(versions)}"
        raise BadInputError(
            f"runs of {several}: one GPU kind and one vLLM at a time", remedy="Calibrate for each in turn."
        )
    if kinds[0] not in known.gpus:
        raise BadInputError(
            f"the plan's GPU {kinds[0]!r} is not in the catalog",
            remedy="Give the profiles it was made with: --profiles DIR.",
        )
    today = dt.datetime.now(tz=dt.UTC).date()
    return refit([one.run for one in runs], known, vllm_version=versions[0], today=today)


def keep(row: Calibration) -> Path:
    """Write the row among the user's own profiles, over an earlier one of the same GPU and vLLM."""
    path = wiring.user_profiles() / f"{row.id}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"calibrations": [msgspec.to_builtins(row, builtin_types=(dt.date,))]}
    write_atomically(path, yaml.safe_dump(rows, sort_keys=False).encode())
    return path


def _is_plan(path: Path) -> bool:
    """Told by the schema; anything else is read as measurements, whose reader says what is wrong."""
    try:
        head = msgspec.json.decode(path.read_bytes())
    except (OSError, *NOT_JSON):
        return False
    return isinstance(head, dict) and head.get("schema") == PLAN_SCHEMA


def _check(path: Path, measured: Measurements) -> None:
    if measured.server.simulated:
        raise BadInputError(
            f"{path} is of a simulated engine: its times come from the model itself",
            remedy=f"Measure a real engine: {_HOW}",
        )
    if measured.void:
        raise BadInputError(
            f"{path} is void: {measured.void_reason}", remedy="Leave it out, or measure again as it says."
        )
    if not latencies(measured):
        raise BadInputError(
            f"{path}: no request was answered, so there are no latencies in it",
            remedy=f"Measure with: {_HOW}",
        )


def _version(measured: Measurements, plan: Plan) -> str:
    """The server's release, else the plan's."""
    told = _RELEASE.match(measured.server.version or "")
    return told.group() if told else plan.inputs.vllm_version


def _doubts(measured: Measurements, plan: Plan) -> Iterable[str]:
    chosen, load = plan.chosen, measured.load
    if measured.interrupted:
        yield "the run was interrupted; fewer requests than planned"
    if measured.requests.failed:
        yield f"{measured.requests.failed} of {measured.requests.sent} requests failed"
    room = chosen.engine_args.max_num_seqs * chosen.parallelism.serving_groups
    if load.kind == "closed" and (load.concurrency or 0) > room:
        yield f"{load.concurrency} at once, but the plan runs {room}: their wait in the queue is not modelled"

"""The whole campaign on one H200 without a network, in steps that each end in under eight minutes.

    python benchmarks/h200/campaign.py memory|step_times|serving|agreement|verdict|all --out DIR [--rehearse]

Every result is a file of its own under ``DIR/results``, written as soon as it is there; what exists is
not measured again, so a call that is cut off goes on where it was. ``--seconds`` bounds a call: no start
is begun that could not end within it. ``--rehearse`` runs the same code here on vLLM's CPU build with a
tiny model; its figures mean nothing and say so.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import agreement
import counted_steps
import memory
import serving
import stage as stages
import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

START_S = 150.0
"""Allowed for one start and its measurement in the memory step."""
SEARCH_S = 240.0
STEPS = ("memory", "step_times", "serving", "agreement", "verdict")


def main() -> int:
    """Run what was asked for until the time is up; 75 while something is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=450.0)
    parser.add_argument("--only", help="of the memory step: one start by name")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    stage = (stages.rehearsal if arguments.rehearse else stages.h200)(arguments.out.resolve())
    deadline = time.monotonic() + arguments.seconds
    left = 0
    for step, key, needs_s in work(stage, arguments):
        remaining = deadline - time.monotonic()
        if remaining < needs_s:
            left += 1
            continue
        print(f"{step} {key}", flush=True)
        result = measure(stage, step, key, remaining)
        if result.get("done") is False:  # Gone on with in the next call.
            left += 1
            continue
        stage.keep(step, key, result)
        print(f"  {'FAILED' if 'failed' in result else 'kept'}", flush=True)
    print(f"{left} left" if left else "complete")
    return 75 if left else 0


def work(stage: stages.Stage, arguments: argparse.Namespace) -> Iterator[tuple[str, str, float]]:
    """What is still to be measured, and the seconds it takes at least."""
    quick = 60.0 if stage.rehearsal else START_S
    asked = set(STEPS) if arguments.step == "all" else {arguments.step}
    starts = [name for name in memory.STARTS if arguments.only in (None, name)] if "memory" in asked else []
    yield from (("memory", name, quick) for name in starts if not stage.has("memory", name))
    if "step_times" in asked:
        yield from (("step_times", checkpoint, 2 * quick) for checkpoint in counted_steps.CHECKPOINTS)
    for preset, flag_set in itertools.product(serving.PRESETS, serving.FLAG_SETS):
        if "serving" in asked and not stage.has("serving", f"{preset}-{flag_set}"):
            yield "serving", f"{preset}-{flag_set}", 2 * quick
    for step in ("agreement", "verdict"):
        if step in asked and not stage.has(step, "result"):
            yield step, "result", 2 * quick if step == "agreement" else 0.0


def measure(stage: stages.Stage, step: str, key: str, remaining: float) -> dict[str, object]:
    """One piece of work."""
    if step == "memory":
        return memory.run(stage, key)
    if step == "step_times":
        return counted_steps.run(stage, key, remaining - 30)
    if step == "serving":
        preset, flag_set = key.rsplit("-", 1)
        within = 20.0 if stage.rehearsal else min(SEARCH_S, remaining - START_S)
        return serving.run(stage, preset, flag_set, within)
    return agreement.run(stage) if step == "agreement" else verdict.run(stage)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())

"""The whole campaign on one H200 without a network, in calls that each end by themselves.

    python benchmarks/h200/campaign.py all --out DIR [--pack $OUT/results.tar.gz] [--seconds 560]
    python benchmarks/h200/campaign.py memory|step_times|... --out DIR [--rehearse]
    python benchmarks/h200/campaign.py all --out DIR --dry-run --budget-s 1800

Every result is a file of its own under ``DIR/results``, written as soon as it is there; what exists is
not measured again (``--again`` repeats what failed), so a call that is cut off goes on where it was. No
piece is begun that could not end within ``--seconds``. ``--rehearse`` runs the same code on vLLM's CPU
build with a tiny model; its figures mean nothing and say so.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import agreement
import counted_steps
import memory
import preflight
import schedule
import serving
import stage as stages
import verdict
from engine import EngineFailedError

if TYPE_CHECKING:
    from schedule import Piece

STEPS = ("preflight", "memory", "step_times", "serving", "agreement", "verdict")
REHEARSED_PIECE_S = 60.0
MORE_TO_COME = 75
"""EX_TEMPFAIL of sysexits.h."""


def main() -> int:
    """Run what was asked for until the time is up; 75 while something is left."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the engine is stopped on the way out.
    begun = time.monotonic()
    stage = (stages.rehearsal if arguments.rehearse else stages.h200)(arguments.out.resolve())
    stage = replace(stage, pack=arguments.pack, deadline=begun + arguments.seconds)
    todo = [piece for piece in asked(arguments) if not done(stage, piece, again=arguments.again)]
    if arguments.dry_run:
        print(schedule.table(arguments.budget_s, arguments.bundle_pieces, todo))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    left = 0
    for piece in todo:
        needs_s = min(piece.needs_s, REHEARSED_PIECE_S) if stage.rehearsal else piece.needs_s
        if done(stage, piece, again=arguments.again):  # Measured beside another piece meanwhile.
            continue
        # None overtakes: the next call has all its time for it. The last call takes what still fits.
        if (left and not arguments.fill) or stage.remaining_s() < needs_s:
            left += 1
            continue
        print(f"{time.monotonic() - begun:5.0f} s  {piece.name}", flush=True)
        result = measured(stage, piece)
        stage.keep(piece.step, piece.key, result)
        print(f"{time.monotonic() - begun:5.0f} s    {result.get('failed', 'kept')}", flush=True)
    stage.hand_back()
    print(f"{left} left" if left else "complete")
    return MORE_TO_COME if left else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=schedule.CALL_S, help="of this call")
    parser.add_argument("--only", help="one piece of the step by name, e.g. int4 or chat-plan")
    parser.add_argument("--pack", type=Path, help="archive of results and logs, kept whole at any moment")
    parser.add_argument("--again", action="store_true", help="repeat what failed")
    parser.add_argument("--fill", action="store_true", help="last call of a lease: take what still fits")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="print the schedule and start nothing")
    parser.add_argument("--budget-s", type=float, default=1800.0, help="of the whole lease, for --dry-run")
    parser.add_argument("--bundle-pieces", type=int, default=5, help="calls that carry one, for --dry-run")
    return parser.parse_args()


def asked(arguments: argparse.Namespace) -> list[Piece]:
    """The pieces of this call in the order of their worth."""
    return [
        piece
        for piece in schedule.pieces()
        if arguments.step in ("all", piece.step) and arguments.only in (None, piece.key)
    ]


def done(stage: stages.Stage, piece: Piece, *, again: bool) -> bool:
    """Whether there is a result, which may be how it failed."""
    if not stage.has(piece.step, piece.key):
        return False
    return not again or "failed" not in json.loads(stage.result(piece.step, piece.key).read_text())


def measured(stage: stages.Stage, piece: Piece) -> dict[str, Any]:
    """A piece's result; that it failed is one too, and the rest goes on."""
    begun = time.monotonic()
    try:
        result = measure(stage, piece)
    except (stages.StepFailedError, EngineFailedError, OSError, LookupError, ValueError) as failed:
        result = {"failed": f"{type(failed).__name__}: {failed}"}
    return {**result, "took_s": time.monotonic() - begun, "ended_at": time.strftime("%FT%TZ", time.gmtime())}


def measure(stage: stages.Stage, piece: Piece) -> dict[str, Any]:
    """One piece of work."""
    match piece.step:
        case "preflight":
            return preflight.run(stage)
        case "memory":
            return memory.run(stage, piece.key)
        case "step_times":
            return counted_steps.run(stage, piece.key)
        case "serving":
            return serving.run(stage, *piece.key.rsplit("-", 1))
        case "agreement":
            return agreement.run(stage)
        case _:
            return verdict.run(stage)


if __name__ == "__main__":
    sys.exit(main())

"""Verdict step: the comparison with Sonnet 4.6 from the figures measured with the plan's flags.

Needs no GPU: with what a lease handed back unpacked to DIR, ``campaign.py verdict --out DIR`` writes it
anywhere, one folder a preset, whose ``report.html`` and ``comparison.json`` are the example to check in.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from serving import CHECKPOINT, PRESETS

if TYPE_CHECKING:
    from stage import Stage


def run(stage: Stage) -> dict[str, Any]:
    """A comparison for each preset whose search found a rate that keeps the SLO."""
    made: dict[str, Any] = {}
    for preset in PRESETS:
        if not stage.has("serving", f"{preset}-plan"):
            made[preset] = {"left_out": "not measured"}
            continue
        measured = stage.out / f"measurements-{preset}-plan.json"
        if not measured.is_file():
            made[preset] = {"left_out": "no rate kept the service level"}
            continue
        plan = stage.out / f"plan-{preset}.json"
        stage.plan(CHECKPOINT, "--workload", preset, "--save", str(plan))
        folder = stage.out / f"verdict-{preset}"
        text = stage.call(
            *stage.qwenhost, "compare", "--plan", str(plan), "--workload", preset,
            "--measurements", str(measured), "--output-dir", str(folder), "--json",
        )  # fmt: skip
        made[preset] = {"comparison": json.loads(text), "report": str(folder / "report.html")}
    return {"presets": made}

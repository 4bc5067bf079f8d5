"""Verdict step: the comparison with Sonnet 4.6 from the figures measured with the plan's flags."""

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
        measured = stage.out / f"measurements-{preset}-plan.json"
        if not stage.has("serving", f"{preset}-plan"):
            continue
        if not measured.is_file():
            made[preset] = {"failed": "no rate kept the service level"}
            continue
        folder = stage.out / f"verdict-{preset}"
        text = stage.call(
            *stage.qwenhost, "compare", *(stage.hardware or ("--gpus", "1xH200")), "--checkpoint", CHECKPOINT,
            "--workload", preset, "--vllm-version", stage.vllm_version, "--measurements", str(measured),
            "--output-dir", str(folder), "--json",
        )  # fmt: skip
        made[preset] = {"comparison": json.loads(text), "report": str(folder / "report.html")}
    return {"presets": made, "done": len(made) == len(PRESETS)}

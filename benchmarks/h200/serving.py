"""Serving step: the plan's flags against vLLM's defaults and the public recipe's, at the same SLO."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import engine
from memory import engine_flags, keep_check

if TYPE_CHECKING:
    from stage import Stage

PORT = 8103
MISSED = 5
"""Exit code of a search that found no rate which keeps the SLO: a result too."""
CHECKPOINT = "gptq-int4"
PRESETS = ("chat", "thinking_chat", "tool_agent")
FLAG_SETS = ("plan", "defaults", "recipe")

# github.com/vllm-project/recipes at 8959cf6, models/Qwen/Qwen3.5-122B-A10B.yaml: Int4 on one GPU, with its
# MTP of one token and prefix caching off ("latency"); parsers as for every Qwen3.5.
RECIPE = (
    "--speculative-config", '{"method":"mtp","num_speculative_tokens":1}', "--no-enable-prefix-caching",
    "--reasoning-parser", "qwen3", "--enable-auto-tool-choice", "--tool-call-parser", "qwen3_coder",
)  # fmt: skip


SEARCH_S = 150.0
STOP_S = 20.0


def run(stage: Stage, preset: str, flag_set: str) -> dict[str, Any]:
    """Start with one set of flags and search the highest rate that keeps the preset's SLO."""
    plan = stage.plan(CHECKPOINT, "--workload", preset)
    chosen = plan["chosen"]
    flags = {"plan": engine_flags(chosen["vllm_argv"]), "defaults": [], "recipe": list(RECIPE)}[flag_set]
    flags = stage.flags(flags)
    found: dict[str, Any] = {
        "preset": preset,
        "flag_set": flag_set,
        "argv_flags": flags,
        "estimate": chosen["estimate"],
    }
    sizes = ("--input-tokens", "64", "--output-tokens", "16") if stage.rehearsal else ()
    path, best = (stage.out / f"{kind}-{preset}-{flag_set}.json" for kind in ("serving", "measurements"))
    try:
        with engine.running(
            stage.argv(flags, CHECKPOINT, PORT),
            stage.environment(chosen["vllm_env"] if flag_set == "plan" else {}),
            stage.out / "logs" / f"serving-{preset}-{flag_set}.log",
            port=PORT,
            within_s=min(stage.start_within_s, stage.remaining_s()),
        ) as up:
            keep_check(stage, f"serving-{preset}-{flag_set}", CHECKPOINT, up)
            seconds = 20.0 if stage.rehearsal else max(30.0, min(SEARCH_S, stage.remaining_s() - STOP_S))
            stage.call(
                *stage.qwenhost, "probe", up.url, "--workload", preset, "--distribution", "preset", *sizes,
                "--find-rate", "--within", str(seconds), "--save-sweep", str(path), "--save", str(best),
                "--json", accept=(0, MISSED),
            )  # fmt: skip
            counters = up.metrics()
    except engine.EngineFailedError as failed:
        return {**found, "failed": str(failed)}
    return {**found, "sweep": json.loads(path.read_text()), "counters": counters}

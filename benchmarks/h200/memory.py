"""Memory step: what each start's log says against what was predicted before it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import engine
from stage import StepFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from stage import Stage

# The first of each pair are the ones that decide; a lease may end before the list does.
STARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "int4": ("gptq-int4", ("--num-speculative-tokens", "0", "--no-enable-prefix-caching")),
    "fp8": ("fp8", ("--num-speculative-tokens", "0", "--no-enable-prefix-caching")),
    "int4-prefix": ("gptq-int4", ("--num-speculative-tokens", "0", "--enable-prefix-caching")),
    "int4-mtp2": ("gptq-int4", ("--num-speculative-tokens", "2", "--no-enable-prefix-caching")),
    "int4-kv-fp8": ("gptq-int4", ("--num-speculative-tokens", "0", "--kv-cache-dtype", "fp8")),
    "fp8-text": ("fp8", ("--num-speculative-tokens", "0", "--language-model-only")),
    "fp8-kv-fp8": ("fp8", ("--num-speculative-tokens", "0", "--kv-cache-dtype", "fp8")),
    "fp8-mtp2": ("fp8", ("--num-speculative-tokens", "2", "--no-enable-prefix-caching")),
    "fp8-prefix": ("fp8", ("--num-speculative-tokens", "0", "--enable-prefix-caching")),
    "int4-text": ("gptq-int4", ("--num-speculative-tokens", "0", "--language-model-only")),
    "int4-2k": ("gptq-int4", ("--num-speculative-tokens", "0", "--max-num-batched-tokens", "2048")),
    "int4-32k": ("gptq-int4", ("--num-speculative-tokens", "0", "--max-num-batched-tokens", "32768")),
}
PORT = 8101


def run(stage: Stage, name: str) -> dict[str, Any]:
    """Predict, start, compare; a start that fails is a result too."""
    checkpoint, options = STARTS[name]
    plan = stage.plan(checkpoint, *options)
    chosen = plan["chosen"]
    found: dict[str, Any] = {
        "checkpoint": checkpoint,
        "options": list(options),
        "predicted": {"memory_per_gpu": chosen["memory_per_gpu"], "kv_cache": chosen["kv_cache"]},
    }
    flags = stage.flags(engine_flags(chosen["vllm_argv"]))
    log = stage.out / "logs" / f"memory-{name}.log"
    try:
        with engine.running(
            stage.argv(flags, checkpoint, PORT),
            stage.environment(chosen["vllm_env"]),
            log,
            port=PORT,
            within_s=min(stage.start_within_s, stage.remaining_s()),
        ) as up:
            found["ready_s"] = up.ready_s
    except engine.EngineFailedError as failed:
        return {**found, "failed": str(failed), "argv_flags": flags}
    return {**found, "argv_flags": flags, "check": check(stage, checkpoint, log)}


def check(stage: Stage, checkpoint: str, log: Path) -> dict[str, Any]:
    """A start-up log held against the plan for the same flags."""
    text = stage.call(
        *stage.qwenhost, "plan", *stage.hardware, "--checkpoint", checkpoint,
        "--vllm-version", stage.vllm_version, "--check", str(log), "--json",
    )  # fmt: skip
    found: dict[str, Any] = json.loads(text)
    return found


def keep_check(stage: Stage, name: str, checkpoint: str, up: engine.Engine) -> None:
    """The memory result of a start made for another step; its log may lack a line, which loses no more."""
    found: dict[str, Any] = {"checkpoint": checkpoint, "ready_s": up.ready_s}
    try:
        found["check"] = check(stage, checkpoint, up.log)
    except StepFailedError as failed:
        found["failed"] = str(failed)
    stage.keep("memory", name, found)


def engine_flags(argv: list[str]) -> list[str]:
    """A plan's flags without the model, its revision and the address, which the stage sets itself."""
    flags = argv[3:]
    for own in ("--revision", "--host", "--port"):
        if own in flags:
            at = flags.index(own)
            del flags[at : at + 2]
    return flags

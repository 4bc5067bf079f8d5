"""Step-time step: decode and prefill by the engine's own counters, against the model's prediction.

Decode: a closed loop holds B requests of C prompt tokens in flight. ``/metrics`` is read four times a
second; between two readings that saw all B running, none waiting and no prompt token computed, the time
over the number of engine iterations is one decode step. Prefill: one request at a time asks for one
token; the engine's own prefill-time histogram gives its seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import agreement
import engine
from memory import engine_flags, keep_check
from stage import StepFailedError

if TYPE_CHECKING:
    from stage import Stage

PORT = 8102
SAMPLE_EVERY_S = 0.2
PREFILLS = 4
STEP_TOKENS = 8192
"""Prompt tokens of one engine step, as planned (--max-num-batched-tokens)."""
AGREEMENT_BEFORE_TOKENS = 200_000
"""The loads that take longest wait until the agreement is measured."""
AGREEMENT_S = 130.0
"""Left of the call when the agreement begins: vLLM's client takes its time to start, three times."""
RESERVE_S = 40.0
"""Left of the call when a load begins, beside its prompts: its decode, and the engine's stop."""
SLOWEST_PREFILL_TOKENS_PER_S = 8000.0
"""Below any estimate for one H200: whether a load still fits, not a figure."""
VOID = 5
"""Exit code of a run whose own client was the bottleneck: kept, with its reason."""
STEPS, GENERATED, PROMPTS = (
    "vllm:iteration_tokens_total_count", "vllm:generation_tokens_total", "vllm:prompt_tokens_total",
)  # fmt: skip
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
PREFILL_SUM, PREFILL_COUNT = (
    "vllm:request_prefill_time_seconds_sum", "vllm:request_prefill_time_seconds_count",
)  # fmt: skip


class Sampler(threading.Thread):
    """Reads the counters until told to stop."""

    def __init__(self, up: engine.Engine) -> None:
        super().__init__(daemon=True)
        self.rows: list[dict[str, float]] = []
        self._up, self._done = up, threading.Event()

    def run(self) -> None:
        """Keep a row per reading, with the time halfway through it."""
        while not self._done.wait(SAMPLE_EVERY_S):
            before = time.monotonic()
            try:
                found = self._up.metrics()
            except OSError:  # The engine is gone: what was read until then stays.
                return
            row = {name: found.get(name, 0.0) for name in (STEPS, GENERATED, PROMPTS, RUNNING, WAITING)}
            self.rows.append(row | {"t": (before + time.monotonic()) / 2})

    def stop(self) -> list[dict[str, float]]:
        """The rows so far."""
        self._done.set()
        self.join()
        return self.rows


def run(stage: Stage, checkpoint: str) -> dict[str, Any]:
    """All loads that fit the cache and the time, cheapest first; each is kept at once.

    The start's memory is held against its prediction too, and for the Int4 checkpoint the agreement of the
    probe with vLLM's client is measured on the same engine: each start costs minutes.
    """
    top, plan = widest(stage, checkpoint)
    chosen = plan["chosen"]
    flags = stage.flags(engine_flags(chosen["vllm_argv"]))
    cache = chosen["kv_cache"]
    asked = [("decode", b, c) for c in stage.contexts for b in stage.batches]
    asked += [("prefill", 1, c) for c in stage.contexts]
    loads = [load for load in asked if load[1] <= top and blocks(stage, *load, cache) <= cache["num_blocks"]]
    loads.sort(key=lambda load: load[1] * load[2])
    todo = [load for load in loads if not stage.has("step_times", key(checkpoint, *load))]
    predicted = {load: predict(stage, checkpoint, top, *load[1:]) for load in todo}
    left: list[tuple[str, int, int]] = []
    with engine.running(
        stage.argv(flags, checkpoint, PORT),
        stage.environment(chosen["vllm_env"]),
        stage.out / "logs" / f"step_times-{checkpoint}.log",
        port=PORT,
        within_s=min(stage.start_within_s, stage.remaining_s()),
    ) as up:
        keep_check(stage, f"step_times-{checkpoint}", checkpoint, up)
        wants_agreement = checkpoint == agreement.CHECKPOINT and not stage.has("agreement", "result")
        for at, load in enumerate(todo):
            if wants_agreement and load[1] * load[2] > AGREEMENT_BEFORE_TOKENS:
                agree(stage, up)
                wants_agreement = False
            kind, batch, context = load
            if stage.remaining_s() < RESERVE_S + batch * context / SLOWEST_PREFILL_TOKENS_PER_S:
                left = todo[at:]
                break
            try:
                found = (decode if kind == "decode" else prefill)(stage, up, batch, context)
            except StepFailedError as failed:  # The others are not lost with it.
                found = {"failed": str(failed)}
            stage.keep(
                "step_times",
                key(checkpoint, *load),
                {"checkpoint": checkpoint, "kind": kind, "batch": batch, "context": context,
                 "argv_flags": flags, "predicted": predicted[load], **found},
            )  # fmt: skip
        if wants_agreement:
            agree(stage, up)
    return {
        "max_num_seqs": top,
        "left_out_by_cache": [load for load in asked if load not in loads],
        "left_out_by_time": left,
    }


def agree(stage: Stage, up: engine.Engine) -> None:
    """The agreement on this engine, if there is time; if it fails it stays to be measured."""
    if stage.remaining_s() > AGREEMENT_S:
        with contextlib.suppress(StepFailedError):
            stage.keep("agreement", "result", agreement.rounds(stage, up))


def widest(stage: Stage, checkpoint: str) -> tuple[int, dict[str, Any]]:
    """The largest of the batches for whose states there is room, and the plan that runs so many."""
    for top in sorted(stage.batches, reverse=True):
        plan = stage.plan_if_any(checkpoint, *pins(stage, top), "--concurrency", str(top))
        if plan is not None:
            return top, plan
    raise StepFailedError(f"no plan for {checkpoint} runs even {min(stage.batches)} at once")


def pins(stage: Stage, top: int) -> tuple[str, ...]:
    """What every plan of this step holds fixed."""
    return (
        "--num-speculative-tokens", "0", "--no-enable-prefix-caching",
        "--max-num-seqs", str(top), "--max-model-len", str(2 * max(stage.contexts)),
    )  # fmt: skip


def blocks(stage: Stage, kind: str, batch: int, context: int, cache: dict[str, Any]) -> int:
    """Cache blocks of a load: each sequence's states beside its tokens'."""
    tokens = context + (output_tokens(stage, batch, context) if kind == "decode" else 1)
    per_sequence: int = cache["state_blocks_per_sequence"] + math.ceil(tokens / cache["block_size"])
    return batch * per_sequence


def output_tokens(stage: Stage, batch: int, context: int) -> int:
    """So many that all run together after the last one's prompt was computed."""
    return stage.decode_tokens + math.ceil(batch * context / STEP_TOKENS)


def key(checkpoint: str, kind: str, batch: int, context: int) -> str:
    """A load's name in the results."""
    return f"{checkpoint}-{kind}-{batch}x{context}"


def predict(stage: Stage, checkpoint: str, top: int, batch: int, context: int) -> dict[str, Any] | None:
    """The plan's estimate for the same load, drawn before anything runs."""
    plan = stage.plan_if_any(
        checkpoint, *pins(stage, top), "--concurrency", str(batch),
        "--input-tokens", str(context), "--output-tokens", str(output_tokens(stage, batch, context)),
    )  # fmt: skip
    return plan["chosen"]["estimate"] if plan else None


def decode(stage: Stage, up: engine.Engine, batch: int, context: int) -> dict[str, Any]:
    """One wave of requests; the windows in which nothing but decode ran, and every reading."""
    sampler = Sampler(up)
    sampler.start()
    measured = probe(
        stage, up, concurrency=batch, requests=batch, context=context,
        output=output_tokens(stage, batch, context),
    )  # fmt: skip
    rows = sampler.stop()
    steps = []
    for earlier, later in itertools.pairwise(rows):
        alone = later[PROMPTS] == earlier[PROMPTS] and earlier[WAITING] == later[WAITING] == 0
        if alone and earlier[RUNNING] == later[RUNNING] == batch and later[STEPS] > earlier[STEPS]:
            steps.append(
                {
                    "step_s": (later["t"] - earlier["t"]) / (later[STEPS] - earlier[STEPS]),
                    "tokens_per_step": (later[GENERATED] - earlier[GENERATED])
                    / (later[STEPS] - earlier[STEPS]),
                }
            )
    times = [row["step_s"] for row in steps]
    return {
        "windows": len(steps),
        "step_s": {"median": statistics.median(times), "min": min(times), "max": max(times)}
        if times
        else None,
        "tokens_per_step": statistics.median(row["tokens_per_step"] for row in steps) if steps else None,
        "readings": rows,
        "probe": measured,
    }


def prefill(stage: Stage, up: engine.Engine, batch: int, context: int) -> dict[str, Any]:
    """Prompts one at a time; the first goes by as warm-up."""
    before = up.metrics()
    measured = probe(stage, up, concurrency=batch, requests=PREFILLS, context=context, output=1)
    after = up.metrics()
    count = after.get(PREFILL_COUNT, 0.0) - before.get(PREFILL_COUNT, 0.0)
    return {
        "requests": count,
        "prefill_s": (after[PREFILL_SUM] - before[PREFILL_SUM]) / count if count else None,
        "probe": measured,
    }


def probe(
    stage: Stage, up: engine.Engine, *, concurrency: int, requests: int, context: int, output: int
) -> dict[str, Any]:
    """Our own load on the running engine."""
    path = stage.out / "probe.json"
    stage.call(
        *stage.qwenhost, "probe", up.url, "--concurrency", str(concurrency), "--requests", str(requests),
        "--input-tokens", str(context), "--output-tokens", str(output), "--save", str(path),
        "--warmup", "0" if output > 1 else "1", "--endpoint", "completions", "--json", accept=(0, VOID),
    )  # fmt: skip
    measured: dict[str, Any] = json.loads(Path(path).read_text())
    return measured

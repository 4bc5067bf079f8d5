"""Step-time step: decode and prefill by the engine's own counters, against the model's prediction.

Decode: a closed loop holds B requests of C prompt tokens in flight. ``/metrics`` is read four times a
second; between two readings that saw all B running, none waiting and no prompt token computed, the time
over the number of engine iterations is one decode step. Prefill: one request at a time asks for one
token; the engine's own prefill-time histogram gives its seconds.
"""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine
from memory import engine_flags

if TYPE_CHECKING:
    from stage import Stage

PORT = 8102
SAMPLE_EVERY_S = 0.25
CHECKPOINTS = ("gptq-int4", "fp8")
PREFILLS = 6
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


def run(stage: Stage, checkpoint: str, seconds_left: float) -> dict[str, Any]:
    """All loads that fit the cache and the time, cheapest first; each is kept at once."""
    deadline = time.monotonic() + seconds_left
    top = max(stage.batches)
    plan = stage.plan(
        checkpoint, "--num-speculative-tokens", "0", "--no-enable-prefix-caching",
        "--max-num-seqs", str(top), "--concurrency", str(top),
        "--max-model-len", str(2 * max(stage.contexts)),
    )  # fmt: skip
    chosen = plan["chosen"]
    flags = stage.flags(engine_flags(chosen["vllm_argv"]))
    tokens = chosen["kv_cache"]["tokens"]
    loads = [(b, c) for c in stage.contexts for b in stage.batches if b * (c + stage.decode_tokens) < tokens]
    todo = [("decode", b, c) for b, c in sorted(loads, key=lambda load: load[0] * load[1])]
    todo += [("prefill", 1, c) for c in stage.contexts]
    todo = [load for load in todo if not stage.has("step_times", key(checkpoint, *load))]
    left_out = [
        list(load) for load in ((b, c) for c in stage.contexts for b in stage.batches) if load not in loads
    ]
    if not todo:
        return {"done": True, "left_out_by_cache": left_out}
    with engine.running(
        stage.argv(flags, checkpoint, PORT),
        {**chosen["vllm_env"], **stage.env},
        stage.out / "logs" / f"step_times-{checkpoint}.log",
        port=PORT,
        within_s=stage.start_within_s,
    ) as up:
        for kind, batch, context in todo:
            if time.monotonic() > deadline:
                return {"done": False, "left_out_by_cache": left_out}
            measure = decode if kind == "decode" else prefill
            predicted = predict(stage, checkpoint, batch, context)
            found = measure(stage, up, batch, context)
            stage.keep(
                "step_times",
                key(checkpoint, kind, batch, context),
                {"checkpoint": checkpoint, "kind": kind, "batch": batch, "context": context,
                 "argv_flags": flags, "predicted": predicted, **found},
            )  # fmt: skip
    return {"done": True, "left_out_by_cache": left_out}


def key(checkpoint: str, kind: str, batch: int, context: int) -> str:
    """A load's name in the results."""
    return f"{checkpoint}-{kind}-{batch}x{context}"


def predict(stage: Stage, checkpoint: str, batch: int, context: int) -> dict[str, Any]:
    """The plan's estimate for the same load, drawn before it is measured."""
    plan = stage.plan(
        checkpoint, "--num-speculative-tokens", "0", "--no-enable-prefix-caching",
        "--max-num-seqs", str(max(stage.batches)), "--concurrency", str(batch),
        "--input-tokens", str(context), "--output-tokens", str(stage.decode_tokens),
        "--max-model-len", str(2 * max(stage.contexts)),
    )  # fmt: skip
    estimate: dict[str, Any] = plan["chosen"]["estimate"]
    return estimate


def decode(stage: Stage, up: engine.Engine, batch: int, context: int) -> dict[str, Any]:
    """Two waves of requests; the windows in which nothing but decode ran."""
    sampler = Sampler(up)
    sampler.start()
    measured = probe(
        stage, up, concurrency=batch, requests=2 * batch, context=context, output=stage.decode_tokens
    )
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
        "--warmup", "1", "--endpoint", "completions", "--json", accept=(0, VOID),
    )  # fmt: skip
    measured: dict[str, Any] = json.loads(Path(path).read_text())
    return measured

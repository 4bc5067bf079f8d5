"""Probe step: our probe and ``vllm bench serve`` on the same engine, turn by turn."""

from __future__ import annotations

import json
import statistics
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

import engine
from memory import engine_flags

if TYPE_CHECKING:
    from stage import Stage

PORT = 8104
CHECKPOINT = "gptq-int4"
ROUNDS = 3


class Load(NamedTuple):
    """A closed loop."""

    concurrency: int
    requests: int
    input: int
    output: int


FIGURES = ("output_tokens_per_s", "ttft_ms", "tpot_ms")


def run(stage: Stage) -> dict[str, Any]:
    """The rounds on an engine of their own, where step_times left no time for them."""
    plan = stage.plan(CHECKPOINT, "--num-speculative-tokens", "0", "--no-enable-prefix-caching")
    chosen = plan["chosen"]
    flags = stage.flags(engine_flags(chosen["vllm_argv"]))
    with engine.running(
        stage.argv(flags, CHECKPOINT, PORT),
        stage.environment(chosen["vllm_env"]),
        stage.out / "logs" / "agreement.log",
        port=PORT,
        within_s=min(stage.start_within_s, stage.remaining_s()),
    ) as up:
        return rounds(stage, up)


def rounds(stage: Stage, up: engine.Engine) -> dict[str, Any]:
    """Rounds of both on a running engine, each first in turn; means, and each client's own spread."""
    load = Load(4, 16, 64, 16) if stage.rehearsal else Load(32, 64, 1024, 256)
    found: dict[str, list[dict[str, float]]] = {"qwenhost": [], "vllm bench serve": []}
    for number in range(ROUNDS):
        turns = [("qwenhost", ours), ("vllm bench serve", theirs)]
        for name, client in turns if number % 2 == 0 else reversed(turns):
            found[name].append(client(stage, up, load))
    return {
        "load": load._asdict(),
        "rounds": found,
        "summary": {
            name: {f: summary([r[f] for r in rows]) for f in FIGURES} for name, rows in found.items()
        },
    }


def summary(values: list[float]) -> dict[str, float]:
    """Mean and spread of the rounds."""
    return {"mean": statistics.mean(values), "min": min(values), "max": max(values)}


def ours(stage: Stage, up: engine.Engine, load: Load) -> dict[str, float]:
    """One run of the probe."""
    text = stage.call(
        *stage.qwenhost, "probe", up.url, "--endpoint", "completions", "--json",
        "--concurrency", str(load.concurrency), "--requests", str(load.requests),
        "--input-tokens", str(load.input), "--output-tokens", str(load.output),
    )  # fmt: skip
    found = json.loads(text)
    return {
        "output_tokens_per_s": found["output_tokens_per_s"],
        "ttft_ms": found["ttft_ms"]["mean"],
        "tpot_ms": found["tpot_ms"]["mean"],
    }


def theirs(stage: Stage, up: engine.Engine, load: Load) -> dict[str, float]:
    """One run of vLLM's client."""
    kept = stage.out / "bench.json"
    model = str(stage.model(CHECKPOINT))
    stage.call(
        stage.python, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai",
        "--base-url", up.url, "--endpoint", "/v1/completions", "--model", served(up), "--tokenizer", model,
        "--dataset-name", "random", "--random-input-len", str(load.input),
        "--random-output-len", str(load.output),
        "--num-prompts", str(load.requests), "--max-concurrency", str(load.concurrency), "--ignore-eos",
        "--num-warmups", str(load.concurrency), "--save-result", "--result-dir", str(kept.parent),
        "--result-filename", kept.name,
    )  # fmt: skip
    found = json.loads(kept.read_text())
    return {
        "output_tokens_per_s": found["output_throughput"],
        "ttft_ms": found["mean_ttft_ms"],
        "tpot_ms": found["mean_tpot_ms"],
    }


def served(up: engine.Engine) -> str:
    """The name under which the engine serves."""
    with urllib.request.urlopen(f"{up.url}/v1/models", timeout=10) as answer:
        name: str = json.load(answer)["data"][0]["id"]
    return name

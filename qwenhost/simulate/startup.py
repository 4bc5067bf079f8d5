"""What vLLM prints while it starts, so that progress shown for a real start is shown for a simulated one."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.plan import Candidate

PREFIX = "[simulated]"
NOTICE = "This is a simulated engine: no model is loaded, and no figure it gives is a measurement."


def say(line: str, level: str = "INFO") -> None:
    """One line of the engine's log, framed as vLLM frames it, with the label where it names its file."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    # A log nobody reads any more must not keep the engine from draining.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"(APIServer pid={os.getpid()}) {level} {stamp} {PREFIX} {line}\n")
        sys.stderr.flush()


def startup_lines(candidate: Candidate, version: str) -> list[str]:
    """Lines of a start in vLLM's order and words, with the plan's figures."""
    args, memory, cache = candidate.engine_args, candidate.memory_per_gpu, candidate.kv_cache
    loaded = f"{memory.weights_bytes / 2**30:.2f}"
    shards = [
        f"Loading safetensors checkpoint shards: {share:3d}% Completed | {done}/4 [00:00<00:00,  1.00it/s]"
        for done, share in ((1, 25), (2, 50), (3, 75), (4, 100))
    ]
    return [
        f"  ▄▄ ▄█ █     █     █ ▀▄▀ █  version {version}",
        f"non-default args: {{'model': '{candidate.checkpoint.repo_id}', 'api_key': '***'}}",
        "Resolved architecture: Qwen3_5MoeForConditionalGeneration",
        f"Using max model len {args.max_model_len}",
        f"Chunked prefill is enabled with max_num_batched_tokens={args.max_num_batched_tokens}.",
        f"Initializing a V1 LLM engine (v{version}) with config: simulated",
        f"world_size={candidate.parallelism.world_size} rank=0 local_rank=0 backend=nccl",
        "Loading model from scratch...",
        *shards,
        "Loading weights took 1.00 seconds",
        f"Model loading took {loaded} GiB memory and 1.000000 seconds",
        (
            f"Setting attention block size to {cache.block_size} tokens to ensure that attention page size "
            "is >= mamba page size."
        ),
        "torch.compile took 1.00 s in total",
        "Initial profiling/warmup run took 1.00 s",
        f"Available KV cache memory: {memory.kv_cache_bytes / 2**30:.2f} GiB",
        (
            f"GPU KV cache size: {cache.tokens:,} tokens, Maximum concurrency for {args.max_model_len:,} "
            f"tokens per request: {cache.max_concurrency_at_max_model_len:.2f}x"
        ),
        "Capturing CUDA graphs (FULL): 100%|##########| 51/51 [00:01<00:00, 51.00it/s]",
        "Graph capturing finished in 1 secs, took 0.50 GiB",
        "init engine (profile, create kv cache, warmup model) took 3.00 s (compilation: 1.00 s)",
        "Supported tasks: ['generate']",
    ]


def start_up(
    lines: list[str], seconds: float, failure: str | None, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Print the lines evenly over a time; a failure comes two thirds through and ends the process.

    Raises:
        SystemExit: with 1, after the failure's text.
    """
    stop = len(lines) * 2 // 3 if failure is not None else len(lines)
    for line in lines[:stop]:
        sleep(seconds / len(lines))
        say(line)
    if failure is None:
        return
    if not failure:  # a start that hangs
        while True:
            sleep(3600)
    say(failure, "ERROR")
    say("RuntimeError: Engine core initialization failed. See root cause above.", "ERROR")
    raise SystemExit(1)

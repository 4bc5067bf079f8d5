"""A simulated engine as a process of its own, without a plan: one step is STEP_MS, a prompt costs nothing.

Arguments: a JSON object of options. Prints its port as the last line of its start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from qwenhost.facts import TokenStats
from qwenhost.simulate.api import Settings
from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.faults import START_FAULTS, Faults
from qwenhost.simulate.realtime import Host
from qwenhost.simulate.server import Options, read_keys, serve

given = {
    "step_ms": 10.0, "faults": [], "key_file": None, "port": 0, "shutdown_timeout_s": 10.0, "drafts": 0,
    "thinking_share": 0.0, "startup_seconds": 0.0, "ranks": 1,
} | json.loads(sys.argv[1])  # fmt: skip
config = EngineConfig(
    max_model_len=2000,
    max_num_seqs=64,
    max_num_batched_tokens=4096,
    num_blocks=1001,
    block_size=16,
    state_blocks_per_sequence=3 * (1 + given["drafts"]),
    num_speculative_tokens=given["drafts"],
    acceptance_rates=(0.8, 0.5)[: given["drafts"]],
    data_parallel_size=given["ranks"],
)
faults = Faults(given["faults"])
struck = faults.at_start()
serve(
    Host(config, lambda _: given["step_ms"] / 1000, model="qwen"),
    Settings(
        model="Qwen/test",
        served_model_names=("qwen",),
        max_model_len=config.max_model_len,
        vllm_version="0.33.0",
        output_tokens=TokenStats(mean=40),
        thinking_share=given["thinking_share"],
        api_keys=read_keys(Path(given["key_file"]) if given["key_file"] else None),
    ),
    faults,
    Options("127.0.0.1", given["port"], given["startup_seconds"], given["shutdown_timeout_s"]),
    lines=[
        "Loading model from scratch...",
        "Available KV cache memory: 1.00 GiB",
        "Supported tasks: ['generate']",
    ],
    failure=None if struck is None else START_FAULTS[struck],
)

"""A plan made by hand: 2x H200, the FP8 checkpoint at TP2 with one draft token."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from qwenhost.facts import Slo, Source, TokenStats, Workload
from qwenhost.node import Gpu, Node
from qwenhost.plan import (
    Candidate,
    CheckpointRef,
    EngineArgs,
    Estimate,
    KvCache,
    MemoryBreakdown,
    Parallelism,
    Pins,
    Plan,
    PlanInputs,
    SpeculativeConfig,
    SpeedEstimate,
)

REVISION = "0123456789abcdef0123456789abcdef01234567"
GIB = 2**30
SOME = Estimate(value=1.0, low=1.0, high=1.0, basis="assumed")

CANDIDATE = Candidate(
    checkpoint=CheckpointRef(
        id="fp8",
        repo_id="Qwen/Qwen3.5-122B-A10B-FP8",
        revision=REVISION,
        quantization="fp8",
        disk_bytes=127 * 10**9,
    ),
    parallelism=Parallelism(tensor_parallel_size=2),
    engine_args=EngineArgs(
        max_model_len=262144,
        max_num_seqs=128,
        max_num_batched_tokens=8192,
        gpu_memory_utilization=0.92,
        enable_prefix_caching=False,
        speculative_config=SpeculativeConfig(num_speculative_tokens=1),
    ),
    vllm_env={"VLLM_USE_DEEP_GEMM": "0"},
    memory_per_gpu=MemoryBreakdown(
        total_bytes=140 * GIB, usable_bytes=128 * GIB, weights_bytes=60 * GIB, activation_bytes=4 * GIB,
        cudagraph_bytes=GIB, non_torch_bytes=GIB, kv_cache_bytes=62 * GIB,
    ),
    kv_cache=KvCache(
        num_blocks=2000, block_size=2112, block_bytes=2162688 * 13, tokens=3_000_000,
        max_concurrency_at_max_model_len=11.0, bytes_per_token=12288, state_bytes_per_sequence=10**8,
        state_blocks_per_sequence=6, reserved_blocks_per_sequence=9,
    ),
    estimate=SpeedEstimate(
        output_tokens_per_s=SOME, input_tokens_per_s=SOME, requests_per_s=SOME, ttft_ms=SOME, tpot_ms=SOME,
        concurrency=SOME, meets_slo=True, speed_of_light_fraction=0.5,
    ),
    usd_per_hour=None,
    usd_per_mtok_output=None,
    usd_per_mtok_blended=None,
    concurrency_at_workload=128,
    concurrency_at_max_model_len=11.0,
)  # fmt: skip


def candidate(**engine_args: Any) -> Candidate:
    """The sample with some engine arguments changed."""
    changed = msgspec.structs.replace(CANDIDATE.engine_args, **engine_args)
    return msgspec.structs.replace(CANDIDATE, engine_args=changed)


def plan(chosen: Candidate = CANDIDATE) -> Plan:
    """A plan that chose ``chosen``."""
    gpus = tuple(
        Gpu(index=i, name="NVIDIA H200", spec="h200", memory_total_bytes=140 * GIB, compute_capability=9.0)
        for i in range(2)
    )
    workload = Workload(
        id="chat",
        description="made by hand",
        input_tokens=TokenStats(mean=1000.0),
        output_tokens=TokenStats(mean=300.0),
        slo=Slo(),
        source=Source(where="made by hand", as_of=dt.date(2026, 11, 23)),
    )
    return Plan(
        inputs=PlanInputs(
            node=Node(gpus=gpus, interconnect="nvlink", origin="described", description="2x NVIDIA H200"),
            workload="chat",
            workload_detail=workload,
            slo=Slo(),
            objective="cost",
            pins=Pins(),
            concurrency=None,
            rate=None,
            gpu_price=None,
            catalog_digest="abc123",
            newest_fact="2026-11-20",
            vllm_version="0.33.0",
            qwenhost_version="0.1.0",
        ),
        chosen=chosen,
        alternatives=(),
        rejections=(),
    )

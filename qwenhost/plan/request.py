"""What the planner is asked."""

from __future__ import annotations

from typing import Literal

from qwenhost.facts import Slo, Value, Workload
from qwenhost.node import Node
from qwenhost.plan.engine import DEFAULT_VLLM_VERSION, LoraOptions

Objective = Literal["cost", "throughput", "latency", "context"]


class GpuPriceRef(Value, frozen=True, kw_only=True):
    """The rent the plan was priced with."""

    usd_per_gpu_hour: float
    provider: str
    tier: str
    as_of: str
    source: str


class Pins(Value, frozen=True, kw_only=True):
    """Choices the user fixed; None = free."""

    checkpoint: str | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    data_parallel_size: int | None = None
    enable_expert_parallel: bool | None = None
    kv_cache_dtype: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    num_speculative_tokens: int | None = None
    gpu_memory_utilization: float | None = None
    enable_prefix_caching: bool | None = None
    language_model_only: bool | None = None
    gdn_prefill_backend: Literal["flashinfer", "triton"] | None = None
    mamba_ssm_cache_dtype: str | None = None
    decode_context_parallel_size: int | None = None
    replicas: int | None = None
    prefix_match_unit: int | None = None
    available_kv_bytes: int | None = None
    """Size the cache from a known figure instead of the memory model."""


class PlanRequest(Value, frozen=True, kw_only=True):
    """Everything the planner is asked, apart from the catalog."""

    node: Node
    workload: Workload
    slo: Slo
    objective: Objective = "cost"
    pins: Pins = Pins()
    concurrency: int | None = None
    """Closed loop: users at once, whole node."""
    rate: float | None = None
    """Open loop: requests per second, whole node."""
    gpu_price: GpuPriceRef | None = None
    vllm_version: str = DEFAULT_VLLM_VERSION
    memory_margin: float = 0.02
    """Share of GPU memory left unplanned, since the memory model is not exact."""
    lora: LoraOptions | None = None

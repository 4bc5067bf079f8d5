"""The decision as data: what was asked, what was chosen, what was rejected and why.

The first of two waists (planner -> render, launcher, simulate, cost, report). JSON keys follow the
``qwenhost.plan/1`` contract; more keys may come, these stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from qwenhost.facts import Basis, Slo, Value, Workload
from qwenhost.files import decode_document, encode_document, read_document
from qwenhost.node import Node

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "qwenhost.plan/1"
_NEW_PLAN = "Make a plan with: qwenhost plan --save plan.json"
DEFAULT_VLLM_VERSION = "0.33.0"

# vLLM 0.33 config/lora.py MaxLoRARanks.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
LORA_MODULES: Mapping[str, tuple[str, ...]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "o_proj": (),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
    "conv1d": (),
    "out_proj": (),
    "gate": (),
    "shared_expert_gate": (),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "down_proj": (),
    "experts": (),
    "embed_tokens": (),
    "lm_head": (),
}
"""Modules of this family that take LoRA adapters, each with those of the checkpoint it is merged from."""

Bound = Literal["hbm", "flops", "link", "host", "kv", "none"]
Objective = Literal["cost", "throughput", "latency", "context"]


class Estimate(Value, frozen=True, kw_only=True):
    """A number that knows its basis."""

    value: float
    low: float
    high: float
    basis: Basis
    bound: Bound = "none"
    """What limits it."""
    source: str = ""


class Parallelism(Value, frozen=True, kw_only=True):
    """How one engine is spread over GPUs, in vLLM's names."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    decode_context_parallel_size: int = 1
    """Tensor parallel ranks that hold different tokens instead of copies of one KV head."""
    replicas: int = 1
    """Engines of this layout on the node, each on GPUs and a port of its own, behind a router."""

    @property
    def engine_gpus(self) -> int:
        """GPUs of one engine."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size

    @property
    def world_size(self) -> int:
        """GPUs used, all engines."""
        return self.engine_gpus * self.replicas

    @property
    def serving_groups(self) -> int:
        """Groups of GPUs that each hold requests of their own: data-parallel ranks of all engines."""
        return self.data_parallel_size * self.replicas

    @property
    def label(self) -> str:
        """E.g. ``TP2``, ``TP2 DP4 EP``, ``TP4 DCP2``, ``4x TP2``."""
        parts = [f"{self.replicas}x"] if self.replicas > 1 else []
        parts.append(f"TP{self.tensor_parallel_size}")
        if self.pipeline_parallel_size > 1:
            parts.append(f"PP{self.pipeline_parallel_size}")
        if self.decode_context_parallel_size > 1:
            parts.append(f"DCP{self.decode_context_parallel_size}")
        if self.data_parallel_size > 1:
            parts.append(f"DP{self.data_parallel_size}")
        if self.enable_expert_parallel:
            parts.append("EP")
        return " ".join(parts)


class SpeculativeConfig(Value, frozen=True, kw_only=True):
    """vLLM's ``--speculative-config``."""

    method: str = "mtp"
    num_speculative_tokens: int
    moe_backend: str | None = None


class EngineArgs(Value, frozen=True, kw_only=True):
    """vLLM engine arguments under vLLM's names; ``extra`` carries those not named here."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    kv_cache_dtype: str = "auto"
    """``auto`` (= BF16 for this family), ``fp8``..."""
    enable_prefix_caching: bool = True
    language_model_only: bool = False
    speculative_config: SpeculativeConfig | None = None
    mamba_ssm_cache_dtype: str = "auto"
    gdn_prefill_backend: Literal["flashinfer", "triton"] | None = None
    """None leaves vLLM's own choice."""
    moe_backend: str | None = None
    reasoning_parser: str | None = "qwen3"
    tool_call_parser: str | None = "qwen3_coder"
    enforce_eager: bool = False
    extra: Mapping[str, Any] = {}
    """Further flags by vLLM's name with underscores, e.g. ``{"mm_encoder_tp_mode": "data"}``."""

    @property
    def num_speculative_tokens(self) -> int:
        """0 when speculative decoding is off."""
        return self.speculative_config.num_speculative_tokens if self.speculative_config else 0


class CheckpointRef(Value, frozen=True, kw_only=True):
    """Which weights, by hub name and revision."""

    id: str
    repo_id: str
    revision: str | None
    quantization: str
    disk_bytes: int


class MemoryBreakdown(Value, frozen=True, kw_only=True):
    """One GPU's memory, in bytes; the parts sum to ``usable_bytes``."""

    total_bytes: int
    usable_bytes: int
    """total * gpu_memory_utilization, as vLLM rounds it."""
    weights_bytes: int
    activation_bytes: int
    cudagraph_bytes: int
    non_torch_bytes: int
    kv_cache_bytes: int
    """What is left for the cache; negative where the model does not fit."""
    margin_bytes: int = 0
    """Part of ``kv_cache_bytes`` that limits were not planned on, since the memory model is not exact."""
    lora_bytes: int = 0
    """Slots of LoRA adapters; vLLM's log counts them as part of the loaded model."""
    outside_bytes: int = 0
    """Held beside ``usable_bytes``: CUDA context and NCCL, taken before vLLM measures."""


class KvCache(Value, frozen=True, kw_only=True):
    """The block pool of one GPU (one data-parallel rank), as vLLM lays it out."""

    num_blocks: int
    block_size: int
    """Tokens per attention block on one rank."""
    block_bytes: int
    tokens: int
    """What vLLM logs as "GPU KV cache size"."""
    max_concurrency_at_max_model_len: float
    bytes_per_token: int
    """Per GPU, all attention layers."""
    state_bytes_per_sequence: int
    """Gated DeltaNet state blocks held by a running sequence, per GPU."""
    state_blocks_per_sequence: int
    """Steady state of a running request."""
    reserved_blocks_per_sequence: int
    """What vLLM charges a request in its concurrency figure, state blocks only."""
    context_parallel_size: int = 1
    """Ranks that hold different tokens of one block."""
    prefix_match_unit: int | None = None
    """Tokens at whose multiples prefix hits end; None = what a block stands for."""

    @property
    def hit_tokens(self) -> int:
        """Tokens at whose multiples prefix hits end."""
        return self.prefix_match_unit or self.block_size * self.context_parallel_size

    def blocks_for(self, tokens: int) -> int:
        """Blocks a running request of this many tokens holds."""
        span = self.block_size * self.context_parallel_size
        return -(-tokens // span) + self.state_blocks_per_sequence

    def concurrency_at(self, tokens: int) -> int:
        """Requests of this length in flight at once, one data-parallel rank; block 0 is vLLM's null block."""
        return max(0, (self.num_blocks - 1) // self.blocks_for(tokens))


class SpeedEstimate(Value, frozen=True, kw_only=True):
    """Predicted service of the whole node (all replicas) under the workload."""

    output_tokens_per_s: Estimate
    input_tokens_per_s: Estimate
    requests_per_s: Estimate
    ttft_ms: Estimate
    tpot_ms: Estimate
    concurrency: Estimate
    """Requests in flight on the whole node."""
    meets_slo: bool
    speed_of_light_fraction: float
    """Predicted output rate over the rate with ideal bandwidth and no overheads."""


class Candidate(Value, frozen=True, kw_only=True):
    """One way to run the model on the node, sized, timed and priced."""

    checkpoint: CheckpointRef
    parallelism: Parallelism
    engine_args: EngineArgs
    vllm_argv: tuple[str, ...] = ()
    """Filled by the renderer; ready to execute."""
    vllm_env: Mapping[str, str] = {}
    memory_per_gpu: MemoryBreakdown
    kv_cache: KvCache
    estimate: SpeedEstimate
    usd_per_hour: float | None
    """Of the whole node; None where no price is known."""
    usd_per_mtok_output: float | None
    """All rent charged to output tokens."""
    usd_per_mtok_blended: float | None
    """Rent over input and output tokens together."""
    concurrency_at_workload: int
    """Requests of the workload's size in flight, whole node."""
    concurrency_at_max_model_len: float
    notes: tuple[str, ...] = ()
    """Stated trade-offs, e.g. an uncalibrated FP8 cache."""

    @property
    def label(self) -> str:
        """E.g. ``fp8 TP2, 262144 ctx, kv auto``."""
        args = self.engine_args
        mtp = f", MTP {args.num_speculative_tokens}" if args.num_speculative_tokens else ""
        layout = f"{self.checkpoint.id} {self.parallelism.label}"
        return f"{layout}, {args.max_model_len} ctx, kv {args.kv_cache_dtype}{mtp}"


class Rejection(Value, frozen=True, kw_only=True):
    """A combination that was not taken, and the rule that excluded it."""

    checkpoint: str
    parallelism: str
    rule: str
    """Short stable name, e.g. ``weights_do_not_fit``, ``tp_cuts_group``."""
    need_bytes: int | None = None
    have_bytes: int | None = None
    message: str
    link: str = ""


class Fallback(Value, frozen=True, kw_only=True):
    """A smaller configuration, sized in advance, for a start that fails in a known way."""

    trigger: Literal[
        "out_of_memory", "kv_cache_too_small", "state_blocks_too_few", "cudagraph_failure", "kernel_failure"
    ]
    candidate: Candidate
    change: str
    """What differs, for people."""


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


class LoraOptions(Value, frozen=True, kw_only=True):
    """Adapters to serve beside the model, in vLLM's names."""

    max_loras: int = 1
    """Adapters in one batch, each with a slot on the GPU."""
    max_lora_rank: int = 16
    lora_target_modules: tuple[str, ...] = ()
    """Suffixes of module names that take adapters; empty = every linear layer, experts and embeddings."""
    lora_modules: Mapping[str, str] = {}
    """Folder of each adapter by the name it is served under."""


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


class PlanInputs(Value, frozen=True, kw_only=True):
    """What the plan was made from."""

    node: Node
    workload: str
    workload_detail: Workload
    slo: Slo
    objective: Objective
    pins: Pins
    concurrency: int | None
    rate: float | None
    gpu_price: GpuPriceRef | None
    catalog_digest: str
    newest_fact: str
    vllm_version: str
    qwenhost_version: str
    lora: LoraOptions | None = None


class Plan(Value, frozen=True, kw_only=True):
    """The decision."""

    schema: str = SCHEMA
    inputs: PlanInputs
    chosen: Candidate
    alternatives: tuple[Candidate, ...]
    """Best first, the chosen one not repeated."""
    rejections: tuple[Rejection, ...]
    fallbacks: tuple[Fallback, ...] = ()


class StepShape(Value, frozen=True, kw_only=True):
    """One engine step, as the speed model and the simulator exchange it."""

    prefill_tokens: int = 0
    """Prompt tokens computed in this step, all requests."""
    prefill_context_tokens: int = 0
    """Sum over prefill tokens' chunks of the context already cached before the chunk."""
    prefill_sequences: int = 1
    """Chunks (requests) among which the prefill tokens are shared evenly."""
    decode_sequences: int = 0
    """Sequences that advance by one (or, with speculation, verify one draft)."""
    decode_context_tokens: int = 0
    """Sum of their context lengths."""


def plan_to_json(plan: Plan) -> bytes:
    """Indented JSON, deterministic."""
    return encode_document(plan)


def plan_from_json(data: bytes, *, name: str = "plan") -> Plan:
    """Decode a plan.

    Raises:
        BadInputError: not JSON, another schema version, or a wrong type; names the key.
    """
    return decode_document(data, Plan, schema=SCHEMA, name=name, what="a plan", remedy=_NEW_PLAN)


def load_plan(path: Path) -> Plan:
    """Read a saved plan.

    Raises:
        BadInputError: missing, unreadable or not a plan.
    """
    return read_document(path, Plan, schema=SCHEMA, what="a plan", remedy=_NEW_PLAN)

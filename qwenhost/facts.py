"""Typed, frozen facts with their sources: models, checkpoints, GPUs, prices, workloads.

Values only. They are read from ``profiles/*.yaml`` by :mod:`qwenhost.profiles`; msgspec rejects an
unknown key, a missing source and a wrong type. Every derivation is a property, its formula written
as a product of named factors.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Literal

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every value: frozen, slotted, strict about unknown keys.

    msgspec does not hand ``kw_only`` down, so each value repeats it.
    """


class Source(Value, frozen=True, kw_only=True):
    """Where a fact comes from and when that was true."""

    where: str
    """A URL, a log, a config file, or the computation that gave the figure."""
    as_of: dt.date
    note: str = ""


Basis = Literal["measured", "modelled", "assumed"]


# --------------------------------------------------------------------------- models


class VisionTower(Value, frozen=True, kw_only=True):
    """The vision encoder's shape (Qwen3-VL family)."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    num_position_embeddings: int
    out_hidden_size: int
    in_channels: int = 3

    @property
    def parameters(self) -> int:
        """Parameters of patch embedding, positions, blocks and merger.

        Source: transformers ``modeling_qwen3_5_moe.py`` (blocks with biases, two LayerNorms;
        merger = LayerNorm + two linear layers with biases).
        """
        h, i = self.hidden_size, self.intermediate_size
        merged = h * self.spatial_merge_size**2
        patch = self.in_channels * self.temporal_patch_size * self.patch_size**2 * h + h
        positions = self.num_position_embeddings * h
        attention = (h * 3 * h + 3 * h) + (h * h + h)
        mlp = (h * i + i) + (i * h + h)
        norms = 2 * 2 * h
        merger = 2 * h + (merged * merged + merged) + (merged * self.out_hidden_size + self.out_hidden_size)
        return patch + positions + self.depth * (attention + mlp + norms) + merger


ModuleGroup = Literal[
    "embed_tokens",
    "lm_head",
    "linear_attn",
    "linear_attn_small",
    "self_attn",
    "qk_norm",
    "router",
    "routed_experts",
    "shared_expert",
    "shared_expert_gate",
    "norms",
    "mtp_fc",
    "mtp_self_attn",
    "mtp_routed_experts",
    "mtp_shared_expert",
    "mtp_small",
    "vision",
]
"""The parts of a checkpoint that carry a precision of their own.

``linear_attn`` is in_proj_qkv, in_proj_z and out_proj of the Gated DeltaNet layers;
``linear_attn_small`` is in_proj_a/b, conv1d, A_log, dt_bias and the gated norm.
``mtp_small`` is the router, the shared-expert gate and the norms of the MTP layer.
"""

TEXT_GROUPS: tuple[ModuleGroup, ...] = (
    "embed_tokens",
    "lm_head",
    "linear_attn",
    "linear_attn_small",
    "self_attn",
    "qk_norm",
    "router",
    "routed_experts",
    "shared_expert",
    "shared_expert_gate",
    "norms",
)
MTP_GROUPS: tuple[ModuleGroup, ...] = (
    "mtp_fc",
    "mtp_self_attn",
    "mtp_routed_experts",
    "mtp_shared_expert",
    "mtp_small",
)


class Architecture(Value, frozen=True, kw_only=True):
    """A Qwen3.5-MoE architecture, in the words of its ``config.json``."""

    id: str
    source: Source
    hf_architecture: str
    model_type: str
    hidden_size: int
    num_hidden_layers: int
    full_attention_interval: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    attn_output_gate: bool
    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int
    num_experts: int
    """0 in the dense siblings: their MLP is ``shared_expert_intermediate_size`` wide and has no gate."""
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    max_position_embeddings: int
    yarn_max_position_embeddings: int
    mtp_num_hidden_layers: int
    mamba_ssm_dtype: Literal["float32", "bfloat16", "float16"]
    vision: VisionTower | None

    @property
    def num_full_attention_layers(self) -> int:
        """Every ``full_attention_interval``-th layer has a KV cache that grows with tokens."""
        return self.num_hidden_layers // self.full_attention_interval

    @property
    def num_linear_attention_layers(self) -> int:
        """Gated DeltaNet layers: constant state per sequence."""
        return self.num_hidden_layers - self.num_full_attention_layers

    @property
    def linear_key_dim(self) -> int:
        """Width of q and of k in a Gated DeltaNet layer."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def linear_value_dim(self) -> int:
        """Width of v, and of the gate z, in a Gated DeltaNet layer."""
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def linear_conv_dim(self) -> int:
        """Channels of the short convolution: q, k and v."""
        return 2 * self.linear_key_dim + self.linear_value_dim

    @property
    def expert_parameters(self) -> int:
        """One routed expert: gate, up and down projections."""
        return 3 * self.hidden_size * self.moe_intermediate_size

    @property
    def self_attn_layer_parameters(self) -> int:
        """Projections q (twice as wide with the output gate), k, v and o of one full-attention layer."""
        q_width = self.num_attention_heads * self.head_dim
        kv_width = self.num_key_value_heads * self.head_dim
        gate = 2 if self.attn_output_gate else 1
        return self.hidden_size * (gate * q_width + 2 * kv_width) + q_width * self.hidden_size

    @property
    def parameters(self) -> dict[ModuleGroup, int]:
        """Parameters by module group, the MTP layer and the vision tower included.

        Source: shapes of transformers ``modeling_qwen3_5_moe.py`` and vLLM ``qwen3_5_mtp.py``;
        for 122B-A10B the text and vision groups sum to 122,562,817,776.
        """
        h, layers = self.hidden_size, self.num_hidden_layers
        full, linear = self.num_full_attention_layers, self.num_linear_attention_layers
        shared = 3 * h * self.shared_expert_intermediate_size
        mtp = self.mtp_num_hidden_layers
        gate = h if self.num_experts else 0
        linear_big = h * (self.linear_conv_dim + self.linear_value_dim) + self.linear_value_dim * h
        linear_small = (
            2 * h * self.linear_num_value_heads  # in_proj_a, in_proj_b
            + self.linear_conv_dim * self.linear_conv_kernel_dim
            + 2 * self.linear_num_value_heads  # A_log, dt_bias
            + self.linear_value_head_dim  # gated norm
        )
        return {
            "embed_tokens": self.vocab_size * h,
            "lm_head": 0 if self.tie_word_embeddings else self.vocab_size * h,
            "linear_attn": linear * linear_big,
            "linear_attn_small": linear * linear_small,
            "self_attn": full * self.self_attn_layer_parameters,
            "qk_norm": full * 2 * self.head_dim,
            "router": layers * h * self.num_experts,
            "routed_experts": layers * self.num_experts * self.expert_parameters,
            "shared_expert": layers * shared,
            "shared_expert_gate": layers * gate,
            "norms": (2 * layers + 1) * h,
            "mtp_fc": mtp * 2 * h * h,
            "mtp_self_attn": mtp * (self.self_attn_layer_parameters + 2 * self.head_dim),
            "mtp_routed_experts": mtp * self.num_experts * self.expert_parameters,
            "mtp_shared_expert": mtp * shared,
            "mtp_small": mtp * (h * self.num_experts + gate + 2 * h) + (3 * h if mtp else 0),
            "vision": self.vision.parameters if self.vision else 0,
        }

    @property
    def total_parameters(self) -> int:
        """Everything in the full-precision checkpoint."""
        return sum(self.parameters.values())


# --------------------------------------------------------------------------- checkpoints


class WeightFormat(Value, frozen=True, kw_only=True):
    """How a group of weights is stored, scales included.

    ``bytes_per_parameter`` = bits/8 + scale_bits/8/scale_block_parameters + extra.
    """

    id: str
    source: Source
    bits: float
    """Bits per stored weight."""
    scale_bits: float = 0
    """Bits of one scale."""
    loaded_scale_bits: float | None = None
    """Bits of one scale in memory, where vLLM widens it on load (block FP8: float32); None = as stored."""
    scale_block: tuple[int, int] = (1, 1)
    """(rows, columns) of weights that share one scale; ``(1, 128)`` is group size 128."""
    zero_bits: float = 0
    """Bits of one zero point; same block as the scale."""
    dropped_bits: float = 0
    """Bits per scale block that the files hold and vLLM drops on load (zero points of symmetric GPTQ)."""
    compute: Literal["bf16", "fp8", "fp4"] = "bf16"
    """Arithmetic used where the GPU is native to it; otherwise weight-only through Marlin."""
    native_compute_capability: float = 0.0
    """Lowest capability whose tensor cores run ``compute`` directly; 0 = any."""

    @property
    def bytes_per_parameter(self) -> float:
        """Mean bytes per parameter in memory, scales and zero points included."""
        scale_bits = self.scale_bits if self.loaded_scale_bits is None else self.loaded_scale_bits
        return self._mean_bytes(scale_bits + self.zero_bits)

    @property
    def stored_bytes_per_parameter(self) -> float:
        """Mean bytes per parameter in the files, what vLLM drops on load included."""
        return self._mean_bytes(self.scale_bits + self.zero_bits + self.dropped_bits)

    def _mean_bytes(self, bits_per_block: float) -> float:
        rows, columns = self.scale_block
        return self.bits / 8 + bits_per_block / 8 / (rows * columns)

    @property
    def group_size(self) -> int:
        """Columns that share a scale; tensor parallel shards must not cut a group."""
        return self.scale_block[1] if self.scale_bits else 1


Sharding = Literal["tensor", "kv_heads", "vocabulary", "experts", "whole_experts", "replicated"]
"""How vLLM spreads a tensor over ranks: cut by tensor parallel size; K and V only down to one head;
rows of the padded vocabulary; experts over all TP x DP ranks, or over them only with expert
parallelism; or the same on every rank."""


class WeightPart(Value, frozen=True, kw_only=True):
    """Bytes of one module group that are sharded one way, as vLLM holds them after loading."""

    group: ModuleGroup
    sharding: Sharding
    bytes: int
    """All layers, all ranks."""
    layer_bytes: tuple[int, ...] = ()
    """By decoder layer, where those that have the group differ (pruned experts); sums to ``bytes``."""


class QualityNote(Value, frozen=True, kw_only=True):
    """A published score of this checkpoint beside its baseline."""

    benchmark: str
    baseline: float
    score: float
    source: Source


class Checkpoint(Value, frozen=True, kw_only=True):
    """A published set of weights: which module is stored how."""

    id: str
    """Short name for ``--checkpoint``, e.g. ``fp8``."""
    repo_id: str
    revision: str | None = None
    """Commit of the hub repository; None where none was seen, then the head is used and said so."""
    architecture: str
    """Id of the :class:`Architecture`."""
    quantization: str
    """vLLM's name of the method (``fp8``, ``gptq_marlin``, ``modelopt_fp4``...), ``none`` for BF16."""
    formats: Mapping[str, str]
    """WeightFormat id by module group; ``default`` for those not listed."""
    mtp: bool
    """Whether the checkpoint carries the MTP layer."""
    disk_bytes: int
    disk_bytes_basis: Basis
    min_compute_capability: float
    native_compute_capability: float = 0.0
    """Below this the kernels are weight-only (Marlin)."""
    max_tensor_parallel_size: int
    declared_kv_cache_dtype: str | None = None
    """KV type the checkpoint is calibrated for, if it says so."""
    replicated_groups: tuple[ModuleGroup, ...] = ()
    """Groups this quantization cannot shard, beyond those vLLM always replicates."""
    weights: tuple[WeightPart, ...] = ()
    """True sizes from the headers of the safetensors files; empty = computed from ``formats``."""
    measured_load_bytes: Mapping[str, int] = {}
    """"Model loading took" by tensor parallel size as text, from logs."""
    quality: tuple[QualityNote, ...] = ()
    official: bool = False
    """Published by the model's maker."""
    recommended: bool = True
    """False keeps it selectable by name but out of the search (unclear provenance or layout)."""
    caveats: tuple[str, ...] = ()
    source: Source

    def format_of(self, group: ModuleGroup) -> str:
        """Id of the weight format of a module group."""
        return self.formats.get(group, self.formats["default"])


# --------------------------------------------------------------------------- hardware


GpuArchitecture = Literal["ampere", "ada", "hopper", "blackwell", "blackwell_consumer", "cdna3", "cdna4"]


class GpuSpec(Value, frozen=True, kw_only=True):
    """A GPU product as NVML reports it, with its limits."""

    id: str
    name: str
    """NVML product name."""
    nvml_pattern: str
    """Regular expression on the NVML name."""
    aliases: tuple[str, ...]
    """Names accepted by ``--gpus``, lower case, without spaces."""
    architecture: GpuArchitecture
    vendor: Literal["nvidia", "amd"] = "nvidia"
    memory_bytes: int
    """Total as NVML reports it."""
    hbm_bytes_per_s: float
    bf16_flops: float
    """Dense, per second."""
    fp8_flops: float | None = None
    fp4_flops: float | None = None
    link: Literal["nvlink", "pcie"]
    link_bytes_per_s: float
    """One direction, per GPU."""
    peer_to_peer: bool = True
    """Whether GPUs can read one another's memory over the link."""
    compute_capability: float
    power_w: float
    unified_memory: bool = False
    """Memory shared with the CPU (GB10)."""
    source: Source


class GpuPrice(Value, frozen=True, kw_only=True):
    """Rent of one GPU for one hour; instance price divided by its GPUs."""

    gpu: str
    provider: str
    tier: Literal["on_demand", "hyperscaler", "reserved_1y", "spot", "community"]
    usd_per_gpu_hour: float
    min_gpus: int = 1
    source: Source


class OwnedGpu(Value, frozen=True, kw_only=True):
    """Purchase figures of one GPU, its share of the server included, for owned hardware."""

    gpu: str
    purchase_usd_low: float
    purchase_usd_high: float
    facility_kw: float
    """Power at the meter per GPU, its share of the server included."""
    source: Source


# --------------------------------------------------------------------------- API prices


class TokenRates(Value, frozen=True, kw_only=True):
    """USD per million tokens, by bucket."""

    input: float
    output: float
    cache_write_5m: float | None = None
    cache_write_1h: float | None = None
    cache_read: float | None = None
    """None: no cached-input price is published; cached tokens are billed as input."""


class RatePeriod(Value, frozen=True, kw_only=True):
    """Rates that held between two dates (both inclusive; None = open)."""

    since: dt.date | None = None
    until: dt.date | None = None
    usd_per_mtok: TokenRates
    long_context_threshold_tokens: int | None = None
    """Input tokens above which ``long_context_usd_per_mtok`` applies to the whole request."""
    long_context_usd_per_mtok: TokenRates | None = None
    source: Source


class CacheRules(Value, frozen=True, kw_only=True):
    """Prompt-cache mechanics of an API."""

    min_prefix_tokens: int
    ttl_s: tuple[int, ...]
    read_refreshes_ttl: bool
    max_breakpoints: int = 4


class ImageRule(Value, frozen=True, kw_only=True):
    """Image tokens = ceil(w/patch) * ceil(h/patch) after downscaling to the limits."""

    patch_px: int
    max_long_edge_px: int
    max_tokens: int


class TokenizerRatio(Value, frozen=True, kw_only=True):
    """Tokens this API counts for the same text, per Qwen3.5 token, by content."""

    prose: float
    prose_low: float
    prose_high: float
    code: float
    code_low: float
    code_high: float
    other: float = 1.0
    source: Source


class RateLimit(Value, frozen=True, kw_only=True):
    """A usage tier's limits."""

    tier: str
    requests_per_minute: int
    input_tokens_per_minute: int
    output_tokens_per_minute: int
    spend_cap_usd_per_month: float | None = None


class ApiPrice(Value, frozen=True, kw_only=True):
    """A hosted model's price sheet."""

    id: str
    name: str
    kind: Literal["claude", "hosted_qwen", "other"]
    provider: str
    model: str
    periods: tuple[RatePeriod, ...]
    batch_multiplier: float | None = None
    residency_multiplier: Mapping[str, float] = {}
    cache: CacheRules | None = None
    image: ImageRule | None = None
    tool_system_prompt_tokens: Mapping[str, int] = {}
    fees_usd: Mapping[str, float] = {}
    """Per-request fees by name, e.g. ``web_search_per_1000``."""
    tokenizer: TokenizerRatio | None = None
    """None: same tokenizer as Qwen3.5."""
    rate_limits: tuple[RateLimit, ...] = ()
    context_tokens: int
    max_output_tokens: int | None = None
    baseline: bool = False
    """Whether ``compare`` uses it unless told otherwise."""
    caveats: tuple[str, ...] = ()
    source: Source


# --------------------------------------------------------------------------- workloads, quality


class Slo(Value, frozen=True, kw_only=True):
    """A service level: limits at a percentile of requests."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    percentile: float = 90.0


class TokenStats(Value, frozen=True, kw_only=True):
    """Tokens per request."""

    mean: float
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class Workload(Value, frozen=True, kw_only=True):
    """What the users send: sizes, reuse, rhythm and what they expect."""

    id: str
    description: str
    input_tokens: TokenStats
    """Whole prompt, cached prefix included, in Qwen3.5 tokens as measured by its source."""
    output_tokens: TokenStats
    """Thinking included."""
    prefix_hit_5m: float | None = None
    """Share of input tokens found in a cache that forgets after 5 minutes; None = not published."""
    prefix_hit_1h: float | None = None
    prefix_hit_unbounded: float | None = None
    thinking_share: float = 0.0
    """Share of output tokens spent thinking."""
    image_tokens: float = 0.0
    """Mean image tokens per request, part of ``input_tokens``."""
    requests_per_session: float = 1.0
    gap_s_p50: float | None = None
    """Median time between two requests of a session; None = not published."""
    gap_s_p95: float | None = None
    content: Literal["prose", "code", "other"] = "other"
    mean_over_peak: float | None = None
    """Mean demand over peak demand; None = take the catalog's default for the kind of service."""
    slo: Slo
    synthetic: bool = False
    licence: str = ""
    source: Source


class BenchmarkScore(Value, frozen=True, kw_only=True):
    """A published score."""

    benchmark: str
    model: str
    """``qwen3.5-122b-a10b`` or ``claude-sonnet-4.6``."""
    score: float
    unit: str = "%"
    by: Literal["maker", "third_party"]
    like_for_like: bool = True
    remark: str = ""
    source: Source


class CostPerTask(Value, frozen=True, kw_only=True):
    """A published mean cost of one benchmark task at list prices."""

    benchmark: str
    model: str
    usd_per_task: float
    score: float
    remark: str = ""
    source: Source


class Assumption(Value, frozen=True, kw_only=True):
    """A number nobody published, with its range."""

    id: str
    value: float
    low: float
    high: float
    unit: str
    why: str
    source: Source


# --------------------------------------------------------------------------- calibration


class KernelConstants(Value, frozen=True, kw_only=True):
    """time = t0 + (memory_time^4 + compute_time^4)^(1/4), at these efficiencies."""

    t0_s: float
    bandwidth_efficiency: float
    flops_efficiency: float


class Calibration(Value, frozen=True, kw_only=True):
    """Constants of the speed and memory models for one GPU architecture, with what they rest on."""

    id: str
    gpu_architecture: str
    gpu: str | None = None
    """A GPU id where it holds for that product only; else the whole architecture."""
    vllm_version: str
    kernels: Mapping[str, KernelConstants]
    """By kernel class: ``gemm_bf16``, ``gemm_fp8``, ``moe_bf16``, ``moe_fp8``, ``moe_int4``, ``moe_fp4``,
    ``gdn_decode``..."""
    constants: Mapping[str, float]
    """Named constants, units in the names."""
    relative_band_low: float
    """A prediction p spans p*(1-low) to p*(1+high)."""
    relative_band_high: float
    basis: Basis
    measurements: tuple[str, ...]
    """What the constants were fitted to."""
    source: Source


class Catalog(Value, frozen=True, kw_only=True):
    """Everything known, merged from the profile directories."""

    architectures: Mapping[str, Architecture]
    formats: Mapping[str, WeightFormat]
    checkpoints: Mapping[str, Checkpoint]
    gpus: Mapping[str, GpuSpec]
    gpu_prices: tuple[GpuPrice, ...]
    owned_gpus: Mapping[str, OwnedGpu]
    api_prices: Mapping[str, ApiPrice]
    workloads: Mapping[str, Workload]
    benchmarks: tuple[BenchmarkScore, ...]
    costs_per_task: tuple[CostPerTask, ...]
    assumptions: Mapping[str, Assumption]
    calibrations: Mapping[str, Calibration]
    digest: str
    """SHA-256 over the content of every profile file, in order."""
    newest_fact: dt.date

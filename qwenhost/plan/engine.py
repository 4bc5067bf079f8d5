"""How vLLM is run: its arguments, its layout over GPUs, its adapters, in its own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from qwenhost.facts import AtLeastOne, Share, Value

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


Ranks = Annotated[int, msgspec.Meta(ge=1, le=1024)]
"""Of one kind in a layout. More are no plan of ours; a file that says so would be worked on for hours."""


class Parallelism(Value, frozen=True, kw_only=True):
    """How one engine is spread over GPUs, in vLLM's names."""

    tensor_parallel_size: Ranks = 1
    pipeline_parallel_size: Ranks = 1
    data_parallel_size: Ranks = 1
    enable_expert_parallel: bool = False
    decode_context_parallel_size: Ranks = 1
    """Tensor parallel ranks that hold different tokens instead of copies of one KV head."""
    replicas: Ranks = 1
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
    num_speculative_tokens: AtLeastOne
    moe_backend: str | None = None


class EngineArgs(Value, frozen=True, kw_only=True):
    """vLLM engine arguments under vLLM's names; ``extra`` carries those not named here."""

    max_model_len: AtLeastOne
    max_num_seqs: AtLeastOne
    max_num_batched_tokens: AtLeastOne
    gpu_memory_utilization: Share
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


class LoraOptions(Value, frozen=True, kw_only=True):
    """Adapters to serve beside the model, in vLLM's names."""

    max_loras: AtLeastOne = 1
    """Adapters in one batch, each with a slot on the GPU."""
    max_lora_rank: AtLeastOne = 16
    lora_target_modules: tuple[str, ...] = ()
    """Suffixes of module names that take adapters; empty = every linear layer, experts and embeddings."""
    lora_modules: Mapping[str, str] = {}
    """Folder of each adapter by the name it is served under."""


class CheckpointRef(Value, frozen=True, kw_only=True):
    """Which weights, by hub name and revision."""

    id: str
    repo_id: str
    revision: str | None
    quantization: str
    disk_bytes: int

"""Model architectures: their shapes, and the parameters that follow from them."""

from __future__ import annotations

from typing import Literal

from qwenhost.facts.base import Source, Value


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
    norm_all_reduces_per_layer: int = 0
    """Norms over the heads of all ranks: each an all-reduce of two FP32 numbers a token."""

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

"""A checkpoint's parts computed from the architecture's shapes and the checkpoint's formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.facts import WeightPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qwenhost.facts import Architecture, Checkpoint, ModuleGroup, Sharding, VisionTower, WeightFormat

BF16_BYTES: Final = 2
# A_log is float32 whatever the file holds:
# https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/model_executor/layers/mamba/gdn/qwen_gdn_linear_attn.py#L649
A_LOG_EXTRA_BYTES: Final = 2

_Rows = list[tuple["ModuleGroup", "Sharding", int]]
"""(group, sharding, parameters)."""


def computed_parts(
    architecture: Architecture, checkpoint: Checkpoint, formats: Mapping[str, WeightFormat]
) -> Iterator[WeightPart]:
    """Bytes by group and sharding, the MTP layer and the vision tower included."""
    for group, sharding, parameters in _rows(architecture, checkpoint):
        if parameters:
            norms = group == "mtp_self_attn" and sharding == "replicated"
            each = BF16_BYTES if norms else formats[checkpoint.format_of(group)].bytes_per_parameter
            yield WeightPart(group=group, sharding=sharding, bytes=round(parameters * each))
    a_log = architecture.num_linear_attention_layers * architecture.linear_num_value_heads
    yield WeightPart(group="linear_attn_small", sharding="tensor", bytes=a_log * A_LOG_EXTRA_BYTES)


def _rows(arch: Architecture, checkpoint: Checkpoint) -> _Rows:
    parameters = arch.parameters
    replicated = checkpoint.replicated_groups
    sharded: tuple[ModuleGroup, ...] = ("linear_attn", "shared_expert", "mtp_shared_expert", "mtp_fc")
    whole: tuple[ModuleGroup, ...] = (
        "qk_norm", "router", "shared_expert_gate", "norms", "mtp_small",
    )  # fmt: skip
    rows: _Rows = [
        ("embed_tokens", "vocabulary", parameters["embed_tokens"]),
        ("lm_head", "vocabulary", parameters["lm_head"]),
        ("routed_experts", "experts", parameters["routed_experts"]),
        ("mtp_routed_experts", "experts", parameters["mtp_routed_experts"]),
    ]
    rows += [
        (group, "replicated" if group in replicated else "tensor", parameters[group]) for group in sharded
    ]
    rows += [(group, "replicated", parameters[group]) for group in whole]
    rows += _linear_attn_small(arch, whole="linear_attn_small" in replicated)
    rows += _self_attn(arch, "self_attn", arch.num_full_attention_layers)
    if arch.mtp_num_hidden_layers:
        rows += _self_attn(arch, "mtp_self_attn", arch.mtp_num_hidden_layers)
        rows.append(("mtp_self_attn", "replicated", arch.mtp_num_hidden_layers * 2 * arch.head_dim))
    if arch.vision:
        rows += _vision(arch.vision)
    return rows


def _linear_attn_small(arch: Architecture, *, whole: bool) -> _Rows:
    """in_proj_ba is replicated under GPTQ, AWQ and AutoRound: Marlin needs 64 columns.

    Source: https://github.com/vllm-project/vllm/issues/35924, ``maybe_disable_tp`` of the layer.
    """
    layers, heads = arch.num_linear_attention_layers, arch.linear_num_value_heads
    in_proj_ba = layers * 2 * arch.hidden_size * heads
    norm = layers * arch.linear_value_head_dim
    rest = layers * (arch.linear_conv_dim * arch.linear_conv_kernel_dim + 2 * heads)
    return [
        ("linear_attn_small", "replicated" if whole else "tensor", in_proj_ba),
        ("linear_attn_small", "tensor", rest),  # conv1d, A_log, dt_bias
        ("linear_attn_small", "replicated", norm),
    ]


def _self_attn(arch: Architecture, group: ModuleGroup, layers: int) -> _Rows:
    """K and V are cut down to one head a rank and then repeated; q, its gate and o by ranks."""
    kv = layers * 2 * arch.hidden_size * arch.head_dim * arch.num_key_value_heads
    return [
        (group, "tensor", layers * arch.self_attn_layer_parameters - kv),
        (group, "kv_heads", kv),
    ]


def _vision(tower: VisionTower) -> _Rows:
    """Linear layers are cut; norms, positions, patches and the biases of row-parallel layers are not.

    Source: vLLM 0.33 ``models/qwen3_vl.py`` Qwen3_VisionTransformer.
    """
    h = tower.hidden_size
    patch = tower.in_channels * tower.temporal_patch_size * tower.patch_size**2 * h + h
    positions = tower.num_position_embeddings * h
    norms = tower.depth * 2 * 2 * h + 2 * h
    row_biases = tower.depth * 2 * h + tower.out_hidden_size  # attn.proj, linear_fc2, merger.linear_fc2
    whole = patch + positions + norms + row_biases
    return [("vision", "replicated", whole), ("vision", "tensor", tower.parameters - whole)]

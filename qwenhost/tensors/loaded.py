"""What vLLM holds of each stored tensor, and how it is sharded.

Source: vLLM 0.33 ``model_executor/layers/quantization`` and ``layers/fused_moe/oracle``; held against
its own layers in ``tests/e2e/test_weight_oracle.py``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.facts import WeightPart

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qwenhost.facts import Architecture, ModuleGroup, Sharding
    from qwenhost.tensors.header import Tensor
    from qwenhost.tensors.names import Place

FLOATS: Final = frozenset(("BF16", "F16", "F32", "F64"))
MODEL_BYTES: Final = 2  # vLLM holds unquantized weights in the model's type, BF16
FLOAT32_BYTES: Final = 4
_SPLIT_TEXT: Final = frozenset(
    ("linear_attn", "self_attn", "shared_expert", "mtp_self_attn", "mtp_shared_expert", "mtp_fc")
)
_EXPERTS: Final = frozenset(("routed_experts", "mtp_routed_experts"))
_ROW_PARALLEL: Final = frozenset(("o_proj", "out_proj", "down_proj"))
_SPLIT_SMALL: Final = frozenset(("conv1d", "A_log", "dt_bias"))
_BA: Final = frozenset(("in_proj_a", "in_proj_b", "in_proj_ba"))


class Method(NamedTuple):
    """What of the quantization configuration decides about loading."""

    name: str
    """As vLLM names it: ``fp8``, ``auto_gptq``, ``compressed-tensors``, ``modelopt_fp4``, ``none``..."""
    symmetric: bool
    desc_act: bool
    bits: int | None


class Stored(NamedTuple):
    """A tensor and its place."""

    tensor: Tensor
    place: Place


def parts_of(stored: Iterable[Stored], method: Method, architecture: Architecture) -> tuple[WeightPart, ...]:
    """Bytes by group and sharding; layers that differ are listed."""
    by_module: dict[str, list[Stored]] = defaultdict(list)
    for one in stored:
        by_module[one.place.key].append(one)
    totals: dict[tuple[ModuleGroup, Sharding], dict[int | None, int]] = defaultdict(lambda: defaultdict(int))
    for module in by_module.values():
        for one in module:
            size = _loaded_bytes(one, module, method)
            if size:
                totals[one.place.group, _sharding(one, method)][one.place.layer] += size
    return tuple(
        WeightPart(
            group=group,
            sharding=sharding,
            bytes=sum(layers.values()),
            layer_bytes=_differing(layers, architecture),
        )
        for (group, sharding), layers in sorted(totals.items())
    )


def _loaded_bytes(one: Stored, module: Sequence[Stored], method: Method) -> int:
    tensor, place = one.tensor, one.place
    if place.module == "A_log":
        return tensor.elements * FLOAT32_BYTES
    if place.role in ("weight", "bias"):
        return tensor.elements * MODEL_BYTES if tensor.dtype in FLOATS else tensor.stored_bytes
    if place.role == "scale":
        return _scale_bytes(tensor, module)
    if place.role in ("global_scale", "input_scale"):
        return tensor.elements * FLOAT32_BYTES
    if place.role == "zero_point":
        # Marlin drops those of symmetric linear layers; its MoE path keeps them.
        dropped = method.symmetric and place.group not in _EXPERTS
        return 0 if dropped else tensor.stored_bytes
    return tensor.stored_bytes if method.desc_act and tensor.shape and tensor.elements > 2 else 0


def _scale_bytes(tensor: Tensor, module: Sequence[Stored]) -> int:
    """Scales of FP8 weights are float32 in memory, those of packed integers the model's type."""
    if tensor.dtype not in FLOATS:
        return tensor.stored_bytes
    of_fp8 = any(s.place.role == "weight" and s.tensor.dtype.startswith("F8_") for s in module)
    return tensor.elements * (FLOAT32_BYTES if of_fp8 else MODEL_BYTES)


def _sharding(one: Stored, method: Method) -> Sharding:
    place = one.place
    group = place.group
    if group in ("embed_tokens", "lm_head"):
        return "vocabulary"
    if group in _EXPERTS and place.role != "input_scale":  # of all experts, on every rank
        return "whole_experts" if _is_whole(one) else "experts"
    if group in _SPLIT_TEXT and place.module in ("k_proj", "v_proj") and not _is_whole(one):
        return "kv_heads"
    return "tensor" if _is_cut(one, method) else "replicated"


def _is_cut(one: Stored, method: Method) -> bool:
    """Whether tensor parallelism divides it."""
    place = one.place
    if place.group == "vision":
        return _is_cut_vision(place)
    if place.group == "linear_attn_small":
        if place.module in _BA:
            return method.name not in ("auto_gptq", "auto_awq", "inc")
        return place.module in _SPLIT_SMALL
    return place.group in _SPLIT_TEXT and place.module not in ("q_norm", "k_norm") and not _is_whole(one)


def _is_whole(one: Stored) -> bool:
    """One value for the whole tensor, or one an output row of a layer that is cut along its input."""
    tensor, place = one.tensor, one.place
    if place.role in ("global_scale", "input_scale"):
        return True
    if place.role == "bias":
        return place.module in _ROW_PARALLEL
    if place.role != "scale":
        return False
    columns = [size for size in tensor.shape if size > 1]
    by_row = len(columns) <= (2 if place.group in _EXPERTS and len(tensor.shape) > 2 else 1)
    return by_row and (place.module in _ROW_PARALLEL or not columns)


def _is_cut_vision(place: Place) -> bool:
    """Linear layers are cut; norms, positions, patches and the biases of row-parallel layers are not."""
    column = place.module.endswith(("attn.qkv", "linear_fc1"))
    row = place.module.endswith(("attn.proj", "linear_fc2"))
    return column or (row and place.role != "bias")


def _differing(layers: Mapping[int | None, int], architecture: Architecture) -> tuple[int, ...]:
    """Bytes by layer, unless all layers that have any hold the same."""
    sizes = {size for layer, size in layers.items() if layer is not None}
    if len(sizes) <= 1 or None in layers:
        return ()
    return tuple(layers.get(layer, 0) for layer in range(architecture.num_hidden_layers))

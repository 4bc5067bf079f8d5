"""What a tensor's name says: module group, layer, module and role, in every spelling in use.

Spellings: BF16; block FP8 ``weight_scale_inv``; GPTQ and AutoRound ``qweight qzeros scales g_idx``;
compressed-tensors ``weight_packed weight_scale weight_global_scale input_global_scale``; ModelOpt
``weight_scale weight_scale_2 input_scale``; MXFP4 ``blocks scales``; experts fused or one by one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from qwenhost.facts import ModuleGroup

Role = Literal["weight", "scale", "global_scale", "input_scale", "zero_point", "index", "bias"]

_ROLES: Final[dict[str, Role]] = {
    "weight": "weight", "qweight": "weight", "weight_packed": "weight", "blocks": "weight",
    "weight_scale_inv": "scale", "scale_inv": "scale", "weight_scale": "scale", "scales": "scale",
    "scale": "scale",
    "weight_scale_2": "global_scale", "weight_global_scale": "global_scale", "input_scale": "input_scale",
    "input_global_scale": "input_scale", "k_scale": "global_scale", "v_scale": "global_scale",
    "q_scale": "global_scale",
    "qzeros": "zero_point", "weight_zero_point": "zero_point",
    "g_idx": "index", "weight_g_idx": "index", "weight_shape": "index",
    "bias": "bias",
}  # fmt: skip
_FUSED: Final = re.compile(r"(gate_up_proj|down_proj|gate_proj|up_proj)(?:_(\w+))?")
_LAYER: Final = re.compile(r"layers\.(\d+)\.(.+)")
_EXPERT: Final = re.compile(r"experts\.\d+\.")
_WITHOUT_SUFFIX: Final = frozenset(("A_log", "dt_bias"))
_IN_TEXT: Final = re.compile(r"^(?:model\.language_model\.|language_model\.model\.|language_model\.|model\.)")
_VISION: Final = re.compile(r"^(?:model\.)?visual\.(.+)")
_MTP: Final = re.compile(r"^(?:model\.)?mtp\.(.+)")
_LINEAR_BIG: Final = frozenset(("in_proj_qkv", "in_proj_z", "in_proj_qkvz", "out_proj"))
_LINEAR_SMALL: Final = frozenset(("in_proj_a", "in_proj_b", "in_proj_ba", "conv1d", "norm", *_WITHOUT_SUFFIX))
_LAYER_NORMS: Final = frozenset(("input_layernorm", "post_attention_layernorm"))
_MTP_SMALL: Final = frozenset(("norm", "pre_fc_norm_hidden", "pre_fc_norm_embedding"))
_MTP_GROUPS: Final[dict[ModuleGroup, ModuleGroup]] = {
    "self_attn": "mtp_self_attn", "qk_norm": "mtp_self_attn", "routed_experts": "mtp_routed_experts",
    "shared_expert": "mtp_shared_expert", "router": "mtp_small", "shared_expert_gate": "mtp_small",
    "norms": "mtp_small",
}  # fmt: skip


class Place(NamedTuple):
    """Where a tensor belongs."""

    group: ModuleGroup
    layer: int | None
    """Decoder layer; None outside them and in the MTP layer."""
    key: str
    """The module it is part of, with layer and expert: tensors with one key make one weight."""
    module: str
    """The module's own name, e.g. ``o_proj``."""
    role: Role


def place_of(name: str) -> Place | None:
    """Where a tensor of this family belongs; None for one it does not have."""
    split = _split(name)
    if split is None:
        return None
    key, role = split
    module = key.rpartition(".")[2]
    if vision := _VISION.match(key):
        return Place("vision", None, key, vision.group(1), role)
    if mtp := _MTP.match(key):
        group = _mtp_group(mtp.group(1))
        return None if group is None else Place(group, None, key, module, role)
    body = _IN_TEXT.sub("", key)
    if layer := _LAYER.fullmatch(body):
        group = _layer_group(layer.group(2))
        return None if group is None else Place(group, int(layer.group(1)), key, module, role)
    outside: dict[str, ModuleGroup] = {
        "embed_tokens": "embed_tokens", "lm_head": "lm_head", "norm": "norms",
    }  # fmt: skip
    return Place(outside[body], None, key, module, role) if body in outside else None


def _split(name: str) -> tuple[str, Role] | None:
    """Module and role; fused experts carry the role behind an underscore, or none at all."""
    module, _, suffix = name.rpartition(".")
    if suffix in _ROLES and module:
        return module, _ROLES[suffix]
    if suffix in _WITHOUT_SUFFIX or module.endswith("visual.pos_embed"):
        return name, "weight"
    fused = _FUSED.fullmatch(suffix)
    if fused and (fused.group(2) is None or fused.group(2) in _ROLES):
        return f"{module}.{fused.group(1)}", _ROLES[fused.group(2) or "weight"]
    return None


def _mtp_group(body: str) -> ModuleGroup | None:
    if layer := _LAYER.fullmatch(body):
        group = _layer_group(layer.group(2))
        return None if group is None else _MTP_GROUPS.get(group)
    if body == "fc":
        return "mtp_fc"
    return "mtp_small" if body in _MTP_SMALL else None


def _layer_group(body: str) -> ModuleGroup | None:
    """The group of what stands behind ``layers.N.``."""
    block, _, rest = body.partition(".")
    if block in _LAYER_NORMS and not rest:
        return "norms"
    if block == "linear_attn":
        return (
            "linear_attn" if rest in _LINEAR_BIG else "linear_attn_small" if rest in _LINEAR_SMALL else None
        )
    if block == "self_attn":
        if rest in ("q_norm", "k_norm"):
            return "qk_norm"
        return "self_attn" if rest in ("q_proj", "k_proj", "v_proj", "o_proj") else None
    return _mlp_group(rest) if block == "mlp" else None


def _mlp_group(rest: str) -> ModuleGroup | None:
    if rest == "gate":
        return "router"
    if rest == "shared_expert_gate":
        return "shared_expert_gate"
    if rest.startswith("shared_expert.") and _FUSED.fullmatch(rest.removeprefix("shared_expert.")):
        return "shared_expert"
    if rest.startswith("experts."):
        inner = _EXPERT.sub("", rest, count=1).removeprefix("experts.")
        return "routed_experts" if _FUSED.fullmatch(inner) else None
    return None

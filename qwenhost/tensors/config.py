"""``config.json`` to an architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.facts import Architecture, VisionTower

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qwenhost.facts import Source

MOE_TYPES: Final = ("qwen3_5_moe", "qwen3_5_moe_text")
DENSE_TYPES: Final = ("qwen3_5", "qwen3_5_text")
_NOT_SHAPES: Final = ("id", "source", "hf_architecture", "model_type", "yarn_max_position_embeddings")
_READ_AS_IS: Final = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim",
    "linear_conv_kernel_dim", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
    "shared_expert_intermediate_size", "vocab_size", "max_position_embeddings",
)  # fmt: skip


def architecture_of(ref: str, config: Mapping[str, Any], *, name: str, source: Source) -> Architecture:
    """The architecture a checkpoint's configuration describes.

    Raises:
        BadInputError: another family, a dense model, or a key is missing or makes no sense.
    """
    text = config.get("text_config", config)
    kind = text.get("model_type") if isinstance(text, dict) else None
    if kind in DENSE_TYPES:
        raise BadInputError(
            f"{ref}: {kind} is the dense branch of this family; qwenhost plans its mixture-of-experts models",
            remedy="Name a checkpoint of model type qwen3_5_moe.",
        )
    if kind not in MOE_TYPES:
        raise BadInputError(
            f"{ref}: model type {kind!r} is not of the Qwen3.5-MoE family",
            remedy="Name a checkpoint of model type qwen3_5_moe.",
        )
    rows: dict[str, Any] = {key: text.get(key) for key in _READ_AS_IS}
    rows |= {
        "id": name,
        "source": source,
        "hf_architecture": (config.get("architectures") or ["Qwen3_5MoeForConditionalGeneration"])[0],
        "model_type": config.get("model_type", kind),
        "full_attention_interval": _interval(ref, text),
        "attn_output_gate": text.get("attn_output_gate", True),
        "tie_word_embeddings": config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)),
        "yarn_max_position_embeddings": text.get("max_position_embeddings"),
        "mtp_num_hidden_layers": text.get("mtp_num_hidden_layers", 0),
        "mamba_ssm_dtype": text.get("mamba_ssm_dtype", "float32"),
        "vision": _vision(config.get("vision_config")),
    }
    try:
        found = msgspec.convert(rows, Architecture)
    except msgspec.ValidationError as error:
        raise BadInputError(
            f"{ref}/config.json: {error}", remedy="Name a checkpoint with a complete config.json."
        ) from error
    _check(ref, found)
    return found


def known_architecture(found: Architecture, known: Iterable[Architecture]) -> Architecture | None:
    """The catalog's architecture of the same shapes."""
    shapes = _shapes(found)
    return next((row for row in known if _shapes(row) == shapes), None)


def _shapes(row: Architecture) -> dict[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(row).items() if key not in _NOT_SHAPES}


def _interval(ref: str, text: Mapping[str, Any]) -> int | None:
    """Every how many layers attention is full; a given list of layer types must agree."""
    types, interval = text.get("layer_types"), text.get("full_attention_interval")
    if not isinstance(types, list):
        return interval
    if interval is None:
        interval = types.index("full_attention") + 1 if "full_attention" in types else 0
    regular = isinstance(interval, int) and interval > 0 and all(
        (kind == "full_attention") == ((i + 1) % interval == 0) for i, kind in enumerate(types)
    )  # fmt: skip
    if not regular:
        raise BadInputError(
            f"{ref}/config.json: layer_types do not repeat every {interval} layers",
            remedy="Name a checkpoint whose full-attention layers stand at equal distances.",
        )
    return interval


def _vision(config: Any) -> dict[str, Any] | None:
    if not isinstance(config, dict):
        return None
    return {key: config[key] for key in VisionTower.__struct_fields__ if key in config}


def _check(ref: str, found: Architecture) -> None:
    sizes = [key for key in _READ_AS_IS if getattr(found, key) <= 0]
    if sizes or found.full_attention_interval <= 0 or found.mtp_num_hidden_layers < 0:
        raise BadInputError(
            f"{ref}/config.json: {', '.join(sizes) or 'full_attention_interval'} must be more than 0",
            remedy="Name a checkpoint with a complete config.json.",
        )

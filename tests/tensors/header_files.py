"""Checkpoints of the real shapes that take no space: headers, and files as long as their tensors."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenhost.tensors.header import DTYPE_BITS

if TYPE_CHECKING:
    from collections.abc import Iterator

TODAY = dt.date(2026, 11, 23)
CONFIGS = Path(__file__).parents[1] / "data" / "configs"
Row = tuple[str, str, tuple[int, ...]]
"""(name, dtype, shape)."""
GDN_SMALL = ("linear_attn.in_proj_a", "linear_attn.in_proj_b", "linear_attn.conv1d")
GATES = ("mlp.gate", "mlp.shared_expert_gate")
TOWER = [
    f"model.visual.blocks.{i}.{m}"
    for i in range(27)
    for m in ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")
]

QUANTIZATION: dict[str, dict[str, Any]] = {
    "bf16": {},
    "fp8": {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
        "modules_to_not_convert": [
            "lm_head",
            "mtp.fc",
            *(f"mtp.layers.0.{m}" for m in GATES),
            "model.visual.merger.linear_fc1",
            "model.visual.merger.linear_fc2",
            *TOWER,
            *(f"model.language_model.layers.{i}.{m}" for i in range(48) for m in (*GDN_SMALL, *GATES)),
        ],
    },
    "gptq": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 128,
        "sym": True,
        "desc_act": False,
        "lm_head": False,
        "dynamic": {"-:.*attn.*": {}, "-:.*shared_expert.*": {}, "-:.*mtp.*": {}, "-:.*visual.*": {}},
    },
    "nvfp4": {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
        "group_size": 16,
        "ignore": [
            "lm_head", "*linear_attn*", "*self_attn*", "*shared_expert*", "*visual*", "mtp*", "*mlp.gate",
        ],
    },
}  # fmt: skip


def write_checkpoint(folder: Path, scheme: str, *, shards: int = 3, config: Path | None = None) -> Path:
    """A folder with config, index and header-only shards of the 122B under one scheme."""
    folder.mkdir(parents=True, exist_ok=True)
    described = json.loads((config or CONFIGS / "qwen3.5-122b-a10b.json").read_text())
    if QUANTIZATION[scheme]:
        described["quantization_config"] = QUANTIZATION[scheme]
    (folder / "config.json").write_text(json.dumps(described))
    rows = list(tensors_of(described, scheme))
    weight_map = {}
    for n in range(shards):
        name = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        write_header(folder / name, rows[n::shards])
        weight_map |= {row[0]: name for row in rows[n::shards]}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def write_header(path: Path, rows: list[Row]) -> None:
    """A safetensors file with holes where its data would be."""
    header, position = {}, 0
    for name, dtype, shape in rows:
        end = position + math.prod(shape) * DTYPE_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + position)


def tensors_of(config: dict[str, Any], scheme: str) -> Iterator[Row]:
    """Every tensor of a checkpoint as it is published."""
    text = config["text_config"]
    h, vocab = text["hidden_size"], text["vocab_size"]
    yield "lm_head.weight", "BF16", (vocab, h)
    yield "model.language_model.embed_tokens.weight", "BF16", (vocab, h)
    yield "model.language_model.norm.weight", "BF16", (h,)
    for layer, kind in enumerate(text["layer_types"]):
        prefix = f"model.language_model.layers.{layer}"
        yield from _layer(prefix, text, scheme, full=kind == "full_attention")
    yield "mtp.fc.weight", "BF16", (h, 2 * h)
    for name in ("norm", "pre_fc_norm_hidden", "pre_fc_norm_embedding"):
        yield f"mtp.{name}.weight", "BF16", (h,)
    yield from _layer("mtp.layers.0", text, scheme if scheme == "fp8" else "bf16", full=True)
    yield from _vision(config["vision_config"])


def _layer(prefix: str, text: dict[str, Any], scheme: str, *, full: bool) -> Iterator[Row]:
    h, experts = text["hidden_size"], text["num_experts"]
    dense = scheme if scheme == "fp8" else "bf16"
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}.{norm}.weight", "BF16", (h,)
    yield from (
        _self_attn(f"{prefix}.self_attn", text, dense)
        if full
        else _linear_attn(f"{prefix}.linear_attn", text, dense)
    )
    yield f"{prefix}.mlp.gate.weight", "BF16", (experts, h)
    yield f"{prefix}.mlp.shared_expert_gate.weight", "BF16", (1, h)
    shared, each = text["shared_expert_intermediate_size"], text["moe_intermediate_size"]
    yield from _mlp(f"{prefix}.mlp.shared_expert", h, shared, dense)
    if scheme == "bf16":
        yield f"{prefix}.mlp.experts.gate_up_proj", "BF16", (experts, 2 * each, h)
        yield f"{prefix}.mlp.experts.down_proj", "BF16", (experts, h, each)
        return
    for expert in range(experts):
        yield from _mlp(f"{prefix}.mlp.experts.{expert}", h, each, scheme)


def _self_attn(prefix: str, text: dict[str, Any], scheme: str) -> Iterator[Row]:
    h, d = text["hidden_size"], text["head_dim"]
    q, kv = text["num_attention_heads"] * d, text["num_key_value_heads"] * d
    for name, out, inner in (("q_proj", 2 * q, h), ("k_proj", kv, h), ("v_proj", kv, h), ("o_proj", h, q)):
        yield from linear(f"{prefix}.{name}", out, inner, scheme)
    for name in ("q_norm", "k_norm"):
        yield f"{prefix}.{name}.weight", "BF16", (d,)


def _linear_attn(prefix: str, text: dict[str, Any], scheme: str) -> Iterator[Row]:
    h, heads, d = text["hidden_size"], text["linear_num_value_heads"], text["linear_value_head_dim"]
    key, value = text["linear_num_key_heads"] * text["linear_key_head_dim"], heads * d
    yield from linear(f"{prefix}.in_proj_qkv", 2 * key + value, h, scheme)
    yield from linear(f"{prefix}.in_proj_z", value, h, scheme)
    yield from linear(f"{prefix}.out_proj", h, value, scheme)
    for name in ("in_proj_a", "in_proj_b"):
        yield f"{prefix}.{name}.weight", "BF16", (heads, h)
    yield f"{prefix}.conv1d.weight", "BF16", (2 * key + value, 1, text["linear_conv_kernel_dim"])
    yield f"{prefix}.A_log", "BF16", (heads,)
    yield f"{prefix}.dt_bias", "BF16", (heads,)
    yield f"{prefix}.norm.weight", "BF16", (d,)


def _mlp(prefix: str, hidden: int, inner: int, scheme: str) -> Iterator[Row]:
    yield from linear(f"{prefix}.gate_proj", inner, hidden, scheme)
    yield from linear(f"{prefix}.up_proj", inner, hidden, scheme)
    yield from linear(f"{prefix}.down_proj", hidden, inner, scheme)


def linear(name: str, out: int, inner: int, scheme: str) -> Iterator[Row]:
    """The tensors of one linear layer."""
    if scheme == "bf16":
        yield f"{name}.weight", "BF16", (out, inner)
    elif scheme == "fp8":
        yield f"{name}.weight", "F8_E4M3", (out, inner)
        yield f"{name}.weight_scale_inv", "BF16", (-(-out // 128), -(-inner // 128))
    elif scheme == "gptq":
        yield f"{name}.qweight", "I32", (inner // 8, out)
        yield f"{name}.qzeros", "I32", (inner // 128, out // 8)
        yield f"{name}.scales", "F16", (inner // 128, out)
        yield f"{name}.g_idx", "I32", (inner,)
    elif scheme == "nvfp4":
        yield f"{name}.weight", "U8", (out, inner // 2)
        yield f"{name}.weight_scale", "F8_E4M3", (out, inner // 16)
        yield f"{name}.weight_scale_2", "F32", ()
        yield f"{name}.input_scale", "F32", ()


def _vision(tower: dict[str, Any]) -> Iterator[Row]:
    h, inner = tower["hidden_size"], tower["intermediate_size"]
    merged = h * tower["spatial_merge_size"] ** 2
    patch = (tower["in_channels"], tower["temporal_patch_size"], tower["patch_size"], tower["patch_size"])
    yield from _biased("model.visual.patch_embed.proj", (h, *patch))
    yield "model.visual.pos_embed.weight", "BF16", (tower["num_position_embeddings"], h)
    for block in range(tower["depth"]):
        prefix = f"model.visual.blocks.{block}"
        for norm in ("norm1", "norm2"):
            yield from _biased(f"{prefix}.{norm}", (h,))
        yield from _biased(f"{prefix}.attn.qkv", (3 * h, h))
        yield from _biased(f"{prefix}.attn.proj", (h, h))
        yield from _biased(f"{prefix}.mlp.linear_fc1", (inner, h))
        yield from _biased(f"{prefix}.mlp.linear_fc2", (h, inner))
    yield from _biased("model.visual.merger.norm", (h,))
    yield from _biased("model.visual.merger.linear_fc1", (merged, merged))
    yield from _biased("model.visual.merger.linear_fc2", (tower["out_hidden_size"], merged))


def _biased(name: str, shape: tuple[int, ...]) -> Iterator[Row]:
    yield f"{name}.weight", "BF16", shape
    yield f"{name}.bias", "BF16", shape[:1]

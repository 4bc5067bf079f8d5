"""A checkpoint's headers become a profile with the exact bytes of every rank."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import header_files
import pytest
import yaml

from qwenhost.errors import BadInputError
from qwenhost.plan import Parallelism
from qwenhost.planner.weights import WeightSizes
from qwenhost.profiles import load_catalog
from qwenhost.tensors import Imported, import_checkpoint
from qwenhost.tensors.names import place_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.facts import Catalog

BUILT_IN = {"bf16": "bf16", "fp8": "fp8", "gptq": "gptq-int4", "nvfp4": "nvfp4"}
LAYOUTS = [
    Parallelism(),
    Parallelism(tensor_parallel_size=2),
    Parallelism(tensor_parallel_size=8),
    Parallelism(tensor_parallel_size=2, data_parallel_size=2, enable_expert_parallel=True),
    Parallelism(tensor_parallel_size=4, pipeline_parallel_size=2),
]


@pytest.mark.parametrize("scheme", ["bf16", "fp8", "gptq"])
def test_true_tensors_confirm_the_computed_profile(
    scheme: str, imported: Callable[[str], Imported], catalog: Catalog
) -> None:
    """Group by group and layout by layout, the bytes that shapes and formats give."""
    found, computed = imported(scheme).checkpoint, catalog.checkpoints[BUILT_IN[scheme]]
    assert found.architecture == computed.architecture
    assert found.formats == computed.formats
    assert found.quantization == computed.quantization
    assert found.max_tensor_parallel_size == min(16, computed.max_tensor_parallel_size)
    architecture = catalog.architectures[found.architecture]
    for layout in LAYOUTS:
        true, ours = (
            WeightSizes(architecture, one, catalog.formats).per_rank(layout, vision=True, mtp=True)
            for one in (found, computed)
        )
        assert true.bytes_by_group == ours.bytes_by_group


def test_global_scales_are_counted_too(imported: Callable[[str], Imported], catalog: Catalog) -> None:
    """NVFP4: two float32 values for each of 3 matrices of 256 experts in 48 layers, on every rank."""
    found, computed = imported("nvfp4").checkpoint, catalog.checkpoints["nvfp4"]
    architecture = catalog.architectures[found.architecture]
    for layout in (Parallelism(), Parallelism(tensor_parallel_size=4)):
        true, ours = (
            WeightSizes(architecture, one, catalog.formats).per_rank(layout, vision=True, mtp=True)
            for one in (found, computed)
        )
        assert true.total_bytes - ours.total_bytes == 48 * 256 * 3 * 2 * 4
    assert found.declared_kv_cache_dtype == "fp8"
    assert found.native_compute_capability == 10.0


def test_disk_bytes_are_those_of_the_files(imported: Callable[[str], Imported]) -> None:
    """The sum of the safetensors files: 250,172,994,016 bytes of tensors and their headers."""
    found = imported("bf16").checkpoint
    assert 250_172_994_016 < found.disk_bytes < 250_172_994_016 + 300_000
    assert found.disk_bytes_basis == "measured"


@pytest.mark.parametrize("scheme", ["bf16", "nvfp4"])
def test_the_written_profile_is_a_profile(
    scheme: str, imported: Callable[[str], Imported], tmp_path: Path
) -> None:
    """What is written loads as it was, over the built-in profiles."""
    (tmp_path / "mine.yaml").write_text(imported(scheme).to_yaml())
    loaded = load_catalog([tmp_path], use_cache=False)
    found = imported(scheme).checkpoint
    assert loaded.checkpoints[found.id] == found


def test_pruned_experts_are_counted_by_layer(catalog: Catalog, tmp_path: Path) -> None:
    """A layer with half its experts holds half: the stages of a pipeline differ accordingly."""
    folder = header_files.write_checkpoint(tmp_path / "pruned", "bf16", shards=1)
    config = json.loads((folder / "config.json").read_text())
    pruned = "model.language_model.layers.0.mlp.experts."
    rows = [
        (name, dtype, (shape[0] // 2, *shape[1:]) if name.startswith(pruned) else shape)
        for name, dtype, shape in header_files.tensors_of(config, "bf16")
    ]
    header_files.write_header(folder / "model-00001-of-00001.safetensors", rows)
    found = import_checkpoint(str(folder), catalog, today=header_files.TODAY).checkpoint
    part = next(part for part in found.weights if part.group == "routed_experts")
    layer = 256 * 3 * 3072 * 1024 * 2
    assert part.layer_bytes == (layer // 2, *[layer] * 47)
    assert part.bytes == sum(part.layer_bytes)


def test_an_unknown_architecture_comes_along(catalog: Catalog, tmp_path: Path) -> None:
    """Other shapes than those in the catalog: the profile file holds the architecture too."""
    config = json.loads((header_files.CONFIGS / "qwen3.5-122b-a10b.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 4, "layer_types": config["text_config"]["layer_types"][:4]}
    (tmp_path / "small.json").write_text(json.dumps(config))
    folder = header_files.write_checkpoint(tmp_path / "Small Model", "bf16", config=tmp_path / "small.json")
    found = import_checkpoint(str(folder), catalog, today=header_files.TODAY)
    assert found.checkpoint.id == found.checkpoint.architecture == "small-model"
    assert found.architectures[0].num_full_attention_layers == 1
    assert set(yaml.safe_load(found.to_yaml())) == {"architectures", "checkpoints"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model_type": "qwen3_5_text"}, "dense branch"),
        ({"model_type": "llama"}, "not of the Qwen3.5-MoE family"),
        ({"model_type": None}, "not of the Qwen3.5-MoE family"),
        ({"hidden_size": "3072"}, "Expected `int`, got `str` - at `$.hidden_size`"),
        ({"hidden_size": 0}, "hidden_size must be more than 0"),
        ({"num_experts": None}, "at `$.num_experts`"),
        ({"layer_types": ["full_attention"] * 48}, "layer_types do not repeat"),
    ],
)
def test_other_models_are_refused_in_words(
    change: dict[str, Any], what: str, catalog: Catalog, tmp_path: Path
) -> None:
    """Dense, foreign, incomplete or irregular configurations."""
    header_files.write_header(tmp_path / "model.safetensors", [("lm_head.weight", "BF16", (2, 2))])
    config = json.loads((header_files.CONFIGS / "qwen3.5-122b-a10b.json").read_text())
    config["text_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInputError) as caught:
        import_checkpoint(str(tmp_path), catalog, today=header_files.TODAY)
    assert what in caught.value.message


def test_foreign_tensors_are_named(catalog: Catalog, tmp_path: Path) -> None:
    """One tensor that no Qwen3.5-MoE has."""
    folder = header_files.write_checkpoint(tmp_path / "x", "bf16", shards=1)
    (folder / "model.safetensors.index.json").unlink()
    header_files.write_header(
        folder / "more.safetensors", [("model.layers.0.mlp.up_proj.weight", "BF16", (2,))]
    )
    with pytest.raises(BadInputError, match=r"first model\.layers\.0\.mlp\.up_proj\.weight"):
        import_checkpoint(str(folder), catalog, today=header_files.TODAY)


@pytest.mark.parametrize(
    ("name", "group", "layer", "role"),
    [
        ("model.language_model.layers.3.self_attn.k_proj.weight_scale_inv", "self_attn", 3, "scale"),
        ("model.layers.3.self_attn.q_norm.weight", "qk_norm", 3, "weight"),
        ("model.language_model.layers.0.linear_attn.A_log", "linear_attn_small", 0, "weight"),
        ("model.language_model.layers.0.mlp.experts.17.down_proj.qzeros", "routed_experts", 0, "zero_point"),
        ("model.language_model.layers.0.mlp.experts.17.up_proj.weight_global_scale", "routed_experts", 0,
         "global_scale"),
        ("model.language_model.layers.0.mlp.experts.gate_up_proj", "routed_experts", 0, "weight"),
        ("model.language_model.layers.0.mlp.experts.gate_up_proj_blocks", "routed_experts", 0, "weight"),
        ("model.language_model.layers.0.mlp.experts.down_proj_scales", "routed_experts", 0, "scale"),
        ("model.language_model.layers.0.mlp.shared_expert.up_proj.g_idx", "shared_expert", 0, "index"),
        ("model.language_model.layers.0.mlp.gate.weight", "router", 0, "weight"),
        ("model.language_model.norm.weight", "norms", None, "weight"),
        ("lm_head.weight", "lm_head", None, "weight"),
        ("mtp.layers.0.mlp.experts.3.gate_proj.weight", "mtp_routed_experts", None, "weight"),
        ("mtp.layers.0.mlp.gate.weight", "mtp_small", None, "weight"),
        ("mtp.fc.weight", "mtp_fc", None, "weight"),
        ("model.visual.blocks.3.attn.qkv.bias", "vision", None, "bias"),
        ("visual.pos_embed.weight", "vision", None, "weight"),
    ],
)  # fmt: skip
def test_names(name: str, group: str, layer: int | None, role: str) -> None:
    """Group, layer and role of a name."""
    place = place_of(name)
    assert place is not None
    assert (place.group, place.layer, place.role) == (group, layer, role)

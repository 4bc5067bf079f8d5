"""Weight bytes on one rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.plan import Parallelism
from qwenhost.planner.stages import stages
from qwenhost.planner.weights import WeightSizes
from qwenhost.units import GIB

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

# GiB per GPU at TP 1, 2, 4, 8 without MTP, vision included, from shapes and quantization configs.
EXPECTED = {
    "bf16": (228.29, 114.18, 57.14, 28.62),
    "fp8": (116.05, 58.06, 29.07, 14.58),
    "gptq-int4": (68.40, 34.23, 17.18, 8.64),
    "nvfp4": (73.04, 36.56, 18.33, 9.22),
    "int4-autoround": (62.71, 31.39, 15.74, 7.91),
    "nvfp4-redhat": (71.17, 35.62, 17.85, 8.97),
}


def sizes(catalog: Catalog, name: str) -> WeightSizes:
    checkpoint = catalog.checkpoints[name]
    return WeightSizes(catalog.architectures[checkpoint.architecture], checkpoint, catalog.formats)


def rank_gib(
    catalog: Catalog, name: str, *, vision: bool = True, mtp: bool = False, **layout: object
) -> float:
    parallelism = Parallelism(**layout)  # type: ignore[arg-type]
    return sizes(catalog, name).per_rank(parallelism, vision=vision, mtp=mtp).total_bytes / GIB


@pytest.mark.parametrize(("name", "gib"), EXPECTED.items())
def test_by_tensor_parallel_size(catalog: Catalog, name: str, gib: tuple[float, ...]) -> None:
    """Within 0.03 GiB, the difference that replicated in_proj_ba makes under GPTQ."""
    got = [rank_gib(catalog, name, tensor_parallel_size=tp) for tp in (1, 2, 4, 8)]
    assert got == pytest.approx(gib, abs=0.03)


def test_whole_checkpoint_is_the_file_size(catalog: Catalog) -> None:
    """BF16 with MTP and vision is the published 250,172,994,016 bytes."""
    whole = sizes(catalog, "bf16").per_rank(Parallelism(), vision=True, mtp=True).total_bytes
    assert whole == pytest.approx(250_172_994_016, abs=50_000)


def test_logs_of_loaded_checkpoints(catalog: Catalog) -> None:
    """AutoRound loaded 62.65 GiB (without MTP) and 35B GPTQ 21.06 GiB: computed within 0.5 %."""
    assert rank_gib(catalog, "int4-autoround") == pytest.approx(62.65, rel=0.005)
    assert rank_gib(catalog, "35b-gptq-int4") == pytest.approx(21.06, rel=0.005)


def test_vision_and_mtp_are_separate_terms(catalog: Catalog) -> None:
    """The tower is 0.84 GiB; MTP adds 4.70 GiB in BF16 and 2.37 GiB in FP8."""
    assert rank_gib(catalog, "bf16") - rank_gib(catalog, "bf16", vision=False) == pytest.approx(
        0.84, abs=0.01
    )
    assert rank_gib(catalog, "bf16", mtp=True) - rank_gib(catalog, "bf16") == pytest.approx(4.70, abs=0.01)
    assert rank_gib(catalog, "fp8", mtp=True) - rank_gib(catalog, "fp8") == pytest.approx(2.37, abs=0.01)


def test_data_parallel_ranks_share_experts_but_not_attention(catalog: Catalog) -> None:
    """TP1 DP2 keeps attention whole on both and half of the experts each; EP holds as many bytes."""
    single = sizes(catalog, "bf16").per_rank(Parallelism(), vision=True, mtp=False).bytes_by_group
    for ep in (False, True):
        layout = Parallelism(data_parallel_size=2, enable_expert_parallel=ep)
        double = sizes(catalog, "bf16").per_rank(layout, vision=True, mtp=False).bytes_by_group
        assert double["routed_experts"] * 2 == single["routed_experts"]
        assert double["self_attn"] == single["self_attn"]
        assert double["embed_tokens"] == single["embed_tokens"]


def test_kv_heads_are_replicated_beyond_two(catalog: Catalog) -> None:
    """TP4 keeps one of two KV heads on each rank: k and v are a half, not a quarter, of the whole."""
    arch = catalog.architectures["Qwen3.5-122B-A10B"]
    kv = 2 * arch.num_key_value_heads * arch.head_dim * arch.hidden_size * arch.num_full_attention_layers
    rest = arch.parameters["self_attn"] - kv
    got = sizes(catalog, "bf16").per_rank(Parallelism(tensor_parallel_size=4), vision=True, mtp=False)
    assert got.bytes_by_group["self_attn"] == 2 * (rest // 4 + kv // 2)


def test_pipeline_takes_the_fullest_stage(catalog: Catalog) -> None:
    """Two stages of 24 layers; the last has the head too, and every stage builds embedding and tower."""
    whole = sizes(catalog, "bf16").per_rank(Parallelism(), vision=True, mtp=False).bytes_by_group
    layout = Parallelism(pipeline_parallel_size=2)
    half = sizes(catalog, "bf16").per_rank(layout, vision=True, mtp=False).bytes_by_group
    assert half["routed_experts"] * 2 == whole["routed_experts"]
    for group in ("lm_head", "embed_tokens", "vision"):
        assert half[group] == whole[group]
    assert half["norms"] == (2 * 24 + 1) * 3072 * 2


def test_pipelined_drafts_hold_an_embedding_of_their_own(catalog: Catalog) -> None:
    """With one stage the draft shares the target's embedding; with two it keeps its own."""
    for stages_, own in ((1, None), (2, 248_320 * 3072 * 2)):
        layout = Parallelism(pipeline_parallel_size=stages_)
        rank = sizes(catalog, "bf16").per_rank(layout, vision=True, mtp=True).bytes_by_group
        assert rank.get("mtp_embed_tokens") == own


def test_shared_experts_are_whole_where_experts_and_replicas_are_split(catalog: Catalog) -> None:
    """TP2 DP2 EP runs MoE layers on shards of the sequence, each rank with whole shared experts."""
    shared = 48 * 3 * 3072 * 1024 * 2
    for ep, expected in ((False, shared // 2), (True, shared)):
        layout = Parallelism(tensor_parallel_size=2, data_parallel_size=2, enable_expert_parallel=ep)
        rank = sizes(catalog, "bf16").per_rank(layout, vision=True, mtp=False).bytes_by_group
        assert rank["shared_expert"] == expected


def test_vision_tower_per_rank(catalog: Catalog) -> None:
    """In data mode each rank holds the whole tower; cut in four it keeps norms, patches and positions."""
    layout = Parallelism(tensor_parallel_size=4)
    by_mode = {
        mode: sizes(catalog, "bf16").per_rank(layout, vision=True, mtp=False, vision_mode=mode)  # type: ignore[arg-type]
        for mode in ("weights", "data")
    }
    whole = 451_290_864 * 2
    assert by_mode["data"].bytes_by_group["vision"] == whole
    assert whole // 4 < by_mode["weights"].bytes_by_group["vision"] < whole // 4 + 8_000_000


def test_stages_give_what_is_left_to_those_before_the_last(catalog: Catalog) -> None:
    """48 layers over 5 stages: 9, 10, 10, 10, 9; every fourth layer is full attention."""
    found = stages(catalog.architectures["Qwen3.5-122B-A10B"], 5)
    assert [stage.layers for stage in found] == [9, 10, 10, 10, 9]
    assert [stage.full_attention_layers for stage in found] == [2, 2, 3, 2, 3]
    assert (found[0].is_first, found[-1].is_last) == (True, True)

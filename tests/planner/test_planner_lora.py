"""LoRA adapters: a term of their own in memory, flags, and what vLLM refuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.errors import InfeasibleError
from qwenhost.plan import LoraOptions, Parallelism, Plan
from qwenhost.planner import explain, make_plan
from qwenhost.planner.lora import slot_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ask

    from qwenhost.facts import Catalog


def bytes_of(catalog: Catalog, layout: Parallelism | None = None, **given: Any) -> int:
    checkpoint = catalog.checkpoints["bf16"]
    architecture = catalog.architectures[checkpoint.architecture]
    return slot_bytes(architecture, checkpoint, layout or Parallelism(), LoraOptions(**given))


def test_output_projection_by_hand(catalog: Catalog) -> None:
    """o_proj in 12 layers: A of 16 x 8192, B of 3072 x 16, two bytes each; at TP2 A is halved."""
    assert bytes_of(catalog, lora_target_modules=("o_proj",)) == 12 * 16 * (8192 + 3072) * 2
    half = bytes_of(catalog, Parallelism(tensor_parallel_size=2), lora_target_modules=("o_proj",))
    assert half == 12 * 16 * (4096 + 3072) * 2


def test_experts_by_hand(catalog: Catalog) -> None:
    """256 experts in 48 layers: A 3072 and 1024 wide, B 2048 and 3072 high; 3.6 GB a slot of rank 16."""
    assert (
        bytes_of(catalog, lora_target_modules=("experts",)) == 48 * 256 * 16 * (3072 + 1024 + 2048 + 3072) * 2
    )


def test_a_merged_module_is_whole(catalog: Catalog) -> None:
    """Asking for q_proj makes room for q, its gate, k and v: vLLM has them as one layer."""
    q, qkv = (bytes_of(catalog, lora_target_modules=(name,)) for name in ("q_proj", "qkv_proj"))
    assert q == qkv == 12 * 16 * (3 * 3072 + 2 * 8192 + 2 * 512) * 2


@pytest.mark.parametrize(("name", "factor"), [("max_loras", 3), ("max_lora_rank", 4)])
def test_slots_and_rank_multiply(catalog: Catalog, name: str, factor: int) -> None:
    """Three slots take three times one; rank 64 four times rank 16."""
    value = factor if name == "max_loras" else 16 * factor
    assert bytes_of(catalog, **{name: value}) == factor * bytes_of(catalog)


def test_vocabulary_is_whole_on_every_rank(catalog: Catalog) -> None:
    """A of embed_tokens and B of lm_head: 248,320 x 16 at any tensor parallel size."""
    for tp in (1, 8):
        layout = Parallelism(tensor_parallel_size=tp)
        both = bytes_of(catalog, layout, lora_target_modules=("embed_tokens", "lm_head"))
        assert both == 2 * (248_320 + 3072) * 16 * 2


def test_memory_term_and_flags(catalog: Catalog, ask: Ask) -> None:
    """The slots come out of the cache, the flags are vLLM's, spare adapters wait in the machine's memory."""
    lora = LoraOptions(
        max_loras=2,
        max_lora_rank=32,
        lora_target_modules=("q_proj", "o_proj"),
        lora_modules={"sql": "/a/sql", "law": "/a/law", "med": "/a/med"},
    )
    pins: dict[str, Any] = {"checkpoint": "fp8", "tensor_parallel_size": 2, "num_speculative_tokens": 0}
    with_lora = make_plan(ask("2xH200", lora=lora, **pins), catalog)
    without = make_plan(ask("2xH200", **pins), catalog)
    memory, bare = with_lora.chosen.memory_per_gpu, without.chosen.memory_per_gpu
    layout = Parallelism(tensor_parallel_size=2)
    expected = slot_bytes(
        catalog.architectures["Qwen3.5-122B-A10B"], catalog.checkpoints["fp8"], layout, lora
    )
    assert memory.lora_bytes == expected > 0
    assert memory.kv_cache_bytes == bare.kv_cache_bytes - expected
    assert memory.usable_bytes == (
        memory.weights_bytes + memory.lora_bytes + memory.activation_bytes + memory.cudagraph_bytes
        + memory.non_torch_bytes + memory.kv_cache_bytes
    )  # fmt: skip
    extra = with_lora.chosen.engine_args.extra
    assert extra["enable_lora"] is True
    assert (extra["max_loras"], extra["max_lora_rank"], extra["max_cpu_loras"]) == (2, 32, 3)
    assert extra["lora_modules"] == ["law=/a/law", "med=/a/med", "sql=/a/sql"]
    assert with_lora.inputs.lora == lora
    told = "\n".join(line for _, lines in explain(with_lora) for line in lines)
    assert "slots of LoRA adapters" in told
    assert any("2 adapter slots of rank 32" in note for note in with_lora.chosen.notes)


@pytest.mark.parametrize(
    ("lora", "pins", "rule"),
    [
        (LoraOptions(max_lora_rank=24), {}, "lora_rank"),
        (
            LoraOptions(),
            {"tensor_parallel_size": 2, "data_parallel_size": 2, "enable_expert_parallel": True},
            "lora_with_sequence_parallel_experts",
        ),
        (LoraOptions(max_loras=64, max_lora_rank=512), {}, "weights_do_not_fit"),
    ],
)
def test_what_vllm_refuses(
    catalog: Catalog, ask: Ask, lora: LoraOptions, pins: dict[str, Any], rule: str
) -> None:
    """A rank vLLM does not know, experts on shards of the sequence, more slots than memory."""
    with pytest.raises(InfeasibleError) as caught:
        make_plan(ask("4xH200", lora=lora, checkpoint="fp8", **pins), catalog)
    assert rule in {rejection.rule for rejection in caught.value.rejections}


def test_sequence_parallel_is_fine_without_experts(plan: Callable[..., Plan]) -> None:
    """The same layout takes adapters of attention."""
    chosen = plan(
        "4xH200", checkpoint="fp8", tensor_parallel_size=2, data_parallel_size=2,
        enable_expert_parallel=True, lora=LoraOptions(lora_target_modules=("o_proj",)),
    ).chosen  # fmt: skip
    assert chosen.memory_per_gpu.lora_bytes > 0


def test_flags_are_flags_of_vllm(plan: Callable[..., Plan]) -> None:
    """Every flag of adapters, units and context parallelism is in vLLM 0.33's list."""
    flags = (Path(__file__).parents[1] / "data" / "vllm-serve-flags-0.33.txt").read_text().split()
    lora = LoraOptions(lora_target_modules=("q_proj",), lora_modules={"a": "/a", "b": "/b"})
    extra = plan(
        "4xH200", checkpoint="fp8", tensor_parallel_size=4, enable_prefix_caching=True, lora=lora,
        decode_context_parallel_size=2, prefix_match_unit=64,
    ).chosen.engine_args.extra  # fmt: skip
    assert {f"--{name.replace('_', '-')}" for name in extra} <= set(flags)
    assert {"max_cpu_loras", "lora_target_modules", "prefix_match_unit"} <= set(extra)

"""Decode context parallelism and the unit of prefix hits, as options of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.errors import InfeasibleError
from qwenhost.planner import make_plan
from qwenhost.render.flags import vllm_flags

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ask

    from qwenhost.facts import Catalog
    from qwenhost.plan import Plan

PINS: dict[str, Any] = {"checkpoint": "fp8", "num_speculative_tokens": 0, "enable_prefix_caching": True}


def test_context_parallel_ranks_multiply_what_a_block_stands_for(plan: Callable[..., Plan]) -> None:
    """TP4 repeats each of 2 KV heads; with two context ranks as many blocks hold twice the tokens."""
    pins = {**PINS, "tensor_parallel_size": 4, "max_model_len": 262144, "max_num_seqs": 64}
    one = plan("4xH200", **pins).chosen
    two = plan("4xH200", decode_context_parallel_size=2, **pins).chosen
    assert two.kv_cache.num_blocks == one.kv_cache.num_blocks
    assert one.kv_cache.blocks_for(10 * 1088) == 10 + 3
    assert two.kv_cache.blocks_for(10 * 1088) == 5 + 3
    assert two.kv_cache.max_concurrency_at_max_model_len > 1.8 * one.kv_cache.max_concurrency_at_max_model_len
    assert two.parallelism.label == "TP4 DCP2"
    assert vllm_flags(two)["decode_context_parallel_size"] == 2
    assert any("Decode context parallelism" in note for note in two.notes)


@pytest.mark.parametrize(("tp", "size"), [(1, 2), (2, 2), (4, 4), (8, 3)])
def test_sizes_vllm_refuses(catalog: Catalog, ask: Ask, tp: int, size: int) -> None:
    """No more than TP over 2 KV heads, and only what divides it."""
    request = ask("8xH200", checkpoint="fp8", tensor_parallel_size=tp, decode_context_parallel_size=size)
    with pytest.raises(InfeasibleError) as caught:
        make_plan(request, catalog)
    (rule,) = {one.rule for one in caught.value.rejections}
    assert rule in ("context_parallel_size", "weights_do_not_fit")
    link = next(one.link for one in caught.value.rejections)
    assert link.startswith("https://github.com/vllm-project/vllm/blob/v0.33.0/")


def test_finer_hits(plan: Callable[..., Plan]) -> None:
    """Hits end at multiples of 64 tokens instead of a block of 2,112; the pool is the same."""
    pins = {**PINS, "tensor_parallel_size": 2, "max_num_seqs": 64}
    coarse = plan("2xH200", "coding_agent", **pins).chosen
    fine = plan("2xH200", "coding_agent", prefix_match_unit=64, **pins).chosen
    assert (coarse.kv_cache.hit_tokens, fine.kv_cache.hit_tokens) == (2112, 64)
    assert fine.kv_cache.num_blocks == coarse.kv_cache.num_blocks
    assert fine.engine_args.extra["prefix_match_unit"] == 64
    assert any("multiples of 64 tokens" in note for note in fine.notes)
    assert fine.estimate.ttft_ms.value <= coarse.estimate.ttft_ms.value


def test_a_unit_that_does_not_divide_the_block(catalog: Catalog, ask: Ask) -> None:
    """100 does not divide 2,112: vLLM says so at start, we before."""
    request = ask("2xH200", tensor_parallel_size=2, prefix_match_unit=100, **PINS)
    with pytest.raises(InfeasibleError) as caught:
        make_plan(request, catalog)
    assert {one.rule for one in caught.value.rejections} == {"prefix_match_unit"}

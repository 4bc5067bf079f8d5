"""What is searched beyond tensor, pipeline and data parallelism, and how near-equals are ordered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from qwenhost.errors import InfeasibleError
from qwenhost.facts import Slo
from qwenhost.plan import Parallelism
from qwenhost.planner import make_plan
from qwenhost.planner.objective import Judged, is_clearly_better, rank

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ask

    from qwenhost.facts import Catalog
    from qwenhost.plan import Plan

FP8: dict[str, Any] = {"checkpoint": "fp8", "num_speculative_tokens": 0}


def judged(rate: float, layout: Parallelism, *, end_s: float = 1.0, keeps: bool = True) -> Judged:
    """A combination with this rate, layout and answer time."""
    option = SimpleNamespace(
        layout=layout, num_speculative_tokens=0, enable_prefix_caching=True, checkpoint="fp8"
    )
    sized = SimpleNamespace(
        option=option,
        max_model_len=1000,
        settings=SimpleNamespace(max_num_batched_tokens=8192),
        kv_cache=SimpleNamespace(concurrency_at=lambda _: 1),
    )
    service = SimpleNamespace(requests_per_s=rate, ttft_s=end_s, tpot_s=0.0)
    demand = SimpleNamespace(output_tokens=1)
    return Judged(
        sized=cast("Any", sized),
        service=cast("Any", service),
        demand=cast("Any", demand),
        replicas=1,
        meets_slo=keeps,
        holds_long=True,
        limited_by_cache=False,
        caution=1.0,
    )


def test_within_two_percent_of_the_best_the_simplest_is_first() -> None:
    """100.0, 99.9 and 98.5 are equal, so no pipeline, no data parallelism, no experts apart; 97 is not."""
    plain = judged(98.5, Parallelism(tensor_parallel_size=4))
    pipeline = judged(100.0, Parallelism(tensor_parallel_size=2, pipeline_parallel_size=2))
    split = judged(99.9, Parallelism(tensor_parallel_size=2, data_parallel_size=2))
    slow = judged(97.0, Parallelism(tensor_parallel_size=1))
    assert rank([slow, pipeline, split, plain], "cost") == [plain, split, pipeline, slow]


def test_equals_do_not_chain() -> None:
    """Each 1.5 % behind the one before: the third is 3 % behind the best and no equal of it."""
    first, second, third = (
        judged(rate, Parallelism(tensor_parallel_size=tp)) for rate, tp in ((100, 8), (98.5, 4), (97, 2))
    )
    assert rank([third, second, first], "cost") == [second, first, third]


def test_the_service_level_stands_above_every_objective() -> None:
    """What misses it comes last however fast it is."""
    fast = judged(500.0, Parallelism(), keeps=False)
    slow = judged(1.0, Parallelism(tensor_parallel_size=2))
    for objective in ("cost", "throughput", "latency", "context"):
        assert rank([fast, slow], objective) == [slow, fast]
        assert is_clearly_better(slow, fast, objective)


def test_latency_weighs_the_whole_answer_and_nothing_else() -> None:
    """Half the rate in half the time wins."""
    quick, many = judged(50, Parallelism(), end_s=1.0), judged(100, Parallelism(), end_s=2.0)
    assert rank([many, quick], "latency")[0] is quick
    assert rank([many, quick], "throughput")[0] is many


@pytest.mark.parametrize("objective", ["cost", "throughput", "latency", "context"])
@pytest.mark.parametrize("gpus", ["2xH200", "4xH100", "8xA100"])
def test_a_kept_service_level_is_never_given_up(plan: Callable[..., Plan], gpus: str, objective: str) -> None:
    """Where any candidate keeps it the choice does, under its limits."""
    made = plan(gpus, objective=objective, slo=Slo(ttft_ms=1500, tpot_ms=25))
    chosen = made.chosen.estimate
    assert chosen.meets_slo
    assert chosen.tpot_ms.value <= 25
    assert chosen.ttft_ms.value <= 1500
    ranked = [one.estimate.meets_slo for one in made.alternatives]
    assert ranked == sorted(ranked, reverse=True)


def test_decode_context_parallelism_is_looked_at(plan: Callable[..., Plan]) -> None:
    """TP4 repeats each of 2 KV heads: with the ranks' tokens apart the node holds more long requests."""
    made = plan("4xH100", objective="context", tensor_parallel_size=4, **FP8)
    same_cache = [one for one in made.alternatives if one.engine_args.kv_cache_dtype == "auto"]
    everyone = {one.parallelism.label: one for one in (made.chosen, *same_cache)}
    shared = everyone["TP4 DCP2"]
    assert shared is made.chosen
    assert shared.concurrency_at_max_model_len > 1.7 * everyone["TP4"].concurrency_at_max_model_len
    assert shared.estimate.tpot_ms.basis == "assumed"
    assert everyone["TP4"].estimate.tpot_ms.basis != "assumed"
    whole = plan("4xH100", objective="context", **FP8)
    assert "TP2 DCP2" not in {one.parallelism.label for one in (whole.chosen, *whole.alternatives)}


@pytest.mark.parametrize("gpus", ["4xH100", "8xH200", "8xA100", "8xB200"])
def test_a_layout_nobody_is_known_to_have_run_is_not_the_cheapest_by_its_arithmetic(
    plan: Callable[..., Plan], gpus: str
) -> None:
    """It is ranked at the low end of its band."""
    assert plan(gpus).chosen.parallelism.decode_context_parallel_size == 1


def test_independent_engines_are_an_alternative_with_their_price(plan: Callable[..., Plan]) -> None:
    """Four engines on two GPUs each are four times one engine on two; they are never the unpinned choice."""
    made = plan("8xH200", concurrency=128, tensor_parallel_size=2, **FP8)
    assert made.chosen.parallelism.replicas == 1
    four = next(one for one in made.alternatives if one.parallelism.label == "4x TP2")
    alone = plan("2xH200", concurrency=32, tensor_parallel_size=2, **FP8).chosen
    assert alone.parallelism.label == "TP2"
    assert four.estimate.output_tokens_per_s.value == pytest.approx(
        4 * alone.estimate.output_tokens_per_s.value, rel=1e-9
    )
    assert four.estimate.tpot_ms.value == pytest.approx(alone.estimate.tpot_ms.value, rel=1e-9)
    assert four.memory_per_gpu.weights_bytes == alone.memory_per_gpu.weights_bytes
    assert any("need GPUs" in note or "needs GPUs" in note for note in four.notes)


def test_pinned_engines_are_the_choice(plan: Callable[..., Plan]) -> None:
    """And one is said to be possible where several would do better."""
    pinned = plan("8xH200", replicas=4, tensor_parallel_size=2, checkpoint="fp8").chosen
    assert pinned.parallelism.label == "4x TP2"
    assert pinned.parallelism.world_size == 8
    single = plan("8xH200", tensor_parallel_size=2, replicas=1, **FP8)
    assert all(one.parallelism.replicas == 1 for one in (single.chosen, *single.alternatives))


@pytest.mark.parametrize(
    ("pins", "label"),
    [
        ({"tensor_parallel_size": 2, "replicas": 5}, "5x TP2"),
        ({"tensor_parallel_size": 4, "data_parallel_size": 4, "enable_expert_parallel": False}, "TP4 DP4"),
    ],
)
def test_pins_beyond_the_node_say_so(catalog: Catalog, ask: Ask, pins: dict[str, Any], label: str) -> None:
    """Ten GPUs of eight, sixteen of eight: a rule, not silence."""
    with pytest.raises(InfeasibleError, match="GPUs, not 8") as caught:
        make_plan(ask("8xH200", checkpoint="fp8", **pins), catalog)
    assert (label, "more_gpus_than_present") in {(r.parallelism, r.rule) for r in caught.value.rejections}


def test_a_step_size_other_than_vllms_only_where_it_clearly_pays(plan: Callable[..., Plan]) -> None:
    """Long prompts over a slow link on small GPUs want larger steps; a chat does not."""
    made = plan("8xL40S", "coding_agent").chosen
    layout = {
        name: getattr(made.parallelism, name) for name in ("tensor_parallel_size", "pipeline_parallel_size")
    }
    same = {**layout, "checkpoint": made.checkpoint.id, "max_num_batched_tokens": 4096}
    kept = plan("8xL40S", "coding_agent", **same).chosen
    assert made.engine_args.max_num_batched_tokens > 4096 == kept.engine_args.max_num_batched_tokens
    assert made.estimate.requests_per_s.value > 1.02 * kept.estimate.requests_per_s.value
    assert plan("2xH200").chosen.engine_args.max_num_batched_tokens == 8192

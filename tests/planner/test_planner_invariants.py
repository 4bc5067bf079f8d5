"""What holds of every plan, whatever the node, the workload and what is pinned."""

from __future__ import annotations

from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.errors import InfeasibleError
from qwenhost.plan import plan_from_json, plan_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.facts import Catalog
    from qwenhost.plan import Candidate, Estimate, Plan

NODES = ("1xH200", "2xH200", "4xH100-80GB", "8xA100-80GB", "1xB200", "2xRTX PRO 6000", "8xH200", "4xL40S")
WORKLOADS = ("chat", "coding_agent", "summarisation")
CASES = list(product(NODES, WORKLOADS))


@pytest.fixture(scope="module")
def plans(plan: Callable[..., Plan]) -> dict[tuple[str, str], Plan]:
    return {case: plan(*case) for case in CASES}


@pytest.fixture(params=CASES, ids="-".join)
def made(request: pytest.FixtureRequest, plans: dict[tuple[str, str], Plan]) -> Plan:
    return plans[request.param]


def candidates(made: Plan) -> Iterator[Candidate]:
    yield made.chosen
    yield from made.alternatives
    yield from (fallback.candidate for fallback in made.fallbacks)


def test_the_parts_of_a_gpus_memory_sum_to_what_vllm_may_use(made: Plan) -> None:
    """Nothing is counted twice or forgotten, in the choice, the alternatives and the fallbacks."""
    for one in candidates(made):
        memory = one.memory_per_gpu
        parts = (
            memory.weights_bytes + memory.activation_bytes + memory.cudagraph_bytes + memory.non_torch_bytes
            + memory.kv_cache_bytes + memory.lora_bytes
        )  # fmt: skip
        assert parts == memory.usable_bytes
        assert memory.usable_bytes + memory.outside_bytes <= memory.total_bytes
        assert memory.total_bytes == made.inputs.node.gpus[0].memory_total_bytes


def test_the_cache_fits_its_memory_and_holds_the_longest_request(made: Plan) -> None:
    for one in candidates(made):
        cache = one.kv_cache
        assert cache.num_blocks * cache.block_bytes <= one.memory_per_gpu.kv_cache_bytes
        assert cache.concurrency_at(one.engine_args.max_model_len) >= 1
        assert cache.max_concurrency_at_max_model_len >= 1
        assert one.engine_args.max_model_len <= 262_144


def test_layouts_use_gpus_that_are_there(made: Plan) -> None:
    for one in candidates(made):
        assert 1 <= one.parallelism.world_size <= made.inputs.node.gpu_count
        assert one.concurrency_at_workload >= 1
        assert one.engine_args.max_num_seqs >= 1
        assert one.engine_args.max_num_batched_tokens >= one.engine_args.max_num_seqs


def figures(one: Candidate) -> Iterator[Estimate]:
    for name in ("output_tokens_per_s", "input_tokens_per_s", "requests_per_s", "ttft_ms", "tpot_ms"):
        yield getattr(one.estimate, name)


def test_every_figure_lies_in_its_band_and_knows_its_basis(made: Plan) -> None:
    for one in candidates(made):
        for figure in figures(one):
            assert 0 < figure.low <= figure.value <= figure.high
            assert figure.basis in ("measured", "modelled", "assumed")
            assert figure.source
        assert 0 < one.estimate.speed_of_light_fraction <= 1


def test_rates_agree_with_one_another(made: Plan) -> None:
    """Tokens are requests times the workload's tokens; Little's law holds within rounding."""
    load = made.inputs.workload_detail
    for one in (made.chosen, *made.alternatives):
        speed = one.estimate
        requests = speed.requests_per_s.value
        assert speed.output_tokens_per_s.value == pytest.approx(requests * load.output_tokens.mean, rel=1e-6)
        assert speed.input_tokens_per_s.value == pytest.approx(requests * load.input_tokens.mean, rel=1e-6)
        stay_s = (speed.ttft_ms.value + speed.tpot_ms.value * (load.output_tokens.mean - 1)) / 1000
        assert requests * stay_s == pytest.approx(speed.concurrency.value, rel=0.15)


def test_prices_are_rent_over_tokens(made: Plan) -> None:
    price = made.inputs.gpu_price
    for one in (made.chosen, *made.alternatives):
        if price is None:
            assert one.usd_per_hour is None
            continue
        hour = price.usd_per_gpu_hour * made.inputs.node.gpu_count
        assert one.usd_per_hour == pytest.approx(hour)
        tokens = one.estimate.output_tokens_per_s.value * 3600 / 1e6
        assert one.usd_per_mtok_output == pytest.approx(hour / tokens)
        assert one.usd_per_mtok_blended is not None
        assert one.usd_per_mtok_blended < hour / tokens


def test_every_rejection_has_a_rule_and_a_sentence(made: Plan) -> None:
    for rejection in made.rejections:
        assert rejection.rule.replace("_", "").isalnum()
        assert rejection.rule == rejection.rule.lower()
        assert len(rejection.message) > 15
        if rejection.need_bytes is not None and rejection.have_bytes is not None:
            assert rejection.need_bytes > rejection.have_bytes
        assert not rejection.link or rejection.link.startswith("https://")


def test_no_candidate_is_listed_twice(made: Plan) -> None:
    listed = [one.label for one in (made.chosen, *made.alternatives)]
    assert len(listed) == len(set(listed))


def test_fallbacks_ask_for_less(made: Plan) -> None:
    """A start that ran out of memory is not tried again with as much."""
    assert made.fallbacks
    for fallback in made.fallbacks:
        assert fallback.change
        if fallback.trigger == "out_of_memory":
            before, after = made.chosen.memory_per_gpu, fallback.candidate.memory_per_gpu
            args, less = made.chosen.engine_args, fallback.candidate.engine_args
            assert (
                after.usable_bytes < before.usable_bytes
                or after.activation_bytes < before.activation_bytes
                or less.max_num_seqs < args.max_num_seqs
            )


def test_a_plan_survives_its_file(made: Plan) -> None:
    assert plan_from_json(plan_to_json(made)) == made


@pytest.mark.parametrize("gpus", NODES)
def test_the_same_question_has_the_same_answer(
    plan: Callable[..., Plan], plans: dict[tuple[str, str], Plan], gpus: str
) -> None:
    """To the byte."""
    assert plan_to_json(plan(gpus, "chat")) == plan_to_json(plans[gpus, "chat"])


PINS: list[tuple[str, Any, Callable[[Candidate], Any]]] = [
    ("checkpoint", "gptq-int4", lambda one: one.checkpoint.id),
    ("tensor_parallel_size", 4, lambda one: one.parallelism.tensor_parallel_size),
    ("pipeline_parallel_size", 2, lambda one: one.parallelism.pipeline_parallel_size),
    ("data_parallel_size", 2, lambda one: one.parallelism.data_parallel_size),
    # Alone on its GPU an engine has no ranks to spread experts over: the flag would do nothing.
    (
        "enable_expert_parallel",
        True,
        lambda one: one.parallelism.enable_expert_parallel or one.parallelism.engine_gpus == 1,
    ),
    ("kv_cache_dtype", "fp8", lambda one: one.engine_args.kv_cache_dtype),
    ("max_model_len", 65_536, lambda one: one.engine_args.max_model_len),
    ("max_num_seqs", 48, lambda one: one.engine_args.max_num_seqs),
    ("max_num_batched_tokens", 4096, lambda one: one.engine_args.max_num_batched_tokens),
    ("num_speculative_tokens", 1, lambda one: one.engine_args.num_speculative_tokens),
    ("gpu_memory_utilization", 0.85, lambda one: one.engine_args.gpu_memory_utilization),
    ("enable_prefix_caching", False, lambda one: one.engine_args.enable_prefix_caching),
    ("language_model_only", True, lambda one: one.engine_args.language_model_only),
    ("gdn_prefill_backend", "triton", lambda one: one.engine_args.gdn_prefill_backend),
    ("replicas", 2, lambda one: one.parallelism.replicas),
]


@pytest.mark.parametrize(("name", "value", "of"), PINS, ids=[name for name, *_ in PINS])
def test_what_is_pinned_is_kept_by_every_candidate(
    plan: Callable[..., Plan], name: str, value: Any, of: Callable[[Candidate], Any]
) -> None:
    made = plan("8xH200", **{name: value})
    assert {of(one) for one in (made.chosen, *made.alternatives)} == {value}


@pytest.mark.parametrize(
    ("gpus", "pins"),
    [
        ("1xL40S", {}),
        ("1xRTX 4090", {}),
        ("1xH200", {"checkpoint": "bf16"}),
        ("2xH200", {"tensor_parallel_size": 4}),
        ("8xH200", {"tensor_parallel_size": 3}),
        ("1xA100", {"checkpoint": "fp8"}),
        ("2xH200", {"kv_cache_dtype": "nvfp4"}),
    ],
)
def test_where_nothing_fits_every_reason_is_given(
    plan: Callable[..., Plan], gpus: str, pins: dict[str, Any]
) -> None:
    with pytest.raises(InfeasibleError) as caught:
        plan(gpus, **pins)
    assert caught.value.exit_code == 3
    assert caught.value.rejections
    assert all(rejection.message for rejection in caught.value.rejections)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_more_gpus_never_serve_less(plans: dict[tuple[str, str], Plan], workload: str) -> None:
    rates = [
        plans[gpus, workload].chosen.estimate.requests_per_s.value for gpus in ("1xH200", "2xH200", "8xH200")
    ]
    assert all(a < b for a, b in pairwise(rates))


def test_each_objective_is_best_at_its_own(plan: Callable[..., Plan]) -> None:
    """Within what the model can tell apart (2 %)."""
    chosen = {
        aim: plan("8xH200", objective=aim).chosen for aim in ("cost", "throughput", "latency", "context")
    }
    rate = {aim: one.estimate.output_tokens_per_s.value for aim, one in chosen.items()}
    tpot = {aim: one.estimate.tpot_ms.value for aim, one in chosen.items()}
    length = {aim: one.engine_args.max_model_len for aim, one in chosen.items()}
    assert rate["throughput"] >= 0.98 * max(rate.values())
    assert tpot["latency"] <= 1.02 * min(tpot.values())
    assert length["context"] == max(length.values())


@pytest.mark.parametrize("concurrency", [1, 8, 64, 512])
def test_a_closed_loop_is_planned_at_its_load(plan: Callable[..., Plan], concurrency: int) -> None:
    """As many in flight as asked, unless the node cannot hold them."""
    made = plan("2xH200", concurrency=concurrency)
    held = made.chosen.estimate.concurrency.value
    assert held <= concurrency * 1.001
    assert held == pytest.approx(concurrency) or held <= made.chosen.concurrency_at_workload


def test_more_users_are_served_more_and_more_slowly(plan: Callable[..., Plan]) -> None:
    found = [
        plan("2xH200", checkpoint="fp8", num_speculative_tokens=0, concurrency=users).chosen.estimate
        for users in (1, 4, 16, 64)
    ]
    assert all(a.requests_per_s.value < b.requests_per_s.value for a, b in pairwise(found))
    assert all(a.tpot_ms.value < b.tpot_ms.value for a, b in pairwise(found))


def test_every_preset_has_a_plan_on_eight_h200(plan: Callable[..., Plan], catalog: Catalog) -> None:
    for name in catalog.workloads:
        made = plan("8xH200", name)
        assert made.inputs.workload == name
        assert made.chosen.estimate.requests_per_s.value > 0

"""Whole plans: what fits, that it starts, why the rest does not, and what pins do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qwenhost.errors import BadInputError, InfeasibleError
from qwenhost.facts import Slo, TokenStats
from qwenhost.node import parse_gpus
from qwenhost.plan import GpuPriceRef, Plan, PlanRequest, StepShape, plan_from_json, plan_to_json
from qwenhost.planner import explain, make_plan, step_time_function
from qwenhost.units import GIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.facts import Catalog
    from qwenhost.plan import Candidate

FEASIBLE = [
    "1xH200", "2xH200", "4xH100-80GB", "8xA100-80GB", "2x RTX PRO 6000", "1xB200", "1xRTX PRO 6000",
    "3xH100", "8xH200", "1xGB10", "4xL40S", "8xMI300X",
]  # fmt: skip
BF16 = {"checkpoint": "bf16", "tensor_parallel_size": 1}
WIDE_BLOCK: dict[str, Any] = {"max_num_batched_tokens": 1024, "enable_prefix_caching": True}
SHORT = {"checkpoint": "bf16", "tensor_parallel_size": 2, "gpu_memory_utilization": 0.86}
PRICE = GpuPriceRef(usd_per_gpu_hour=3.0, provider="given", tier="given", as_of="", source="test")


def everything(plan: Plan) -> Iterator[Candidate]:
    yield plan.chosen
    yield from plan.alternatives
    yield from (fallback.candidate for fallback in plan.fallbacks)


@pytest.mark.parametrize("gpus", FEASIBLE)
@pytest.mark.parametrize("workload", ["chat", "coding_agent"])
def test_every_candidate_starts(plan: Callable[..., Plan], gpus: str, workload: str) -> None:
    """Whatever is offered, the choice, the alternatives and the fallbacks, stays within vLLM's limits."""
    found = plan(gpus, workload)
    for one in everything(found):
        args, memory, cache = one.engine_args, one.memory_per_gpu, one.kv_cache
        planned = memory.kv_cache_bytes - memory.margin_bytes
        charged = (
            -(-args.max_model_len // (cache.block_size * cache.context_parallel_size))
            + cache.reserved_blocks_per_sequence
        )
        assert (charged + 1) * cache.block_bytes <= planned
        assert args.max_num_seqs <= planned // cache.block_bytes
        assert args.max_num_batched_tokens >= args.max_num_seqs * (1 + args.num_speculative_tokens)
        assert args.max_num_batched_tokens >= cache.block_size or not args.enable_prefix_caching
        assert not (args.num_speculative_tokens and args.enable_prefix_caching)
        assert memory.usable_bytes + memory.outside_bytes <= memory.total_bytes
        parts = memory.weights_bytes + memory.activation_bytes + memory.cudagraph_bytes
        assert parts + memory.non_torch_bytes + memory.kv_cache_bytes == memory.usable_bytes
        assert one.parallelism.world_size <= found.inputs.node.gpu_count
        assert args.max_model_len <= 262144


@pytest.mark.parametrize("gpus", FEASIBLE)
def test_an_uncalibrated_fp8_cache_is_never_the_choice(
    plan: Callable[..., Plan], catalog: Catalog, gpus: str
) -> None:
    """Unless pinned it is an alternative at most, with the trade stated."""
    found = plan(gpus)
    for one in everything(found):
        declared = catalog.checkpoints[one.checkpoint.id].declared_kv_cache_dtype
        if one.engine_args.kv_cache_dtype == "fp8" and not declared:
            assert one in found.alternatives
            assert any("without calibrated scales" in note for note in one.notes)
    pinned = plan("2xH200", checkpoint="fp8", kv_cache_dtype="fp8")
    assert pinned.chosen.engine_args.kv_cache_dtype == "fp8"


@pytest.mark.parametrize(("gpus", "least"), [("1xL40S", 5), ("1xRTX 4090", 5), ("2xRTX 4090", 20)])
def test_where_nothing_fits_every_combination_says_why(
    plan: Callable[..., Plan], gpus: str, least: int
) -> None:
    """Each rejection carries a rule, and the memory ones what is needed and what is there."""
    with pytest.raises(InfeasibleError, match="Nothing fits") as caught:
        plan(gpus)
    rejections = caught.value.rejections
    assert len(rejections) >= least
    assert {r.checkpoint for r in rejections} >= {"bf16", "fp8", "gptq-int4", "nvfp4"}
    memory = [r for r in rejections if r.rule == "weights_do_not_fit"]
    assert memory
    assert all(r.need_bytes > r.have_bytes > 0 for r in memory)


def test_plan_is_deterministic_and_survives_json(ask: Callable[..., PlanRequest], catalog: Catalog) -> None:
    """The same request gives the same bytes, and they decode to the same plan."""
    request = ask("4xH100", gpu_price=PRICE)
    first = plan_to_json(make_plan(request, catalog))
    assert first == plan_to_json(make_plan(request, catalog))
    assert plan_to_json(plan_from_json(first)) == first


def test_rejected_layouts_are_not_lost(plan: Callable[..., Plan]) -> None:
    """On four H100 BF16 is too large for one and two GPUs, and TP16-only sizes are not asked about."""
    rejected = {(r.checkpoint, r.parallelism): r for r in plan("4xH100-80GB").rejections}
    one, two = rejected["bf16", "TP1"], rejected["bf16", "TP2"]
    assert one.rule == two.rule == "weights_do_not_fit"
    assert one.need_bytes > 228 * GIB
    assert 114 * GIB < two.need_bytes < 125 * GIB
    assert two.have_bytes < 80 * GIB


@pytest.mark.parametrize(
    ("pins", "rule"),
    [
        ({"tensor_parallel_size": 3}, "tp_divides_heads"),
        ({"tensor_parallel_size": 8}, "more_gpus_than_present"),
        ({"checkpoint": "nvfp4-redhat", "num_speculative_tokens": 1}, "no_mtp_weights"),
        ({"num_speculative_tokens": 1, "enable_prefix_caching": True}, "mtp_with_prefix_caching"),
        ({"max_model_len": 2_000_000}, "context_exceeds_model"),
        ({"gpu_memory_utilization": 1.0}, "utilization_above_free"),
        ({"max_num_seqs": 4000, "checkpoint": "fp8"}, "state_blocks_too_few"),
        ({"max_num_batched_tokens": 4, "max_num_seqs": 8}, "batched_tokens_too_few"),
        (WIDE_BLOCK | {"vllm_version": "0.19.1"}, "batched_tokens_too_few"),
        (BF16 | {"pipeline_parallel_size": 1, "data_parallel_size": 1}, "weights_do_not_fit"),
        (SHORT | {"max_model_len": 262_144}, "kv_cache_too_small"),
    ],
    ids=str,
)
def test_impossible_pins_name_their_rule(plan: Callable[..., Plan], pins: dict[str, Any], rule: str) -> None:
    """Every pinned impossibility ends as infeasible with the rule that excludes it."""
    with pytest.raises(InfeasibleError) as caught:
        plan("4xH200" if rule == "tp_divides_heads" else "2xH200", **pins)
    assert rule in {r.rule for r in caught.value.rejections}


def test_a_block_wider_than_a_step_is_refused_only_by_older_vllm(plan: Callable[..., Plan]) -> None:
    """0.17 to 0.19 asserted a whole block per step; 0.20 and 0.33 start with 1,024 tokens of a wider one."""
    for version in ("0.20.0", "0.33.0"):
        chosen = plan("2xH200", vllm_version=version, **WIDE_BLOCK).chosen
        assert chosen.kv_cache.block_size > chosen.engine_args.max_num_batched_tokens == 1024
    free = plan("2xH200").chosen
    assert free.engine_args.max_num_batched_tokens >= free.kv_cache.block_size


def test_fp8_groups_limit_data_parallel_experts(plan: Callable[..., Plan]) -> None:
    """TP8 DP2 without EP would cut 1,024-wide experts into 64: refused; with EP it is a layout."""
    pins = {"checkpoint": "fp8", "tensor_parallel_size": 8, "data_parallel_size": 2}
    with pytest.raises(InfeasibleError) as caught:
        plan("16xH100", **pins, enable_expert_parallel=False)
    assert {r.rule for r in caught.value.rejections} == {"tp_cuts_group"}
    assert plan("16xH100", **pins, enable_expert_parallel=True).chosen.parallelism.label == "TP8 DP2 EP"


def test_pins_are_kept(plan: Callable[..., Plan]) -> None:
    """Every pinned value appears in the arguments as given."""
    found = plan(
        "2xH200", checkpoint="Qwen/Qwen3.5-122B-A10B-FP8", tensor_parallel_size=2, max_model_len=65536,
        max_num_seqs=40, max_num_batched_tokens=4096, num_speculative_tokens=2, gpu_memory_utilization=0.9,
        language_model_only=True, gdn_prefill_backend="triton", mamba_ssm_cache_dtype="float16",
    ).chosen  # fmt: skip
    args = found.engine_args
    assert (found.checkpoint.id, found.parallelism.label) == ("fp8", "TP2")
    assert (args.max_model_len, args.max_num_seqs, args.max_num_batched_tokens) == (65536, 40, 4096)
    assert (args.num_speculative_tokens, args.gpu_memory_utilization) == (2, 0.9)
    assert (args.language_model_only, args.gdn_prefill_backend) == (True, "triton")
    assert args.mamba_ssm_cache_dtype == "float16"


def test_cache_sized_from_a_log(plan: Callable[..., Plan]) -> None:
    """``--available-kv-gib 40`` at TP2 gives 1,654 blocks and 3,235,717 tokens; with one draft 1,527."""
    pins: dict[str, Any] = {"checkpoint": "fp8", "tensor_parallel_size": 2, "available_kv_bytes": 40 * GIB}
    cache = plan("8xH200", **pins).chosen.kv_cache
    assert (cache.num_blocks, cache.tokens) == (1654, 3_235_717)
    cache = plan("8xH200", **pins, num_speculative_tokens=1).chosen.kv_cache
    assert (cache.num_blocks, cache.tokens) == (1527, 2_921_853)


def test_kernel_flags_by_gpu_kind(plan: Callable[..., Plan]) -> None:
    """What each GPU kind is known to need, with the reason beside it."""

    def chosen(gpus: str, **pins: Any) -> Candidate:
        return plan(gpus, **pins).chosen

    a100 = chosen("8xA100", checkpoint="fp8", tensor_parallel_size=8)
    assert a100.engine_args.moe_backend == "marlin"
    assert any("54318" in note for note in a100.notes)
    assert chosen("2x RTX PRO 6000", checkpoint="fp8").vllm_env == {"VLLM_USE_DEEP_GEMM": "0"}
    nvfp4 = chosen("1xRTX PRO 6000", checkpoint="nvfp4", num_speculative_tokens=1).engine_args
    assert nvfp4.moe_backend == "marlin"
    assert nvfp4.speculative_config is not None
    assert nvfp4.speculative_config.moe_backend == "triton"
    assert any("nvcc" in note for note in chosen("2xH200", checkpoint="fp8").notes)
    assert chosen("2xH200", checkpoint="fp8").engine_args.moe_backend is None
    assert chosen("8xMI300X").vllm_env == {"VLLM_ROCM_USE_AITER": "1"}


def test_custom_all_reduce_is_off_for_more_than_two_pcie_gpus(plan: Callable[..., Plan]) -> None:
    """NVLink keeps it, two PCIe GPUs keep it, four do not."""
    pins = {"checkpoint": "gptq-int4"}

    def extra(gpus: str, tp: int, **given: Any) -> Any:
        return plan(gpus, **pins, tensor_parallel_size=tp, **given).chosen.engine_args.extra

    assert extra("4x RTX PRO 6000", 4) == {"disable_custom_all_reduce": True}
    assert extra("2x RTX PRO 6000", 2) == {}
    assert extra("4xH100", 4) == {}
    assert extra("4xH100", 4, interconnect="pcie") == {"disable_custom_all_reduce": True}


def test_yarn_only_where_asked_for(plan: Callable[..., Plan]) -> None:
    """Above 262,144 tokens positions are stretched by a whole factor, and vLLM is told to allow it."""
    found = plan("4xH200", checkpoint="fp8", max_model_len=500_000).chosen
    rope = found.engine_args.extra["hf_overrides"]["text_config"]["rope_parameters"]
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == (
        "yarn",
        2.0,
        262144,
    )
    assert found.vllm_env["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] == "1"


def test_memory_in_use_lowers_the_share(ask: Callable[..., PlanRequest], catalog: Catalog) -> None:
    """20 GiB held by others on each H200: vLLM would refuse 0.92, so the plan asks for less."""
    request = ask("2xH200", checkpoint="fp8")
    busy = tuple(msgspec.structs.replace(g, memory_used_bytes=20 * GIB) for g in request.node.gpus)
    request = msgspec.structs.replace(request, node=msgspec.structs.replace(request.node, gpus=busy))
    args = make_plan(request, catalog).chosen.engine_args
    # (140.40 - 20 - context and NCCL 1.52) / 139.95
    assert args.gpu_memory_utilization == 0.84


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mig_enabled": True}, InfeasibleError, "MIG is on"),
        ({"spec": "h100-80gb", "name": "NVIDIA H100 80GB HBM3"}, InfeasibleError, "The GPUs differ"),
    ],
)
def test_unfit_nodes(
    ask: Callable[..., PlanRequest],
    catalog: Catalog,
    change: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    """MIG and mixed GPUs are refused in words, with a remedy."""
    request = ask("2xH200")
    first, second = request.node.gpus
    gpus = (first, msgspec.structs.replace(second, **change))
    node = msgspec.structs.replace(request.node, gpus=gpus)
    with pytest.raises(error, match=words) as caught:
        make_plan(msgspec.structs.replace(request, node=node), catalog)
    assert caught.value.remedy  # type: ignore[attr-defined]


def test_unknown_gpu_says_how_to_add_it(ask: Callable[..., PlanRequest], catalog: Catalog) -> None:
    """A GPU without a profile is bad input, not a crash."""
    request = ask("1xH200")
    gpu = msgspec.structs.replace(request.node.gpus[0], spec=None, name="NVIDIA R100")
    node = msgspec.structs.replace(request.node, gpus=(gpu,))
    with pytest.raises(BadInputError, match="NVIDIA R100") as caught:
        make_plan(msgspec.structs.replace(request, node=node), catalog)
    assert "--profiles" in caught.value.remedy
    empty = msgspec.structs.replace(request.node, gpus=())
    with pytest.raises(InfeasibleError, match="no GPU"):
        make_plan(msgspec.structs.replace(request, node=empty), catalog)


def test_objectives_differ_as_they_should(plan: Callable[..., Plan]) -> None:
    """Latency answers one user faster than cost does its many; context holds the most at full length."""
    cost, fast, long = (plan("2xH200", objective=o).chosen for o in ("cost", "latency", "context"))
    assert fast.estimate.tpot_ms.value < cost.estimate.tpot_ms.value
    assert fast.estimate.concurrency.value == 1
    assert cost.estimate.output_tokens_per_s.value > fast.estimate.output_tokens_per_s.value
    assert long.concurrency_at_max_model_len >= cost.concurrency_at_max_model_len


def test_service_level_bounds_the_load(plan: Callable[..., Plan]) -> None:
    """A tighter limit per token is kept with fewer requests in flight."""
    loose = plan("2xH200", checkpoint="fp8", slo=Slo(tpot_ms=60)).chosen.estimate
    tight = plan("2xH200", checkpoint="fp8", slo=Slo(tpot_ms=12)).chosen.estimate
    assert tight.meets_slo
    assert tight.tpot_ms.value <= 12
    assert tight.concurrency.value < loose.concurrency.value
    impossible = plan("2xH200", slo=Slo(tpot_ms=0.1)).chosen
    assert not impossible.estimate.meets_slo
    assert "Misses the service level even at the load judged." in impossible.notes


def test_asked_load_is_what_is_estimated(plan: Callable[..., Plan]) -> None:
    """32 users are 32 in flight; five requests a second are five; a thousand are said to be too many."""
    closed = plan("2xH200", concurrency=32, num_speculative_tokens=0).chosen
    assert closed.estimate.concurrency.value == 32
    assert closed.engine_args.max_num_seqs >= 32
    opened = plan("2xH200", rate=5.0).chosen.estimate
    assert opened.requests_per_s.value == opened.requests_per_s.high == 5.0
    flooded = plan("2xH200", rate=1000.0).chosen
    assert not flooded.estimate.meets_slo
    assert any("Cannot carry 1000 requests/s" in note for note in flooded.notes)


def test_both_loads_at_once_are_refused(plan: Callable[..., Plan]) -> None:
    """A loop is closed or open."""
    with pytest.raises(BadInputError, match="both given"):
        plan("2xH200", concurrency=4, rate=1.0)


def test_reuse_takes_prefix_caching_and_no_drafts(plan: Callable[..., Plan]) -> None:
    """Coding agents repeat 92 % of their prompt: caching wins, and MTP beside it is wrong."""
    args = plan("2xH200", "coding_agent").chosen.engine_args
    assert (args.enable_prefix_caching, args.num_speculative_tokens) == (True, 0)
    assert not plan(
        "2xH200", "coding_agent", enable_prefix_caching=False
    ).chosen.engine_args.enable_prefix_caching


def test_money(plan: Callable[..., Plan]) -> None:
    """3 USD per GPU hour on two GPUs is 6 per hour; per million tokens it is 6 / (rate * 3600) * 10^6."""
    chosen = plan("2xH200", gpu_price=PRICE).chosen
    output = chosen.estimate.output_tokens_per_s.value
    assert chosen.usd_per_hour == 6.0
    assert chosen.usd_per_mtok_output == pytest.approx(6.0 / (output * 3600) * 1e6)
    both = output + chosen.estimate.input_tokens_per_s.value
    assert chosen.usd_per_mtok_blended == pytest.approx(6.0 / (both * 3600) * 1e6)
    unpriced = plan("2xH200").chosen
    assert unpriced.usd_per_hour is unpriced.usd_per_mtok_output is unpriced.usd_per_mtok_blended is None
    assert any("No price is known" in note for note in unpriced.notes)


def test_estimates_carry_band_basis_and_source(plan: Callable[..., Plan]) -> None:
    """Every figure has a range around it and says what it rests on."""
    speed = plan("8xA100").chosen.estimate
    for estimate in (speed.output_tokens_per_s, speed.ttft_ms, speed.tpot_ms, speed.requests_per_s):
        assert estimate.low < estimate.value < estimate.high
        assert estimate.basis == "assumed"  # Ampere's constants are judgement
        assert estimate.source.startswith("calibration ampere")
        assert estimate.bound in {"hbm", "flops", "link", "host", "kv"}
    assert 0 < speed.speed_of_light_fraction <= 1


def test_margin_is_honoured(plan: Callable[..., Plan]) -> None:
    """A larger share left unplanned shortens what is promised, not what vLLM will report as memory."""
    pins = {"checkpoint": "fp8", "num_speculative_tokens": 0}
    small = plan("1xH200", **pins, memory_margin=0.0).chosen
    large = plan("1xH200", **pins, memory_margin=0.03).chosen
    assert small.engine_args.max_model_len > large.engine_args.max_model_len
    assert large.memory_per_gpu.margin_bytes == round(0.03 * large.memory_per_gpu.total_bytes)


def test_fallbacks_are_smaller_and_named(plan: Callable[..., Plan]) -> None:
    """Each known failure has an answer that asks for less of what failed."""
    found = plan("1xH200", checkpoint="fp8")
    chosen, by = found.chosen, {f.trigger: f for f in found.fallbacks}
    assert set(by) == {
        "out_of_memory", "kv_cache_too_small", "state_blocks_too_few", "cudagraph_failure", "kernel_failure",
    }  # fmt: skip
    memory = by["out_of_memory"].candidate.engine_args
    assert memory.gpu_memory_utilization < chosen.engine_args.gpu_memory_utilization
    assert by["kv_cache_too_small"].candidate.engine_args.max_model_len < chosen.engine_args.max_model_len
    assert by["state_blocks_too_few"].candidate.engine_args.max_num_seqs < chosen.engine_args.max_num_seqs
    assert by["cudagraph_failure"].candidate.engine_args.enforce_eager
    assert by["kernel_failure"].candidate.engine_args.gdn_prefill_backend == "triton"
    assert all(fallback.change for fallback in found.fallbacks)
    assert {f.trigger for f in plan("8xA100", checkpoint="bf16").fallbacks} == set(by) - {"kernel_failure"}


def test_idle_gpus_are_stated(plan: Callable[..., Plan]) -> None:
    """Three GPUs at a pinned TP2: one is paid for and idle."""
    found = plan("3xH100", checkpoint="gptq-int4", tensor_parallel_size=2, pipeline_parallel_size=1)
    assert "1 of 3 GPUs stay idle and are paid for." in found.chosen.notes


def test_several_machines_are_said_to_be_several(plan: Callable[..., Plan]) -> None:
    """Thirty-two GPUs are planned, with the warning that links between machines are left out."""
    assert any("several machines" in note for note in plan("32xH200").chosen.notes)
    assert not any("several machines" in note for note in plan("8xH200").chosen.notes)


def test_context_holds_the_workload(ask: Callable[..., PlanRequest], catalog: Catalog) -> None:
    """A prompt of 260,000 tokens needs a context that holds it, or the combination is refused."""
    request = ask("1xH200", checkpoint="fp8", gpu_memory_utilization=0.92, language_model_only=False)
    large = msgspec.structs.replace(request.workload, input_tokens=TokenStats(mean=260_000.0))
    with pytest.raises(InfeasibleError) as caught:
        make_plan(msgspec.structs.replace(request, workload=large), catalog)
    assert {r.rule for r in caught.value.rejections} == {"kv_cache_too_small"}


def test_step_time_of_a_saved_plan(plan: Callable[..., Plan], catalog: Catalog) -> None:
    """The simulator's function is the planner's: the predicted time per token at the planned load."""
    found = plan("2xH200", checkpoint="fp8", concurrency=1, num_speculative_tokens=0)
    saved = plan_from_json(plan_to_json(found))
    seconds = step_time_function(saved.chosen, saved.inputs.node, catalog)
    one = seconds(StepShape(decode_sequences=1, decode_context_tokens=1260))
    assert one * 1000 == pytest.approx(saved.chosen.estimate.tpot_ms.value, rel=0.05)
    assert seconds(StepShape(prefill_tokens=4096)) > one


def test_explanation_states_the_arithmetic(plan: Callable[..., Plan]) -> None:
    """Why, memory, cache, what was set aside and what happens on failure, from the plan's own data."""
    found = plan("4xH100", gpu_price=PRICE)
    sections = dict(explain(found))
    assert list(sections) == [
        "Why this one", "Memory of one GPU", "Cache of one replica", "Set aside", "If a start fails",
    ]  # fmt: skip
    assert len(sections["Set aside"]) == len(found.rejections)
    assert f"{found.chosen.kv_cache.num_blocks:,} blocks" in sections["Cache of one replica"][0]


def test_a_request_longer_than_the_context_is_said_to_be_refused(catalog: Catalog) -> None:
    """500,000 tokens of prompt do not go into 262,144 of context."""
    long = msgspec.structs.replace(
        catalog.workloads["chat"], input_tokens=TokenStats(mean=500_000), output_tokens=TokenStats(mean=10)
    )
    node = parse_gpus("2xH200", catalog.gpus)
    plan = make_plan(PlanRequest(node=node, workload=long, slo=long.slo), catalog)
    assert any("500,010 tokens) is longer than the context" in note for note in plan.chosen.notes)

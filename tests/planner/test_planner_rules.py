"""Which combinations vLLM accepts: each rule met and missed by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.plan import LORA_MODULES, LoraOptions, Parallelism
from qwenhost.planner import rules
from qwenhost.planner.links import Collective
from qwenhost.planner.lora import lora_refusal, slot_bytes, targeted
from qwenhost.planner.weights import WeightSizes, is_sequence_parallel
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from qwenhost.facts import GpuSpec

CATALOG = load_catalog()
ARCHITECTURE = CATALOG.architectures["Qwen3.5-122B-A10B"]


def layout(tp: int = 1, pp: int = 1, dp: int = 1, *, ep: bool = False, dcp: int = 1) -> Parallelism:
    return Parallelism(
        tensor_parallel_size=tp, pipeline_parallel_size=pp, data_parallel_size=dp,
        enable_expert_parallel=ep, decode_context_parallel_size=dcp,
    )  # fmt: skip


def refused(checkpoint: str, **sizes: Any) -> list[str]:
    found = rules.layout_refusals(ARCHITECTURE, CATALOG.checkpoints[checkpoint], layout(**sizes))
    return [refusal.rule for refusal in found]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"tp": 1}, []),
        ({"tp": 2}, []),
        ({"tp": 4}, []),
        ({"tp": 8}, []),
        ({"tp": 16}, []),
        ({"tp": 3}, ["tp_divides_heads"]),  # 32 attention heads
        ({"tp": 6}, ["tp_divides_heads"]),
        ({"tp": 32}, ["tp_divides_heads"]),  # 16 key heads of Gated DeltaNet
        ({"tp": 2, "pp": 48}, []),
        ({"pp": 49}, ["pp_exceeds_layers"]),
        ({"tp": 2, "dp": 4, "ep": True}, []),
        ({"dp": 3, "ep": True}, ["ep_divides_experts"]),  # 256 experts
        ({"dp": 3}, []),
        ({"tp": 2, "dp": 256, "ep": True}, ["ep_divides_experts"]),
    ],
)
def test_layouts_of_the_full_precision_model(sizes: dict[str, Any], expected: list[str]) -> None:
    assert refused("bf16", **sizes) == expected


def test_a_quantization_group_is_not_cut() -> None:
    """Each checkpoint takes tensor parallelism up to its own limit and not beyond, experts over DP alike."""
    for checkpoint in CATALOG.checkpoints.values():
        architecture = CATALOG.architectures[checkpoint.architecture]
        most = checkpoint.max_tensor_parallel_size
        for tp in (1, 2, 4, 8, 16):
            found = [r.rule for r in rules.layout_refusals(architecture, checkpoint, layout(tp))]
            assert ("tp_cuts_group" in found) == (tp > most and "tp_divides_heads" not in found)
        if most < 16:
            spread = layout(1, dp=2 * most)
            assert [r.rule for r in rules.layout_refusals(architecture, checkpoint, spread)] == [
                "tp_cuts_group"
            ]
            whole = layout(1, dp=2 * most, ep=True)
            assert "tp_cuts_group" not in [
                r.rule for r in rules.layout_refusals(architecture, checkpoint, whole)
            ]


@pytest.mark.parametrize(
    ("tp", "dcp", "said"),
    [
        (1, 1, None),
        (4, 1, None),
        (4, 2, None),
        (8, 2, None),
        (8, 4, None),
        (2, 2, "at most 1 at tensor_parallel_size 2 with 2 KV heads"),
        (4, 4, "at most 2"),
        (8, 8, "at most 4"),
        (8, 3, "must divide"),
    ],
)
def test_context_parallelism_takes_ranks_that_repeat_a_kv_head(tp: int, dcp: int, said: str | None) -> None:
    """Two KV heads: TP4 holds each twice, so two ranks may share the tokens."""
    found = rules.context_parallel_refusal(ARCHITECTURE, layout(tp), dcp)
    assert (found is None) if said is None else (found is not None and said in found.message)


@pytest.mark.parametrize(
    ("gpu", "checkpoint", "rule"),
    [
        ("h200", "fp8", None),
        ("a100-80gb", "fp8", None),  # weight-only
        ("b200", "nvfp4", None),
        ("mi300x", "nvfp4", "vendor_kernel"),
        ("rtx-3090", "gptq-int4", None),
    ],
)
def test_checkpoints_and_gpus(gpu: str, checkpoint: str, rule: str | None) -> None:
    found = rules.checkpoint_refusal(CATALOG.checkpoints[checkpoint], CATALOG.gpus[gpu])
    assert (found.rule if found else None) == rule


def test_a_gpu_below_a_checkpoints_least_capability_is_told_both() -> None:
    old = msgspec.structs.replace(CATALOG.gpus["a100-80gb"], compute_capability=7.0, name="NVIDIA V100")
    for checkpoint in CATALOG.checkpoints.values():
        found = rules.checkpoint_refusal(checkpoint, old)
        if checkpoint.min_compute_capability > 7.0:
            assert found is not None
            assert found.rule == "compute_capability"
            assert str(checkpoint.min_compute_capability) in found.message
            assert "NVIDIA V100 has 7.0" in found.message


@pytest.mark.parametrize(
    ("dtype", "ruined"),
    [(None, False), ("auto", False), ("fp8", False), ("nvfp4", True), ("nvfp4_e2m1", True)],
)
def test_a_cache_type_that_ruins_answers_is_refused(dtype: str | None, ruined: bool) -> None:
    found = rules.cache_refusal(dtype)
    assert (found is not None) == ruined
    if found:
        assert found.link.endswith("/55673")


@pytest.mark.parametrize(
    ("gpu", "backend", "cuda", "runs"),
    [
        ("h200", None, None, True),
        ("h200", "flashinfer", "12.8", True),
        ("h200", "triton", None, False),
        ("a100-80gb", None, None, False),
        ("l40s", "flashinfer", "13.0", False),
        ("b200", None, "12.9", False),
        ("b200", None, "13.0", True),
        ("b200", "auto", None, True),
        ("mi300x", None, None, False),
        ("mi300x", "flashinfer", None, False),
    ],
)
def test_where_gdn_prefill_runs_on_flashinfer(
    gpu: str, backend: str | None, cuda: str | None, runs: bool
) -> None:
    assert rules.runs_flashinfer_gdn(CATALOG.gpus[gpu], backend, cuda) is runs


@pytest.mark.parametrize(
    ("gpu", "compute", "ep", "moe", "draft", "env"),
    [
        ("h200", "bf16", False, None, None, {}),
        ("h200", "fp8", False, None, None, {}),
        ("h200", "fp8", True, "triton", None, {}),
        ("b200", "fp8", True, None, None, {}),
        ("a100-80gb", "fp8", False, "marlin", None, {}),
        ("l40s", "fp8", False, None, None, {}),
        ("b200", "fp4", False, None, "triton", {}),
        ("rtx-pro-6000", "fp4", False, "marlin", "triton", {}),
        ("rtx-pro-6000", "fp8", False, None, None, {"VLLM_USE_DEEP_GEMM": "0"}),
        ("mi300x", "fp8", False, None, None, {"VLLM_ROCM_USE_AITER": "1"}),
    ],
)
def test_flags_that_a_kind_of_gpu_needs(
    gpu: str, compute: str, *, ep: bool, moe: str | None, draft: str | None, env: dict[str, str]
) -> None:
    found = rules.kernel_choice(CATALOG.checkpoints["bf16"], compute, CATALOG.gpus[gpu], expert_parallel=ep)
    assert (found.moe_backend, found.draft_moe_backend, found.env) == (moe, draft, env)
    assert bool(found.notes) == (moe is not None or "VLLM_USE_DEEP_GEMM" in env)


def test_only_one_release_crashed_on_fp8_experts() -> None:
    gpu = CATALOG.gpus["rtx-pro-6000"]
    assert rules.version_refusal("fp8", gpu, (0, 22)) is not None
    for compute, version in (("fp8", (0, 21)), ("fp8", (0, 33)), ("fp4", (0, 22))):
        assert rules.version_refusal(compute, gpu, version) is None
    assert rules.version_refusal("fp8", CATALOG.gpus["h200"], (0, 22)) is None


def weights(checkpoint: str, sizes: Parallelism, **given: Any) -> int:
    one = CATALOG.checkpoints[checkpoint]
    architecture = CATALOG.architectures[one.architecture]
    return WeightSizes(architecture, one, CATALOG.formats).per_rank(
        sizes, vision=given.get("vision", True), mtp=given.get("mtp", False)
    ).total_bytes  # fmt: skip


@pytest.mark.parametrize("checkpoint", sorted(CATALOG.checkpoints))
def test_more_ranks_hold_no_more_each_and_no_less_together(checkpoint: str) -> None:
    """What is replicated makes the sum grow; nothing gets lost."""
    one = weights(checkpoint, layout(1))
    before = one
    for tp in (2, 4, 8):
        each = weights(checkpoint, layout(tp))
        assert each < before
        assert each * tp >= one * 0.9999
        before = each


@pytest.mark.parametrize("checkpoint", ["bf16", "fp8", "gptq-int4", "nvfp4"])
@pytest.mark.parametrize("pp", [2, 3, 4, 6])
def test_the_fullest_stage_holds_at_least_its_share(checkpoint: str, pp: int) -> None:
    assert weights(checkpoint, layout(pp=pp)) >= weights(checkpoint, layout(1)) / pp


@pytest.mark.parametrize("checkpoint", ["bf16", "fp8"])
def test_what_is_left_out_weighs_nothing(checkpoint: str) -> None:
    """Text alone, then the draft, then the pictures; each adds."""
    least = weights(checkpoint, layout(2), vision=False)
    assert least < weights(checkpoint, layout(2), vision=False, mtp=True)
    assert least < weights(checkpoint, layout(2), vision=True) < weights(checkpoint, layout(2), mtp=True)


def test_bf16_on_one_gpu_is_two_bytes_a_parameter() -> None:
    """Vocabulary padded to 64 rows: 248,320 is a multiple."""
    groups = ARCHITECTURE.parameters
    counted = sum(n for group, n in groups.items() if not group.startswith("mtp_"))
    assert weights("bf16", layout(1)) == pytest.approx(2 * counted, rel=1e-5)


@pytest.mark.parametrize(
    ("sizes", "sharded"),
    [({"tp": 2, "dp": 2, "ep": True}, True), ({"tp": 2, "ep": True}, False), ({"dp": 2, "ep": True}, False),
     ({"tp": 2, "dp": 2}, False), ({}, False)],
)  # fmt: skip
def test_experts_on_shards_of_the_sequence_need_all_three(sizes: dict[str, Any], sharded: bool) -> None:
    assert is_sequence_parallel(layout(**sizes)) is sharded


@pytest.mark.parametrize(
    ("asked", "modules"),
    [
        ((), set(LORA_MODULES)),
        (("q_proj",), {"qkv_proj"}),
        (("in_proj_b", "in_proj_a"), {"in_proj_ba"}),
        (("o_proj", "down_proj"), {"o_proj", "down_proj"}),
        (("qkv_proj", "k_proj"), {"qkv_proj"}),
        (("nothing_like_it",), set()),
    ],
)
def test_adapters_of_a_part_take_the_merged_module(asked: tuple[str, ...], modules: set[str]) -> None:
    assert targeted(asked) == modules


@given(
    st.sampled_from([1, 2, 4, 8]), st.integers(1, 8), st.sampled_from([8, 16, 64]),
    st.lists(st.sampled_from(sorted(LORA_MODULES)), min_size=1, max_size=4, unique=True),
)  # fmt: skip
def test_slots_grow_with_number_rank_and_modules(tp: int, slots: int, rank: int, modules: list[str]) -> None:
    """Twice the slots or the rank, twice the bytes; every module adds its own."""
    checkpoint = CATALOG.checkpoints["fp8"]

    def size(**given: Any) -> int:
        base: dict[str, Any] = {
            "max_loras": slots, "max_lora_rank": rank, "lora_target_modules": tuple(modules)
        }  # fmt: skip
        return slot_bytes(ARCHITECTURE, checkpoint, layout(tp), LoraOptions(**(base | given)))

    assert size(max_loras=2 * slots) == 2 * size()
    assert size(max_lora_rank=2 * rank) == 2 * size()
    assert size() == sum(size(lora_target_modules=(module,)) for module in modules)
    assert size(lora_target_modules=()) >= size()


def test_the_slot_of_o_proj_by_hand() -> None:
    """A: rank x 8,192 inputs (cut by TP), B: 3,072 outputs x rank, BF16, in the 12 full-attention layers."""
    lora = LoraOptions(max_loras=1, max_lora_rank=16, lora_target_modules=("o_proj",))
    for tp in (1, 2, 4):
        expected = 16 * (8192 // tp + 3072) * 12 * 2
        assert slot_bytes(ARCHITECTURE, CATALOG.checkpoints["fp8"], layout(tp), lora) == expected


@pytest.mark.parametrize(
    ("lora", "sizes", "rule"),
    [
        (LoraOptions(), {}, None),
        (LoraOptions(max_lora_rank=24), {}, "lora_rank"),
        (LoraOptions(max_lora_rank=512), {}, None),
        (LoraOptions(), {"tp": 2, "dp": 2, "ep": True}, "lora_with_sequence_parallel_experts"),
        (LoraOptions(lora_target_modules=("o_proj",)), {"tp": 2, "dp": 2, "ep": True}, None),
    ],
)
def test_adapters_that_vllm_refuses(lora: LoraOptions, sizes: dict[str, Any], rule: str | None) -> None:
    found = lora_refusal(ARCHITECTURE, layout(**sizes), lora)
    assert (found.rule if found else None) == rule


def test_a_vocabulary_too_large_for_adapters_of_the_head() -> None:
    large = msgspec.structs.replace(ARCHITECTURE, vocab_size=258_049)
    found = lora_refusal(large, layout(), LoraOptions())
    assert found is not None
    assert found.rule == "lora_vocabulary"
    assert lora_refusal(large, layout(), LoraOptions(lora_target_modules=("o_proj",))) is None


CONSTANTS: dict[str, float] = {
    "allreduce_nvlink_bandwidth_efficiency": 0.5, "allreduce_pcie_bandwidth_efficiency": 0.5,
    "allreduce_nvlink_t0_s_2": 5e-6, "allreduce_nvlink_t0_s_4": 7e-6, "allreduce_nvlink_t0_s_8": 9e-6,
    "allreduce_pcie_t0_s_2": 10e-6, "allreduce_pcie_t0_s_4": 13e-6, "allreduce_pcie_t0_s_8": 20e-6,
    "nccl_collective_t0_s": 20e-6,
}  # fmt: skip


def collective(gpu: str, interconnect: str) -> Collective:
    spec: GpuSpec = CATALOG.gpus[gpu]
    constants: Any = CONSTANTS
    return Collective(spec, constants, interconnect)


def test_an_all_reduce_by_hand() -> None:
    """Two ranks: 5 us, and 2 * 1/2 of the bytes over half of the link."""
    link = CATALOG.gpus["h200"].link_bytes_per_s
    found = collective("h200", "nvlink").all_reduce(1e6, 2)
    assert found == pytest.approx(5e-6 + 1e6 / (0.5 * link))
    assert collective("h200", "nvlink").all_reduce(1e9, 1) == 0


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.sampled_from([2, 4, 8]), st.sampled_from(["nvlink", "pcie"]))
def test_more_bytes_never_take_less(one: float, other: float, ranks: int, link: str) -> None:
    few, many = sorted((one, other))
    here = collective("h200", link)
    for action in (here.all_reduce, here.gather, here.gather_and_scatter):
        assert 0 < action(few, ranks) <= action(many, ranks)
    assert here.hand_over(few) <= here.hand_over(many)


@pytest.mark.parametrize("link", ["nvlink", "pcie"])
def test_more_ranks_never_take_less(link: str) -> None:
    """Beyond eight, twice the ranks take twice the fixed time."""
    here = collective("h200", link)
    times = [here.all_reduce(1e5, ranks) for ranks in (2, 4, 8, 16, 32)]
    assert times == sorted(times)
    assert here.all_reduce(0, 16) == pytest.approx(2 * here.all_reduce(0, 8))


def test_nothing_gathers_from_one_rank() -> None:
    assert collective("h200", "nvlink").gather(1e6, 1) == 0

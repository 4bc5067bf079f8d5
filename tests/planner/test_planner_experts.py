"""Distinct experts, layouts and draft lengths against formulas written another way, over all checkpoints."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qwenhost.plan import Parallelism
from qwenhost.planner.experts import DistinctExperts
from qwenhost.planner.rules import (
    cache_refusal,
    checkpoint_refusal,
    context_parallel_refusal,
    experts_run_on_marlin,
    kernel_choice,
    layout_refusals,
    version_refusal,
)
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from qwenhost.facts import Architecture, Checkpoint, GpuSpec

CATALOG = load_catalog([])
CHECKPOINTS = sorted(CATALOG.checkpoints.values(), key=lambda one: one.id)
GPUS = sorted(CATALOG.gpus.values(), key=lambda one: one.id)
SIZES = (1, 2, 3, 4, 5, 6, 8, 16, 32)


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    return CATALOG.architectures[checkpoint.architecture]


@pytest.mark.parametrize(("experts", "top_k"), [(256, 8), (128, 8), (512, 10), (8, 2), (4, 3)])
@pytest.mark.parametrize("octave", [0, 1, 3, 6, 10])
def test_even_routing_is_the_chance_to_be_missed(experts: int, top_k: int, octave: int) -> None:
    """An expert is missed by n tokens with (1 - k/N)^n; tokens at powers of two lie on the table."""
    tokens = 2**octave
    expected = experts * (1 - (1 - top_k / experts) ** tokens)
    assert DistinctExperts(experts, top_k, 0.0)(tokens) == pytest.approx(expected, rel=1e-6)


@given(tokens=st.integers(1, 2**17), top_k=st.integers(1, 8))
def test_between_the_table_s_sizes_no_more_than_the_formula(tokens: int, top_k: int) -> None:
    """The chord of a curve that bends down lies under it, and near it."""
    true = 256 * (1 - (1 - top_k / 256) ** tokens)
    assert true * 0.997 <= DistinctExperts(256, top_k, 0.0)(tokens) <= true * (1 + 1e-6)


@given(
    tokens=st.floats(0, 1e6), more=st.floats(0, 1e4), decay=st.sampled_from([0.0, 0.5, 2.0, 3.64, 8.0]),
)  # fmt: skip
@example(tokens=1.5, more=0.0, decay=0.0)
@settings(max_examples=60)
def test_more_tokens_touch_no_fewer_experts(tokens: float, more: float, decay: float) -> None:
    """Never more than there are, nor than the tokens ask for; popular ones among them lower the number."""
    distinct = DistinctExperts(256, 8, decay)
    found = distinct(tokens)
    assert 0 <= found <= 256 * (1 + 1e-9)
    assert found <= 8 * tokens * (1 + 1e-6)
    assert distinct(tokens + more) >= found * (1 - 1e-9)
    assert found <= DistinctExperts(256, 8, 0.0)(tokens) * (1 + 1e-6)


@pytest.mark.parametrize("decay", [0.0, 3.64])
def test_a_part_of_a_token_and_all_tokens(decay: float) -> None:
    """A share of a token asks for its share of eight; beyond the table all that is ever reached."""
    distinct = DistinctExperts(256, 8, decay)
    assert [distinct(share) for share in (0, 0.25, 1)] == [0, 2, 8]
    assert distinct(2**17) == distinct(2**30) == distinct.table[-1]
    assert len(distinct.table) == len(distinct.sizes)
    assert (distinct.sizes[0], distinct.sizes[-1]) == (1, 2**17)


def refused(checkpoint: Checkpoint, layout: Parallelism) -> set[str]:
    return {one.rule for one in layout_refusals(architecture_of(checkpoint), checkpoint, layout)}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda one: one.id)
def test_every_layout_is_refused_for_the_reasons_that_hold(checkpoint: Checkpoint) -> None:
    """Divisibility by remainders of products: heads to ranks, experts to groups, ranks to what may be cut."""
    arch = architecture_of(checkpoint)
    most = checkpoint.max_tensor_parallel_size
    for tp, dp, expert_parallel in itertools.product(SIZES, (1, 2, 4, 8), (False, True)):
        layout = Parallelism(
            tensor_parallel_size=tp, data_parallel_size=dp, enable_expert_parallel=expert_parallel
        )
        heads = (arch.num_attention_heads, arch.linear_num_key_heads, arch.linear_num_value_heads)
        expected = set()
        if any(number // tp * tp != number for number in heads):
            expected = {"tp_divides_heads"}
        else:
            low, high = sorted((tp, arch.num_key_value_heads))
            if high // low * low != high:
                expected.add("tp_divides_heads")
            if tp > most or (not expert_parallel and tp * dp > most):
                expected.add("tp_cuts_group")
            if expert_parallel and arch.num_experts // (tp * dp) * tp * dp != arch.num_experts:
                expected.add("ep_divides_experts")
        assert refused(checkpoint, layout) == expected, layout.label


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda one: one.id)
def test_stages_are_no_more_than_layers(checkpoint: Checkpoint) -> None:
    layers = architecture_of(checkpoint).num_hidden_layers
    assert "pp_exceeds_layers" not in refused(checkpoint, Parallelism(pipeline_parallel_size=layers))
    assert "pp_exceeds_layers" in refused(checkpoint, Parallelism(pipeline_parallel_size=layers + 1))


@pytest.mark.parametrize("name", sorted(CATALOG.architectures))
def test_ranks_that_share_tokens_are_those_that_repeat_a_head(name: str) -> None:
    """With K KV heads on T ranks each is held T/K times: so many ranks at most, and of equal groups."""
    arch = CATALOG.architectures[name]
    kv, queries = arch.num_key_value_heads, arch.num_attention_heads
    for tp, size in itertools.product(SIZES, SIZES):
        found = context_parallel_refusal(arch, Parallelism(tensor_parallel_size=tp), size)
        copies = tp // kv
        fits = size == 1 or (size <= copies and tp % size == 0 and queries // kv % size == 0)
        assert (found is None) is fits, (tp, size)
        if found is not None:
            assert found.message.startswith(f"decode_context_parallel_size {size}: ")


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda one: one.id)
@pytest.mark.parametrize("gpu", GPUS, ids=lambda one: one.id)
def test_what_a_gpu_cannot_run_says_what_is_needed(gpu: GpuSpec, checkpoint: Checkpoint) -> None:
    """Capability first, with both figures; NVFP4 never on AMD."""
    found = checkpoint_refusal(checkpoint, gpu)
    if gpu.compute_capability < checkpoint.min_compute_capability:
        assert found is not None
        assert found.rule == "compute_capability"
        assert f"needs compute capability {checkpoint.min_compute_capability}" in found.message
        assert f"{gpu.name} has {gpu.compute_capability}" in found.message
    elif gpu.vendor == "amd":
        assert (found is not None) is (checkpoint.quantization == "modelopt_fp4")
    else:
        assert found is None


@pytest.mark.parametrize("compute", ["bf16", "fp8", "fp4"])
@pytest.mark.parametrize("gpu", GPUS, ids=lambda one: one.id)
def test_kernels_of_every_gpu_are_explained(gpu: GpuSpec, compute: str) -> None:
    """A backend or variable that differs from vLLM's own comes with its reason; BF16 needs none."""
    for expert_parallel in (False, True):
        found = kernel_choice(CATALOG.checkpoints["fp8"], compute, gpu, expert_parallel=expert_parallel)
        if found.moe_backend or "VLLM_USE_DEEP_GEMM" in found.env:
            assert found.notes
            assert all("github.com" in note for note in found.notes)
        if compute == "bf16":
            assert (found.moe_backend, found.draft_moe_backend) == (None, None)
        assert ("VLLM_ROCM_USE_AITER" in found.env) is (gpu.vendor == "amd")
        assert (found.draft_moe_backend == "triton") is (compute == "fp4")
        if experts_run_on_marlin(compute, gpu):
            assert found.moe_backend == "marlin"


@pytest.mark.parametrize("gpu", GPUS, ids=lambda one: one.id)
def test_a_release_that_crashes_is_told_only_there(gpu: GpuSpec) -> None:
    """FP8 experts on consumer Blackwell in vLLM 0.22, and no other combination."""
    for compute, version in itertools.product(("bf16", "fp8", "fp4"), ((0, 21), (0, 22), (0, 23), (1, 22))):
        crashes = compute == "fp8" and version == (0, 22) and gpu.compute_capability >= 12
        assert (version_refusal(compute, gpu, version) is not None) is crashes


@pytest.mark.parametrize("dtype", [None, "auto", "fp8", "fp8_e4m3", "bfloat16", "nvfp4", "nvfp4_ds"])
def test_only_an_nvfp4_cache_ruins_answers(dtype: str | None) -> None:
    found = cache_refusal(dtype)
    assert (found is not None) is (dtype or "").startswith("nvfp4")

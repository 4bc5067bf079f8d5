"""Each known fault is said where it applies, with its link, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.errors import InfeasibleError
from qwenhost.plan import Parallelism
from qwenhost.planner import make_plan
from qwenhost.planner.known_issues import KNOWN_ISSUES, Combination, known_issues

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ask

    from qwenhost.facts import Catalog
    from qwenhost.plan import Plan

FP8: dict[str, Any] = {"checkpoint": "fp8"}
FP8_TP2, FP8_TP4 = FP8 | {"tensor_parallel_size": 2}, FP8 | {"tensor_parallel_size": 4}
DRAFTS: dict[str, Any] = {"num_speculative_tokens": 1}


@pytest.mark.parametrize(
    ("gpus", "given", "link"),
    [
        ("2xH200", {"checkpoint": "nvfp4"}, "36094"),
        ("8xA100", {"checkpoint": "fp8", "kv_cache_dtype": "fp8"}, "54318"),
        ("2xH200", {"checkpoint": "fp8", "kv_cache_dtype": "fp8"}, "sglang"),
        ("2xH200", {"checkpoint": "fp8", "kv_cache_dtype": "fp8", "num_speculative_tokens": 3}, "33364"),
        ("2xH200", {"num_speculative_tokens": 1}, "spec_decode"),
        ("8xMI300X", {"num_speculative_tokens": 1}, "53012"),
        ("8xMI300X", {"data_parallel_size": 2, "enable_expert_parallel": True}, "53012"),
        ("4xH100", FP8_TP4 | {"vllm_version": "0.27.0"}, "51297"),
        ("8xB200", FP8_TP4 | DRAFTS | {"decode_context_parallel_size": 2}, "flashinfer.py"),
        ("8xH200", {"checkpoint": "fp8", "data_parallel_size": 8, "enable_expert_parallel": True}, "34892"),
    ],
)  # fmt: skip
def test_a_fault_is_said_with_its_link(
    plan: Callable[..., Plan], gpus: str, given: dict[str, Any], link: str
) -> None:
    """And the plain FP8 plan on H200 says none of them."""
    assert any(link in note for note in plan(gpus, **given).chosen.notes)
    plain = plan("2xH200", checkpoint="fp8", num_speculative_tokens=0, tensor_parallel_size=2).chosen
    assert not any(link in note for note in plain.notes)


def test_fp8_experts_stay_off_the_kernel_that_lost_accuracy(plan: Callable[..., Plan]) -> None:
    """Expert parallel on Hopper takes Triton; on Blackwell vLLM's own choice stands."""
    pins = {"checkpoint": "fp8", "data_parallel_size": 8, "enable_expert_parallel": True}
    assert plan("8xH200", **pins).chosen.engine_args.moe_backend == "triton"
    assert plan("8xB200", **pins).chosen.engine_args.moe_backend is None
    shared = pins | {"enable_expert_parallel": False}
    assert plan("8xH200", **shared).chosen.engine_args.moe_backend is None


@pytest.mark.parametrize(
    ("gpus", "given", "refused"),
    [
        ("2xB200", {"kv_cache_dtype": "nvfp4"}, ("nvfp4_kv_cache", "55673")),
        ("2x RTX PRO 6000", FP8 | {"vllm_version": "0.22.1"}, ("fp8_experts_on_sm120", "45101")),
        ("16xH200", FP8 | {"tensor_parallel_size": 16}, ("tp_cuts_group", "54178")),
        ("2xH200", DRAFTS | {"enable_prefix_caching": True}, ("mtp_with_prefix_caching", "53912")),
        ("2xH200", FP8_TP2 | {"max_num_seqs": 9000}, ("state_blocks_too_few", "49064")),
    ],
)  # fmt: skip
def test_what_ruins_a_run_is_refused_with_its_link(
    catalog: Catalog, ask: Ask, gpus: str, given: dict[str, Any], refused: tuple[str, str]
) -> None:
    """A rule, not silence."""
    rule, link = refused
    with pytest.raises(InfeasibleError) as caught:
        make_plan(ask(gpus, **given), catalog)
    found = {one.rule: one.link for one in caught.value.rejections}
    assert found[rule].endswith(link)


def test_the_release_after_the_crash_is_planned_for(plan: Callable[..., Plan]) -> None:
    """0.23 and later run FP8 experts on SM120."""
    assert plan("2xRTX PRO 6000", checkpoint="fp8", vllm_version="0.23.0").chosen.checkpoint.id == "fp8"


def test_drafts_are_not_searched_on_amd(plan: Callable[..., Plan]) -> None:
    """They stay possible where they are pinned."""
    made = plan("8xMI300X")
    assert all(not one.engine_args.num_speculative_tokens for one in (made.chosen, *made.alternatives))
    assert plan("8xMI300X", num_speculative_tokens=1).chosen.engine_args.num_speculative_tokens == 1


def test_every_fault_has_an_address(catalog: Catalog) -> None:
    """And none of them meets BF16 on H200 at TP8."""
    assert all(one.link.startswith("https://") for one in KNOWN_ISSUES)
    assert len({one.text for one in KNOWN_ISSUES}) == len(KNOWN_ISSUES)
    from_plan = Combination(
        checkpoint=catalog.checkpoints["bf16"],
        expert_compute="bf16",
        spec=catalog.gpus["h200"],
        layout=Parallelism(tensor_parallel_size=8),
        kv_cache_dtype="auto",
        num_speculative_tokens=0,
        vllm_version=(0, 33),
    )
    assert list(known_issues(from_plan)) == []

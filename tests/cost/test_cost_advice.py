"""Advice from a comparison made by hand."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from cost_samples import CATALOG, CHAT, DAY, H200, NOON, assumption, plan

from qwenhost.cli.main import run
from qwenhost.cost import Advice, CompareOptions, Needs, Success, advise, compare

LORA = (
    assumption("lora_training_tokens", 60e6, 1e7, 1e9),
    assumption("lora_runs", 5, 2, 20),
    assumption("lora_flops_utilisation", 0.2, 0.1, 0.35),
    assumption("lora_engineer_weeks", 4, 2, 12),
    assumption("lora_life_months", 12, 6, 24),
    assumption("lora_serving_slowdown", 0.1, 0.05, 0.3),
)
KNOWN = msgspec.structs.replace(CATALOG, assumptions={**CATALOG.assumptions, **{row.id: row for row in LORA}})


def advice(needs: Needs, *, volume: float = 300_000, **options: Any) -> Advice:
    """Chat on two H200 that carry ten requests a second."""
    chosen = CompareOptions(as_of=DAY, requests_per_day=volume, **options)
    found = compare(KNOWN, CHAT, plan(), None, options=chosen, generated_at=NOON)
    return advise(KNOWN, found, needs, gpu=H200)


def way(found: Advice, name: str) -> Any:
    """One option."""
    return next(option for option in found.options if option.way == name)


def test_the_cheapest_way_for_a_solved_task_is_advised() -> None:
    """The cheapest host of the same model, unless something excludes it."""
    found = advice(Needs(coding=True))
    assert found.choice == "hosted_qwen"
    costs = [option.usd_per_solved for option in found.options]
    assert way(found, "hosted_qwen").usd_per_solved == min(costs)


def test_privacy_leaves_only_the_own_machine() -> None:
    """Neither API, nor any mix with one."""
    found = advice(Needs(privacy=True))
    assert found.choice == "self_host"
    assert all("privacy" in option.excluded_by for option in found.options if option.way != "self_host")


def test_no_operations_leaves_the_apis() -> None:
    """And with open weights only the hosted model."""
    assert way(advice(Needs(no_operations=True)), "self_host").excluded_by == ("no operations",)
    assert advice(Needs(no_operations=True, open_weights=True)).choice == "hosted_qwen"


def test_needs_that_exclude_each_other_are_said() -> None:
    """Private and without operations: nothing is left."""
    found = advice(Needs(privacy=True, no_operations=True))
    assert found.choice == "none"
    assert "No way satisfies" in found.headline


def test_scores_follow_the_needs() -> None:
    """SWE-bench for coding: 72.0 against 79.6 speaks for the API."""
    found = advice(Needs(coding=True))
    assert [row.benchmark for row in found.scores] == ["SWE-bench Verified"]
    reason = next(reason for reason in found.reasons if reason.need == "SWE-bench Verified")
    assert reason.speaks_for == "api"


def test_a_mix_costs_its_parts() -> None:
    """Half self-hosted: the nodes for half the volume and half the API's bill; solved half and half."""
    found = advice(Needs(), success=Success(qwen=0.5, baseline=0.8))
    half, api = way(found, "mixed_50"), way(found, "api")
    own_at_half = compare(
        KNOWN,
        CHAT,
        plan(),
        None,
        options=CompareOptions(as_of=DAY, requests_per_day=150_000),
        generated_at=NOON,
    ).self_host.usd_per_month
    assert half.usd_per_month == pytest.approx(own_at_half + api.usd_per_month / 2)
    assert half.solved == pytest.approx(0.65)


def test_a_cascade_passes_failures_on() -> None:
    """At 50 % half of the volume is asked twice: 0.5 + 0.5 * 0.8 are solved."""
    found = advice(Needs(), success=Success(qwen=0.5, baseline=0.8))
    cascade = way(found, "cascade")
    assert cascade.solved == pytest.approx(0.9)
    expected = way(found, "self_host").usd_per_month + way(found, "api").usd_per_month / 2
    assert cascade.usd_per_month == pytest.approx(expected)


def test_fine_tuning_is_priced_and_has_a_gain_to_reach() -> None:
    """5 * 6 * 10e9 * 60e6 / (989e12 * 0.2) / 3,600 = 25.3 GPU hours at 4 USD; 4 weeks are 20,000 USD."""
    tuned = advice(Needs(), success=Success(qwen=0.5, baseline=0.8)).fine_tuning
    assert tuned.gpu_hours == pytest.approx(25.28, abs=0.01)
    assert tuned.usd_training == pytest.approx(25.28 * 4, abs=0.05)
    assert tuned.usd_work == pytest.approx(20_000)
    nodes_usd = 2 * 2 * 4.0 * 730
    assert tuned.usd_serving_per_month == pytest.approx(nodes_usd * 0.1)
    api_usd = 300_000 * (1155 * 3 + 211 * 15) / 1e6 * (365 / 12)
    assert tuned.usd_per_month == pytest.approx((tuned.usd_training + 20_000) / 12 + nodes_usd * 0.1)
    assert tuned.gain_to_pay_back == pytest.approx(tuned.usd_per_month / api_usd, rel=0.01)
    none = advice(Needs(), volume=1000, success=Success(qwen=0.9, baseline=0.95)).fine_tuning
    assert none.gain_to_pay_back is None


def test_the_command_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, and in words."""
    argv = ["advise", "--gpus", "2xH200", "--workload", "coding_agent", "--volume", "20000", "--coding"]
    argv += ["--as-of", "2026-11-23"]
    assert run([*argv, "--privacy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "qwenhost.advice/1"
    assert found["choice"] == "self_host"
    assert run(argv) == 0
    assert "Fine-tuning." in capsys.readouterr().out

"""Owned hardware, spot, newer tokenizers and the user's own success rates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cost_samples import CATALOG, CHAT, DAY, NOON, SONNET, plan

from qwenhost.cli.main import run
from qwenhost.cost import (
    ApiTerms,
    CompareOptions,
    Ownership,
    Success,
    compare,
    owned_usd_per_gpu_hour,
    price_request,
)
from qwenhost.plan import GpuPriceRef
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from qwenhost.cost import Comparison

H200 = CATALOG.owned_gpus["h200"]


def made(**options: Any) -> Comparison:
    """Chat on two H200 that carry ten requests a second."""
    chosen = CompareOptions(as_of=DAY, requests_per_day=50_000, **options)
    return compare(CATALOG, CHAT, plan(), None, options=chosen, generated_at=NOON)


def test_owned_hardware_with_every_figure_given() -> None:
    """35,040 USD over 4 years of 8,760 h is 1.00 USD/h; 1 kW at 73 USD a month 0.10; 27.5 % on top."""
    own = Ownership(purchase_usd=35_040, years=4, kw=1.0, colo_usd_per_kw_month=73.0)
    assert owned_usd_per_gpu_hour(CATALOG, H200, own).value == pytest.approx(1.10 * 1.275)


def test_own_premises_pay_for_electricity_times_pue() -> None:
    """2 kW * 1.5 * 0.20 USD is 0.60 USD/h."""
    own = Ownership(
        purchase_usd=35_040, years=4, kw=2.0, electricity_usd_per_kwh=0.20, power_usage_effectiveness=1.5
    )
    assert owned_usd_per_gpu_hour(CATALOG, H200, own).value == pytest.approx(1.60 * 1.275)


def test_what_is_not_given_keeps_its_band() -> None:
    """The profile's purchase price spans 40,000 to 52,500 USD."""
    loose = owned_usd_per_gpu_hour(CATALOG, H200)
    tight = owned_usd_per_gpu_hour(CATALOG, H200, Ownership(purchase_usd=46_250))
    assert tight.value == pytest.approx(loose.value)
    assert loose.low < tight.low < tight.value < tight.high < loose.high


def test_owning_can_be_the_main_price() -> None:
    """The bill, the lever and the source are those of ownership."""
    found = made(own=Ownership())
    hour = owned_usd_per_gpu_hour(CATALOG, H200).value
    assert found.self_host.usd_per_gpu_hour.value == pytest.approx(hour)
    assert found.self_host.monthly.nodes == pytest.approx(2 * 2 * hour * 730)
    lever = next(row for row in found.sensitivity if row.id == "gpu_price")
    assert lever.basis == "modelled"


def test_spot_is_priced_with_its_interruptions_and_says_so() -> None:
    """2.00 USD and 5 % of node hours bought again: 2.10 USD."""
    spot = GpuPriceRef(usd_per_gpu_hour=2.0, provider="nebius", tier="spot", as_of="2026-11-23", source="x")
    found = made(gpu_price=spot)
    assert found.self_host.usd_per_gpu_hour.value == pytest.approx(2.10)
    assert any("withdrawn at minutes' notice: 5%" in said for said in found.verdict.cautions)
    option = next(row for row in found.hardware_options if row.tier == "spot")
    assert option.usd_per_gpu_hour == 2.0
    assert option.usd_per_month == pytest.approx(found.self_host.usd_per_month)


def test_a_newer_tokenizer_bills_more_tokens_for_the_same_text() -> None:
    """Sonnet 5 counts code at 1.50 / 1.20 = 1.25 of Sonnet 4.6; its band is 1.24/1.10 to 1.77/1.30."""
    known = load_catalog()
    reference = known.api_prices["claude-sonnet-4.6"].tokenizer
    price, load = known.api_prices["claude-sonnet-5"], known.workloads["coding_agent"]
    plain = price_request(price, load, ApiTerms(as_of=DAY, cache="none"))
    newer = price_request(price, load, ApiTerms(as_of=DAY, cache="none", reference_tokenizer=reference))
    assert newer.breakdown.total == pytest.approx(plain.breakdown.total * 1.25)
    assert any("1.25 times the tokens (1.13 to 1.36, assumed)" in said for said in newer.remarks)
    same = known.api_prices["claude-sonnet-4.6"]
    terms = ApiTerms(as_of=DAY, reference_tokenizer=reference)
    assert price_request(same, load, terms).usage.prompt_tokens == pytest.approx(122_379)
    assert price_request(SONNET, CHAT, terms).usage.prompt_tokens == 1155


def test_success_rates_of_the_users_own_tasks_come_first() -> None:
    """At 50 % and two attempts 75 % are solved in 1.5 attempts; a solved task costs two attempts."""
    found = made(success=Success(qwen=0.5, baseline=0.8, max_attempts=2))
    row = found.quality[0]
    assert row.benchmark == "Your tasks"
    assert (row.qwen_solved, row.qwen_attempts) == (0.75, 1.5)
    assert row.baseline_solved == pytest.approx(0.96)
    assert row.baseline_attempts == pytest.approx(1.2)
    assert row.qwen_usd_per_solved == pytest.approx(found.self_host.usd_per_request * 2)
    assert row.baseline_usd_per_solved == pytest.approx(found.baseline.usd_per_request / 0.8)
    assert found.quality[1].benchmark == "SWE-bench Verified"
    assert found.quality[1].qwen_solved == pytest.approx(1 - 0.28**2)


def test_without_a_cap_every_task_is_solved_in_the_end() -> None:
    """1 / 0.72 attempts."""
    row = made().quality[0]
    assert (row.qwen_solved, row.qwen_attempts) == (1.0, pytest.approx(1 / 0.72))


def test_the_options_reach_the_bill(capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, and refused where they make no sense."""
    base = ["compare", "--gpus", "2xH200", "--as-of", "2026-11-23", "--json"]
    own = [
        "--own",
        "--own-usd",
        "35040",
        "--own-years",
        "4",
        "--own-kw",
        "1",
        "--colo-usd-per-kw-month",
        "73",
    ]
    assert run([*base, *own, "--success", "qwen=0.7,sonnet=0.8", "--max-attempts", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["self_host"]["usd_per_gpu_hour"]["value"] == pytest.approx(1.10 * 1.275)
    assert found["quality"][0]["qwen"] == 70.0
    assert run([*base, "--own-usd", "1"]) == 2
    assert "--own" in capsys.readouterr().err
    for wrong in ("qwen", "qwen=2", "opus=0.5", "qwen=x"):
        assert run([*base, "--success", wrong]) == 2
        assert "--success" in capsys.readouterr().err


def test_a_saved_comparison_with_the_new_fields_is_read_again() -> None:
    """Round trip."""
    found = made(success=Success(qwen=0.5, baseline=0.8))
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_thinking_on_and_off_are_rows_of_their_own() -> None:
    """Chat does not think: with three quarters of the output thinking, 211 tokens become 844."""
    rows = {(row.name, row.thinking): row for row in made().thinking}
    name = "Claude Sonnet 4.6"
    assert rows[name, False].usd_per_request == pytest.approx((1155 * 3 + 211 * 15) / 1e6)
    assert rows[name, True].usd_per_request == pytest.approx((1155 * 3 + 844 * 15) / 1e6)
    assert rows["Self-hosted", True].usd_per_request >= rows["Self-hosted", False].usd_per_request
    thinker = msgspec.structs.replace(CHAT, thinking_share=0.5)
    found = compare(CATALOG, thinker, plan(), None, options=CompareOptions(as_of=DAY), generated_at=NOON)
    rows = {(row.name, row.thinking): row for row in found.thinking}
    assert rows[name, True].output_tokens == 211
    assert rows[name, False].output_tokens == 105.5
    assert rows["Self-hosted", True].usd_per_request == pytest.approx(found.self_host.usd_per_request)

"""The whole comparison, and a case for each of the twelve common errors of break-even articles."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cost_samples import CATALOG, CHAT, CODING_AGENT, DAY, NOON, plan, run, workload

from qwenhost.cost import (
    CompareOptions,
    Comparison,
    compare,
    comparison_to_json,
    load_comparison,
    owned_usd_per_gpu_hour,
)
from qwenhost.errors import BadInputError
from qwenhost.units import DAYS_PER_MONTH

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.facts import Workload
    from qwenhost.measurements import Measurements


def result(
    *, load: Workload = CHAT, measured: Measurements | None = None, rate: float = 10.0, **options: Any
) -> Comparison:
    """Two H200 at 4 dollars that carry ``rate`` chat requests a second, against Sonnet 4.6."""
    chosen = CompareOptions(as_of=DAY, **options)
    return compare(CATALOG, load, plan(rate=rate), measured, options=chosen, generated_at=NOON)


def test_the_bill_of_one_node_without_frills() -> None:
    """2 x 4 dollars x 730 h = 5,840 and 12.70 of storage; 10,000 requests at 0.00663 are 2,017 at Sonnet."""
    found = result(requests_per_day=10_000, spare_nodes=0, staff_fte=0.0, mean_over_peak=1.0)
    assert found.self_host.monthly.nodes == pytest.approx(5840)
    assert found.self_host.monthly.storage == pytest.approx(12.70)
    assert found.self_host.usd_per_month == pytest.approx(5852.70)
    assert found.baseline.usd_per_month == pytest.approx(0.00663 * 10_000 * DAYS_PER_MONTH)
    assert found.verdict.choice == "api"
    assert found.break_even.requests_per_day == pytest.approx(5852.70 / DAYS_PER_MONTH / 0.00663)


def test_above_the_break_even_self_hosting_wins() -> None:
    """At 100,000 requests a day Sonnet costs 20,166 a month, one node still 5,853."""
    found = result(requests_per_day=100_000, spare_nodes=0, staff_fte=0.0, mean_over_peak=1.0)
    assert found.verdict.choice == "self_host"
    assert found.verdict.headline.startswith("Self-host: it saves $14,314 a month")


def test_a_bill_beyond_every_tier_is_said() -> None:
    """100 million requests a day peak at 138,889 a minute; the highest tier takes 10,000."""
    found = result(requests_per_day=100e6)
    assert found.baseline.rate_limit_tier is None
    assert any("above the highest published tier" in caution for caution in found.verdict.cautions)
    small = result(requests_per_day=10_000)
    assert small.baseline.rate_limit_tier == "start"
    assert not any("published tier" in caution for caution in small.verdict.cautions)


def test_error_1_peak_throughput_day_and_night() -> None:
    """The mean over the peak divides what a node carries: 0.52 of 864,000."""
    shaped = msgspec.structs.replace(CHAT, mean_over_peak=0.52)
    assert result(load=shaped).self_host.requests_per_day_per_node == pytest.approx(0.52 * 864_000)


def test_error_2_one_blended_price() -> None:
    """Input and output prices stay apart, and with the cache the effective input price is 0.59, not 3."""
    line = result(load=CODING_AGENT, cache="5m").baseline
    assert line.usd_per_mtok_input == pytest.approx(0.59, abs=0.005)
    assert line.usd_per_mtok_output == pytest.approx(15.0)


def test_error_3_caches_and_batch_count() -> None:
    """The coding agent is billed with the cheapest cache, and batch halves what offers batch."""
    assert result(load=CODING_AGENT).baseline.cache_policy == "1h"
    plain, batch = result(), result(batch=True)
    assert batch.baseline.usd_per_request == pytest.approx(plain.baseline.usd_per_request / 2)
    hosted = batch.cheapest_hosted
    assert hosted is not None
    assert "no batch price is published: billed at list" in hosted.remarks


def test_error_4_hosted_offers_of_the_open_model_are_in_the_table() -> None:
    """Both offers are priced and the cheaper one is named in the cautions."""
    found = result(requests_per_day=10_000)
    assert [line.id for line in found.api] == ["claude-sonnet-4-6", "qwen-openrouter", "qwen-novita"]
    assert any("openrouter" in caution for caution in found.verdict.cautions)


def test_error_5_a_spare_node_is_paid_for() -> None:
    """N+1 by default: two nodes where one serves."""
    found = result(requests_per_day=10_000).self_host
    assert (found.nodes, found.serving_nodes, found.spare_nodes) == (2, 1, 1)


def test_error_6_staff_is_its_own_line() -> None:
    """A quarter of 260,000 dollars a year is 5,417 a month, and 0 if you say so."""
    assert result().self_host.monthly.staff == pytest.approx(260_000 / 4 / 12)
    assert result(staff_fte=0.0).self_host.monthly.staff == 0


def test_error_7_tokenizer_and_verbosity_are_stated_and_move_the_result() -> None:
    """Both have rows in the tornado; given, they change the bills and leave the tornado."""
    ids = {row.id for row in result().sensitivity}
    assert {"claude_tokens_per_qwen_token", "qwen_output_per_sonnet_output"} <= ids
    more = result(token_ratio=1.2, output_ratio=2.0)
    assert more.baseline.usd_per_request == pytest.approx(1.2 * result().baseline.usd_per_request)
    assert more.self_host.requests_per_day_per_node < result().self_host.requests_per_day_per_node
    assert not {"claude_tokens_per_qwen_token", "qwen_output_per_sonnet_output"} & {
        row.id for row in more.sensitivity
    }


def test_error_8_capacity_is_goodput_at_the_service_level() -> None:
    """Of 10 requests a second 9.5 kept the limits: 9.5 is the capacity."""
    found = result(measured=run()).self_host
    assert found.requests_per_s_per_node.value == pytest.approx(9.5)
    assert found.requests_per_s_per_node.basis == "measured"
    assert found.slo == "p90: TTFT 2000 ms, TPOT 50 ms"


def test_error_9_spot_is_listed_but_carries_no_band() -> None:
    """The band ends at the one-year price of 2.80; spot at 2.00 stays an option in the table."""
    found = result()
    assert (found.self_host.usd_per_gpu_hour.low, found.self_host.usd_per_gpu_hour.high) == (2.8, 8.0)
    assert ("nebius", "spot") in {(option.label, option.tier) for option in found.hardware_options}


def test_error_10_every_price_has_its_day() -> None:
    """Each API line carries source and date, and a day without price is refused."""
    assert all(line.as_of and line.source for line in result().api)
    with pytest.raises(BadInputError, match="no price on 2025-01-01"):
        compare(
            CATALOG, CHAT, plan(), None, options=CompareOptions(as_of=dt.date(2025, 1, 1)), generated_at=NOON
        )  # fmt: skip


def test_error_11_a_failed_attempt_is_paid_for() -> None:
    """SWE-bench: a session of 80 requests over 72.0 and 79.6 % solved."""
    found = result(load=CODING_AGENT)
    row = next(row for row in found.quality if row.benchmark == "SWE-bench Verified")
    assert row.qwen_usd_per_solved == pytest.approx(found.self_host.usd_per_request * 80 / 0.72)
    assert row.baseline_usd_per_solved == pytest.approx(found.baseline.usd_per_request * 80 / 0.796)
    assert next(row for row in found.quality if row.benchmark == "MMMU").like_for_like is False


def test_error_12_prompt_and_answer_share_the_node_by_their_work() -> None:
    """Chat at 8 input tokens per output token: 1155 : 1688, and the shares add up to the bill."""
    side = result(requests_per_day=10_000).self_host
    paid = side.usd_per_mtok_input * 1155e-6 + side.usd_per_mtok_output * 211e-6
    assert paid == pytest.approx(side.usd_per_request)
    assert side.usd_per_mtok_input * 1155e-6 / side.usd_per_request == pytest.approx(1155 / (1155 + 8 * 211))


def test_a_simulated_run_is_never_called_measured() -> None:
    """Basis, flag and caution say simulated, and the band is the speed model's own."""
    found = result(measured=run(simulated=True))
    assert found.simulated
    assert found.self_host.requests_per_s_per_node.basis == "simulated"
    assert found.self_host.requests_per_s_per_node.low == pytest.approx(9.5 * 0.8)
    assert any("simulated" in caution for caution in found.verdict.cautions)


def test_a_prediction_is_called_one() -> None:
    """Without measurements the capacity is the plan's, modelled."""
    found = result()
    assert found.predicted
    assert found.self_host.requests_per_s_per_node.basis == "modelled"
    assert any("predicted" in caution for caution in found.verdict.cautions)


def test_a_run_of_other_sizes_is_scaled_by_the_harsher_ratio_and_said_so() -> None:
    """Measured at 1,155 in and 211 out, wanted at twice the output: half the rate, modelled."""
    found = result(load=workload(tokens_out=422), measured=run()).self_host
    assert found.requests_per_s_per_node.value == pytest.approx(9.5 / 2)
    assert found.requests_per_s_per_node.basis == "modelled"
    assert any("harsher" in remark for remark in found.remarks)


def test_a_run_of_another_model_or_machine_is_no_measurement() -> None:
    """A tiny model on a CPU, or other GPUs: assumed, with a caution that names both."""
    tiny = run()
    tiny = msgspec.structs.replace(tiny, server=msgspec.structs.replace(tiny.server, model="tiny-qwen"))
    for measured, said in ((tiny, "tiny-qwen"), (run(gpus="1x NVIDIA B200"), "1x NVIDIA B200")):
        found = result(measured=measured)
        assert found.self_host.requests_per_s_per_node.basis == "assumed"
        assert any(said in caution for caution in found.verdict.cautions)


def test_void_or_empty_measurements_are_refused() -> None:
    """A run that may not be used prices nothing."""
    with pytest.raises(BadInputError, match="void: the client was late"):
        result(measured=run(void=True, void_reason="the client was late"))
    with pytest.raises(BadInputError, match="no request that kept"):
        result(measured=run(rate=0.0))


def test_a_missing_rent_asks_for_it() -> None:
    """No price in the plan and none given."""
    with pytest.raises(BadInputError, match="no rent is known") as caught:
        compare(CATALOG, CHAT, plan(usd=None), None, options=CompareOptions(as_of=DAY), generated_at=NOON)
    assert "--gpu-price" in caught.value.remedy


def test_unknown_baseline_lists_the_known_ones() -> None:
    """A typo gets the list."""
    with pytest.raises(BadInputError, match="'sonet'") as caught:
        result(baselines=("sonet",))
    assert "claude-sonnet-4-6" in caught.value.remedy


def test_another_baseline_takes_the_first_place() -> None:
    """The break-even is against the one asked for."""
    found = result(baselines=("qwen-novita",))
    assert found.baseline.id == "qwen-novita"
    assert found.break_even.against == "qwen-novita"


def test_a_peak_above_the_lowest_tier_moves_up() -> None:
    """2,000 requests a minute at the peak are above start and within scale."""
    assert result(requests_per_day=2000 * 1440, mean_over_peak=1.0).baseline.rate_limit_tier == "scale"
    assert result(requests_per_day=100 * 1440, mean_over_peak=1.0).baseline.rate_limit_tier == "start"


def test_owning_a_gpu_by_hand() -> None:
    """46,250 over 4 years is 1.32 an hour, 1.275 kW at 180 is 0.314; 27.5 % on top makes 2.08."""
    found = owned_usd_per_gpu_hour(CATALOG, CATALOG.owned_gpus["h200"])
    assert found.value == pytest.approx((46_250 / 35_040 + 1.275 * 180 * 12 / 8760) * 1.275)
    assert found.value == pytest.approx(2.08, abs=0.01)
    assert found.low < found.value < found.high


def test_curves_cross_at_the_break_even() -> None:
    """On the curve the sign of the gap changes around the volume reported."""
    found = result(requests_per_day=50_000)
    at = found.break_even.requests_per_day
    assert at is not None
    for point in found.curve:
        gap = point.self_host - point.api["claude-sonnet-4-6"]
        if point.requests_per_day < at * 0.999:
            assert gap > 0
    assert any(point.self_host < point.api["claude-sonnet-4-6"] for point in found.curve)
    assert all(p.self_host_low <= p.self_host <= p.self_host_high for p in found.curve)


def test_without_a_volume_one_node_full_to_its_peak_is_taken_and_said() -> None:
    """864,000 a day at a mean of half the peak are 432,000."""
    found = result(mean_over_peak=0.5)
    assert not found.requests_per_day_given
    assert found.requests_per_day == pytest.approx(432_000)
    assert found.self_host.serving_nodes == 1


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    """JSON holds all of it."""
    found = result(measured=run())
    path = tmp_path / "comparison.json"
    path.write_bytes(comparison_to_json(found))
    assert load_comparison(path) == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "qwenhost.comparison/1"}', "\xff"])
def test_a_file_that_is_no_comparison_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the file."""
    path = tmp_path / "other.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadInputError, match=r"other\.json"):
        load_comparison(path)


def test_the_contract_keys_are_there() -> None:
    """Keys other programs rely on."""
    data = msgspec.json.decode(comparison_to_json(result()))
    assert data["schema"] == "qwenhost.comparison/1"
    for key in ("workload", "self_host", "api", "break_even", "sensitivity", "quality", "assumptions"):
        assert key in data
    line = {"name", "usd_per_request", "usd_per_mtok_input", "usd_per_mtok_output", "usd_per_month", "as_of"}
    assert line | {"breakdown", "source"} <= data["api"][0].keys()
    assert data["api"][0]["breakdown"].keys() == {
        "uncached_input",
        "cache_write",
        "cache_read",
        "output",
        "fees",
    }
    assert {"requests_per_day", "reason", "low", "high"} <= data["break_even"].keys()

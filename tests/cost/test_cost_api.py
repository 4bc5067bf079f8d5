"""The API side, against figures a reader can check by hand."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from cost_samples import CHAT, CHEAP, CODING_AGENT, DAY, DEAR, SONNET, workload
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.cost import ApiTerms, Extras, Usage, api_cost, price_request, trace_cost, workload_usage
from qwenhost.cost.api_cost import image_tokens
from qwenhost.errors import BadInputError
from qwenhost.facts import ImageRule

MILLION = Usage(uncached_input_tokens=1e6, output_tokens=1e6)


def coding(policy: Any, hit: float | None = None) -> Usage:
    return workload_usage(CODING_AGENT, policy, SONNET.cache, hit=hit)


def test_published_results_for_the_coding_agent() -> None:
    """Uncached: 122,379 in and 440 out at 3/15; 5 min: 91.6 % read at 0.30, the rest written at 3.75."""
    assert api_cost(SONNET, coding("none"), as_of=DAY).total == pytest.approx(0.3737, abs=5e-5)
    assert api_cost(SONNET, coding("5m"), as_of=DAY).total == pytest.approx(0.0788, abs=5e-5)
    assert api_cost(CHEAP, coding("none"), as_of=DAY).total == pytest.approx(0.0327, abs=5e-5)
    assert api_cost(DEAR, coding("none"), as_of=DAY).total == pytest.approx(0.0504, abs=5e-5)


def test_published_result_with_a_one_hour_cache_lies_within_the_rounding_of_its_hit_share() -> None:
    """0.0715 follows from a hit share of 95.96 %, which is published rounded to 96.0 %."""
    assert api_cost(SONNET, coding("1h", 0.9596), as_of=DAY).total == pytest.approx(0.0715, abs=5e-5)
    assert api_cost(SONNET, coding("1h"), as_of=DAY).total == pytest.approx(0.0715, abs=0.00005)


def test_published_results_for_chat() -> None:
    """1,155 in and 211 out, 1,000 times: 6.63 at Sonnet, half of it as batch."""
    usage = workload_usage(CHAT, "none", None)
    assert 1000 * api_cost(SONNET, usage, as_of=DAY).total == pytest.approx(6.63, abs=0.005)
    assert 1000 * api_cost(SONNET, usage, as_of=DAY, batch=True).total == pytest.approx(3.31, abs=0.0051)
    assert 1000 * api_cost(CHEAP, usage, as_of=DAY).total == pytest.approx(0.739, abs=0.0005)
    assert 1000 * api_cost(DEAR, usage, as_of=DAY).total == pytest.approx(1.137, abs=0.0005)


def test_breakdown_names_every_bucket() -> None:
    """A million tokens in each bucket costs its list price; 1,000 searches cost 10 dollars."""
    usage = Usage(
        uncached_input_tokens=1e6, cache_write_5m_tokens=1e6, cache_write_1h_tokens=1e6,
        cache_read_tokens=1e6, output_tokens=1e6, web_searches=1000,
    )  # fmt: skip
    bill = api_cost(SONNET, usage, as_of=DAY)
    assert (bill.uncached_input, bill.cache_write, bill.cache_read, bill.output, bill.fees) == pytest.approx(
        (3.0, 9.75, 0.30, 15.0, 10.0)
    )
    assert bill.total == pytest.approx(38.05)


def test_batch_and_residency_multiply_tokens_but_not_fees() -> None:
    """18 dollars at batch (half) in the US (1.1): 9.90; the 10 dollars of searches stay 10."""
    usage = msgspec.structs.replace(MILLION, web_searches=1000)
    bill = api_cost(SONNET, usage, as_of=DAY, batch=True, residency="us")
    assert bill.tokens == pytest.approx(18 * 0.5 * 1.1)
    assert bill.fees == 10.0


@pytest.mark.parametrize(
    ("day", "prompt", "usd"),
    [
        (dt.date(2026, 3, 12), 200_000, 0.60),  # at the threshold, not above it
        (dt.date(2026, 3, 12), 200_001, 1.200006),  # the whole request moves to 6
        (dt.date(2026, 3, 13), 900_000, 2.70),  # flat from here on
    ],
)
def test_long_context_premium_ends_on_its_date(day: dt.date, prompt: int, usd: float) -> None:
    """Above 200K tokens the whole request cost double until 2026-03-12, and nothing extra since."""
    assert api_cost(SONNET, Usage(uncached_input_tokens=prompt), as_of=day).total == pytest.approx(usd)


def test_cached_tokens_count_towards_the_long_context_threshold() -> None:
    """150,000 read and 60,000 written make a long prompt: 0.09 + 0.45 at the premium."""
    usage = Usage(cache_read_tokens=150_000, cache_write_5m_tokens=60_000)
    assert api_cost(SONNET, usage, as_of=dt.date(2026, 3, 1)).total == pytest.approx(0.09 + 0.45)


def test_a_short_prompt_is_not_cached() -> None:
    """1,023 tokens are below the minimum prefix of 1,024."""
    short = workload(tokens_in=1023, prefix_hit_5m=0.9)
    assert workload_usage(short, "5m", SONNET.cache).cache_read_tokens == 0
    enough = workload(tokens_in=1024, prefix_hit_5m=0.9)
    assert workload_usage(enough, "5m", SONNET.cache).cache_read_tokens == pytest.approx(921.6)


def test_an_offer_without_cache_price_bills_cached_tokens_as_input() -> None:
    """A million tokens read from cache cost 0.26 where no cache price is listed."""
    assert api_cost(CHEAP, Usage(cache_read_tokens=1e6), as_of=DAY).total == pytest.approx(0.26)


def test_auto_takes_the_cheapest_cache_and_says_why_not() -> None:
    """One hour is cheapest for the coding agent; chat has no published hit share."""
    assert price_request(SONNET, CODING_AGENT, ApiTerms(as_of=DAY)).policy == "1h"
    chat = price_request(SONNET, CHAT, ApiTerms(as_of=DAY))
    assert chat.policy == "none"
    assert any("no cache hit share is published" in remark for remark in chat.remarks)


def test_tool_prompt_is_added_to_the_input() -> None:
    """497 tokens more at 3 dollars a million."""
    plain = price_request(SONNET, CHAT, ApiTerms(as_of=DAY)).breakdown.total
    tools = price_request(SONNET, CHAT, ApiTerms(as_of=DAY, extras=Extras(tools="auto"))).breakdown.total
    assert tools - plain == pytest.approx(497 * 3e-6)


def test_tokenizer_ratio_touches_claude_and_not_the_open_model() -> None:
    """At 1.2 tokens per Qwen token Sonnet costs 1.2 times as much, the hosted offer the same."""
    plain, more = ApiTerms(as_of=DAY), ApiTerms(as_of=DAY, token_ratio=1.2)
    assert price_request(SONNET, CHAT, more).breakdown.total == pytest.approx(
        1.2 * price_request(SONNET, CHAT, plain).breakdown.total
    )
    assert price_request(CHEAP, CHAT, more) == price_request(CHEAP, CHAT, plain)


def test_thinking_out_loud_costs_the_hosted_offer_its_output() -> None:
    """Twice the output tokens: 211 more at 2.08."""
    plain, long = ApiTerms(as_of=DAY), ApiTerms(as_of=DAY, output_ratio=2.0)
    extra = (
        price_request(CHEAP, CHAT, long).breakdown.total - price_request(CHEAP, CHAT, plain).breakdown.total
    )
    assert extra == pytest.approx(211 * 2.08e-6)


def test_unknown_day_residency_and_batch_are_refused_by_name() -> None:
    """Each error says what is published."""
    with pytest.raises(BadInputError, match="claude-sonnet-4-6: no price on 2026-01-01"):
        api_cost(SONNET, MILLION, as_of=dt.date(2026, 1, 1))
    with pytest.raises(BadInputError, match="residency 'mars'"):
        api_cost(SONNET, MILLION, as_of=DAY, residency="mars")
    with pytest.raises(BadInputError, match="no batch price"):
        api_cost(CHEAP, MILLION, as_of=DAY, batch=True)


@pytest.mark.parametrize(
    ("width", "height", "tokens"), [(1000, 1000, 1296), (1920, 1080, 1560), (28, 28, 1), (29, 28, 2)]
)
def test_image_tokens(width: int, height: int, tokens: int) -> None:
    """Sonnet 4.6: 28-pixel patches, long edge 1568, at most 1568 tokens."""
    assert (
        image_tokens(ImageRule(patch_px=28, max_long_edge_px=1568, max_tokens=1568), width, height) == tokens
    )


def test_a_large_square_image_stays_within_the_token_limit() -> None:
    """1568 x 1568 would be 56 x 56 = 3,136 patches; 39 x 39 = 1,521 fit."""
    rule = ImageRule(patch_px=28, max_long_edge_px=1568, max_tokens=1568)
    assert image_tokens(rule, 4000, 4000) == 39 * 39


counts = st.integers(min_value=0, max_value=400_000)
usages = st.builds(
    Usage, uncached_input_tokens=counts, cache_write_5m_tokens=counts, cache_write_1h_tokens=counts,
    cache_read_tokens=counts, output_tokens=counts, web_searches=st.integers(0, 5), batch=st.booleans(),
    inference_geo=st.sampled_from([None, "global", "us"]),
)  # fmt: skip
days = st.sampled_from([dt.date(2026, 3, 1), DAY])


@given(st.lists(usages, max_size=30), days)
def test_a_trace_costs_the_sum_of_its_requests(rows: list[Usage], day: dt.date) -> None:
    """Summing by rate class first gives the same bill as pricing one by one."""
    one_by_one = sum(api_cost(SONNET, usage, as_of=day).total for usage in rows)
    assert trace_cost(SONNET, rows, as_of=day).total.total == pytest.approx(one_by_one, abs=1e-9)


@given(usages, days, st.sampled_from(["uncached_input_tokens", "cache_read_tokens", "output_tokens"]))
def test_more_tokens_never_cost_less(usage: Usage, day: dt.date, bucket: str) -> None:
    """The bill is monotone in every bucket, across the long-context threshold too."""
    more = msgspec.structs.replace(usage, **{bucket: getattr(usage, bucket) + 1000})
    assert api_cost(SONNET, more, as_of=day).total >= api_cost(SONNET, usage, as_of=day).total

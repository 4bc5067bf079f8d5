"""The two bills, by brute force: every request added up, every volume tried."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import msgspec
import pytest
from cost_samples import DAY, SONNET
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.cost import Scenario, Usage, api_cost, break_even, trace_cost
from qwenhost.cost.api_cost import Breakdown, UsageTable, image_tokens, period_on, rates_on
from qwenhost.cost.gpu_hour import owned_usd_per_gpu_hour
from qwenhost.cost.prompt_cache import Turn, cached_usages, simulate_cache
from qwenhost.errors import BadInputError
from qwenhost.facts import CacheRules, ImageRule
from qwenhost.profiles import load_catalog
from qwenhost.units import DAYS_PER_MONTH

TOKENS = st.integers(0, 400_000)
BUCKETS = (
    "uncached_input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens",
    "output_tokens",
)  # fmt: skip


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    tokens: dict[str, Any] = {name: float(draw(TOKENS)) for name in BUCKETS}
    return Usage(
        **tokens,
        web_searches=float(draw(st.integers(0, 3))),
        batch=draw(st.booleans()),
        inference_geo=draw(st.sampled_from([None, "us", "global"])),
    )


@given(usages())
def test_a_bill_by_the_price_list(usage: Usage) -> None:
    """3 / 3.75 / 6 / 0.30 / 15 dollars a million; half as batch, a tenth more in the US; searches at list."""
    factor = (0.5 if usage.batch else 1.0) * (1.1 if usage.inference_geo == "us" else 1.0)
    prices = (3.0, 3.75, 6.0, 0.30, 15.0)
    tokens = sum(getattr(usage, name) * price for name, price in zip(BUCKETS, prices, strict=True)) / 1e6
    assert api_cost(SONNET, usage, as_of=DAY).total == pytest.approx(
        tokens * factor + usage.web_searches * 0.01, abs=1e-12
    )


@given(st.lists(usages(), max_size=12), st.dates(dt.date(2026, 2, 20), dt.date(2026, 11, 23)))
def test_a_trace_costs_its_requests_one_by_one(rows: list[Usage], day: dt.date) -> None:
    """Also where some are above the long-context threshold of their day and some below."""
    whole = trace_cost(SONNET, rows, as_of=day)
    single = [api_cost(SONNET, row, as_of=day) for row in rows]
    assert whole.total.total == pytest.approx(sum(bill.total for bill in single), rel=1e-9, abs=1e-12)
    assert whole.total.output == pytest.approx(sum(bill.output for bill in single), rel=1e-9, abs=1e-12)
    assert whole.requests == len(rows)
    assert whole.usage.output_tokens == pytest.approx(sum(row.output_tokens for row in rows))


@given(st.lists(usages(), min_size=1, max_size=8))
def test_one_table_serves_every_price(rows: list[Usage]) -> None:
    """And its sums do not age: asked twice, it says the same."""
    table = UsageTable(rows)
    catalog = load_catalog()
    for price in catalog.api_prices.values():
        plain = trace_cost(price, table, as_of=DAY, plain=True)
        assert plain == trace_cost(price, table, as_of=DAY, plain=True)
        assert plain.total.total == pytest.approx(
            trace_cost(price, rows, as_of=DAY, plain=True).total.total, rel=1e-9, abs=1e-12
        )


@given(usages(), st.floats(0, 10))
def test_bills_add_and_scale(usage: Usage, factor: float) -> None:
    bill = api_cost(SONNET, usage, as_of=DAY)
    assert bill.times(factor).total == pytest.approx(bill.total * factor, abs=1e-9)
    assert bill.plus(bill).total == pytest.approx(bill.times(2).total)
    assert bill.plus(Breakdown()) == bill
    assert bill.total == pytest.approx(bill.tokens + bill.fees)
    assert bill.tokens == pytest.approx(bill.input + bill.output)


def test_every_price_sheet_has_rates_today_and_says_when_it_had_none() -> None:
    for price in load_catalog().api_prices.values():
        rates = rates_on(price, DAY, 1000)
        assert 0 < rates.input <= rates.output
        first = min((p.since for p in price.periods if p.since), default=None)
        if first is not None and all(p.since for p in price.periods):
            with pytest.raises(BadInputError, match=f"{price.id}: no price on") as caught:
                period_on(price, first - dt.timedelta(days=1))
            assert first.isoformat() in caught.value.remedy


@pytest.mark.parametrize("residency", ["mars", "US"])
def test_a_residency_that_is_not_sold_lists_those_that_are(residency: str) -> None:
    with pytest.raises(BadInputError, match=f"no price for residency '{residency}'") as caught:
        api_cost(SONNET, Usage(), as_of=DAY, residency=residency)
    assert "us" in caught.value.remedy


def test_what_sells_no_batch_says_so() -> None:
    price = msgspec.structs.replace(SONNET, batch_multiplier=None)
    with pytest.raises(BadInputError, match="no batch price is published"):
        api_cost(price, Usage(batch=True), as_of=DAY)
    assert api_cost(price, Usage(batch=True, output_tokens=1e6), as_of=DAY, batch=False).total == 15


RULE = ImageRule(patch_px=28, max_long_edge_px=1568, max_tokens=1568)


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_no_picture_costs_more_than_the_limit_or_nothing(width: int, height: int) -> None:
    tokens = image_tokens(RULE, width, height)
    assert 1 <= tokens <= RULE.max_tokens or min(width, height) * RULE.max_long_edge_px < max(width, height)


@given(st.integers(1, 1568), st.integers(1, 1568))
def test_a_small_picture_is_its_patches(width: int, height: int) -> None:
    patches = math.ceil(width / 28) * math.ceil(height / 28)
    if patches <= RULE.max_tokens:
        assert image_tokens(RULE, width, height) == patches


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_a_picture_turned_costs_the_same(width: int, height: int) -> None:
    assert image_tokens(RULE, width, height) == image_tokens(RULE, height, width)


SCENARIOS = st.builds(
    Scenario,
    api_usd_per_request=st.floats(0.001, 0.05),
    usd_per_node_hour=st.floats(1, 30),
    storage_usd_per_node_month=st.floats(0, 100),
    staff_usd_per_month=st.floats(0, 5000),
    start_hours_per_node_month=st.floats(0, 5),
    egress_usd_per_request=st.floats(0, 0.0005),
    requests_per_s_per_node=st.floats(0.5, 10),
    mean_over_peak=st.floats(0.2, 1),
    spare_nodes=st.integers(0, 2),
)


@given(SCENARIOS, st.floats(0.001, 0.999))
def test_below_the_break_even_nothing_is_saved(here: Scenario, share: float) -> None:
    """Tried at any share of it; and at it the two bills are one."""
    crossing = break_even(here).requests_per_day
    if crossing is None:
        volume = here.requests_per_day_per_node * (1 + 50 * share)
        assert here.self_host_usd_per_month(volume) >= here.api_usd_per_month(volume) * (1 - 1e-9)
        return
    volume = crossing * share
    assert here.self_host_usd_per_month(volume) >= here.api_usd_per_month(volume) * (1 - 1e-9)
    assert here.self_host_usd_per_month(crossing) == pytest.approx(here.api_usd_per_month(crossing), rel=1e-6)


@given(SCENARIOS, st.floats(1.0001, 20))
def test_beyond_the_settled_volume_it_stays_cheaper(here: Scenario, factor: float) -> None:
    settled = break_even(here).settled_requests_per_day
    if settled is not None:
        volume = settled * factor
        assert here.self_host_usd_per_month(volume) <= here.api_usd_per_month(volume) * (1 + 1e-6)


@given(SCENARIOS, st.sampled_from(["usd_per_node_hour", "staff_usd_per_month", "egress_usd_per_request"]))
def test_dearer_self_hosting_never_pays_earlier(here: Scenario, name: str) -> None:
    dearer: Any = {name: getattr(here, name) * 1.5 + 1e-6}
    before, after = (
        break_even(one).requests_per_day for one in (here, msgspec.structs.replace(here, **dearer))
    )
    assert after is None or (before is not None and after >= before * (1 - 1e-9))


@given(SCENARIOS, st.floats(0, 1e7))
def test_the_month_is_the_sum_of_its_parts(here: Scenario, volume: float) -> None:
    """730 hours and the starts for every node, serving and spare; whole nodes for the peak."""
    nodes = 1
    while nodes * here.requests_per_s_per_node * 86_400 * here.mean_over_peak < volume * (1 - 1e-9):
        nodes += 1
        if nodes > 300:
            return
    month = (nodes + here.spare_nodes) * (
        here.usd_per_node_hour * (730 + here.start_hours_per_node_month) + here.storage_usd_per_node_month
    )
    month += here.staff_usd_per_month + here.egress_usd_per_request * volume * DAYS_PER_MONTH
    assert here.self_host_usd_per_month(volume) == pytest.approx(month)


RULES = CacheRules(min_prefix_tokens=1000, ttl_s=(300, 3600), read_refreshes_ttl=True)


@st.composite
def sessions(draw: st.DrawFn) -> list[Turn]:
    """Prompts of a session only grow, as conversations do."""
    turns = []
    for session in range(draw(st.integers(1, 4))):
        at, prompt = draw(st.floats(0, 1000)), 0.0
        for _ in range(draw(st.integers(1, 6))):
            prompt += draw(st.integers(100, 3000))
            turns.append(Turn(session, at, prompt, 10.0))
            at += draw(st.floats(1, 5000))
    return turns


@given(sessions(), st.sampled_from(["none", "5m", "1h"]))
def test_every_prompt_token_is_billed_once(turns: list[Turn], policy: Any) -> None:
    """Read, written or plain: the three add up to the prompt."""
    for turn, usage in zip(
        sorted(turns, key=lambda turn: turn.at_s), cached_usages(turns, RULES, policy), strict=True
    ):
        assert usage.prompt_tokens == pytest.approx(turn.prompt_tokens)
        assert usage.output_tokens == turn.output_tokens


@given(sessions())
def test_a_longer_memory_never_reads_less(turns: list[Turn]) -> None:
    """Of one trace: 5 minutes against an hour; none reads nothing."""
    none, short, long = (simulate_cache(turns, RULES, policy) for policy in ("none", "5m", "1h"))
    assert none.hit == 0
    assert short.hit <= long.hit + 1e-12
    assert long.expired <= short.expired
    for found in (short, long):
        assert 0 <= found.hit <= 1
        assert found.hit + found.written <= 1 + 1e-9


def one_by_one(turns: list[Turn], ttl_s: float) -> list[float]:
    """The same rules, said the slow way: look back at every earlier turn of the session."""
    ordered = sorted(turns, key=lambda turn: turn.at_s)
    alive: dict[int, float] = {}  # index -> forgotten at
    read = []
    for i, turn in enumerate(ordered):
        best, length = None, 0.0
        if turn.prompt_tokens >= RULES.min_prefix_tokens:
            for j in range(i):
                other = ordered[j]
                same = other.session == turn.session and other.prompt_tokens <= turn.prompt_tokens
                if same and alive.get(j, -1.0) >= turn.at_s and other.prompt_tokens >= length:
                    best, length = j, other.prompt_tokens
            if best is not None:
                alive[best] = turn.at_s + ttl_s
            alive[i] = turn.at_s + ttl_s
        read.append(length)
    return read


@given(sessions())
def test_the_cache_reads_what_a_slow_one_reads(turns: list[Turn]) -> None:
    fast = [usage.cache_read_tokens for usage in cached_usages(turns, RULES, "5m")]
    assert fast == pytest.approx(one_by_one(turns, 300))


def test_owned_hardware_by_hand() -> None:
    """(capex / (years * 8760) + kW * colo * 12 / 8760) * (1 + overhead), for every GPU that has a row."""
    catalog = load_catalog()
    known = {name: catalog.assumptions[name] for name in
             ("depreciation_years", "ownership_overhead_fraction", "colo_usd_per_kw_month")}  # fmt: skip
    years, overhead, colo = known.values()
    for row in catalog.owned_gpus.values():
        found = owned_usd_per_gpu_hour(catalog, row)
        middle = (row.purchase_usd_low + row.purchase_usd_high) / 2
        hour = (middle / (years.value * 8760) + row.facility_kw * colo.value * 12 / 8760) * (
            1 + overhead.value
        )
        assert found.value == pytest.approx(hour)
        assert found.low < found.value < found.high
        assert found.basis == "modelled"

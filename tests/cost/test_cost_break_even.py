"""Where a line crosses stairs."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qwenhost.cost import Scenario, break_even
from qwenhost.cost import levers as lever_kinds
from qwenhost.cost.break_even import break_even_band
from qwenhost.cost.figures import Figure
from qwenhost.cost.sensitivity import tornado
from qwenhost.units import DAYS_PER_MONTH, HOURS_PER_MONTH


def rented(value: float, low: float, high: float) -> Figure:
    """A GPU hour with its band."""
    return Figure(value=value, low=low, high=high, basis="published", source="made by hand")


def scenario(**changes: float) -> Scenario:
    """One node at 1 USD an hour carries 86,400 requests a day; the API takes a cent each."""
    base: dict[str, float | int] = {
        "api_usd_per_request": 0.01, "usd_per_node_hour": 1.0, "requests_per_s_per_node": 1.0
    }  # fmt: skip
    return Scenario(**{**base, **changes})  # type: ignore[arg-type]


def test_one_node_breaks_even_where_its_rent_buys_as_many_requests() -> None:
    """24 dollars a day buy 2,400 requests at a cent."""
    assert break_even(scenario()).requests_per_day == pytest.approx(2400)


def test_a_spare_node_doubles_it_and_staff_adds_its_own() -> None:
    """48 dollars a day buy 4,800; 304.17 dollars a month of staff are 10 a day, 1,000 requests."""
    assert break_even(scenario(spare_nodes=1)).requests_per_day == pytest.approx(4800)
    staff = 10 * DAYS_PER_MONTH
    assert break_even(scenario(staff_usd_per_month=staff)).requests_per_day == pytest.approx(3400)


def test_whole_nodes_are_bought_for_the_peak() -> None:
    """At a mean of half the peak one node carries 43,200 a day; 43,201 need two."""
    half = scenario(mean_over_peak=0.5)
    assert half.serving_nodes(43_200) == 1
    assert half.serving_nodes(43_201) == 2
    assert half.self_host_usd_per_month(43_201) == pytest.approx(2 * HOURS_PER_MONTH)


def test_no_volume_helps_where_a_full_node_costs_more_than_its_requests() -> None:
    """A full node costs 1/3600 dollar a request; at 0.0002 the API is cheaper for ever."""
    found = break_even(scenario(api_usd_per_request=0.0002))
    assert found.requests_per_day is None
    assert "$0.0002778" in found.reason
    assert "$0.0002:" in found.reason


def test_break_even_may_need_several_nodes() -> None:
    """A full node saves a fifth of its rent, so five earn back a spare one: 6 nodes' rent, 432,000."""
    dear = scenario(api_usd_per_request=1.2 / 3600, spare_nodes=1)
    found = break_even(dear)
    assert found.serving_nodes == 5
    assert found.requests_per_day == pytest.approx(5 * 86_400)


positive = st.floats(min_value=1e-3, max_value=1e3)


@given(
    st.builds(
        Scenario, api_usd_per_request=positive, usd_per_node_hour=positive, requests_per_s_per_node=positive,
        mean_over_peak=st.floats(0.05, 1.0), spare_nodes=st.integers(0, 3),
        staff_usd_per_month=st.floats(0, 50_000),
    )
)  # fmt: skip
def test_below_the_break_even_the_api_is_cheaper_and_at_it_the_bills_meet(here: Scenario) -> None:
    """The crossing is real: equal there, and nowhere below is self-hosting cheaper."""
    found = break_even(here)
    assume(found.requests_per_day is not None and (found.serving_nodes or 0) < 10**6)
    at = found.requests_per_day
    assert at is not None
    assert here.self_host_usd_per_month(at) == pytest.approx(here.api_usd_per_month(at), rel=1e-6)
    for share in (0.01, 0.3, 0.6, 0.9, 0.999):
        assert here.self_host_usd_per_month(at * share) >= here.api_usd_per_month(at * share) * (1 - 1e-9)
    settled = found.settled_requests_per_day
    assert settled is not None
    assert settled >= at * (1 - 1e-9)
    for factor in (1.0001, 1.5, 3.7, 100):
        volume = settled * factor
        assert here.self_host_usd_per_month(volume) <= here.api_usd_per_month(volume) * (1 + 1e-6)


@given(st.floats(0.01, 0.999), positive, positive)
def test_none_means_none_at_any_volume(share: float, node: float, rate: float) -> None:
    """If the API asks less than a full node does per request, ten decades of volume show no break-even."""
    api = share * node / (3600 * rate)
    here = Scenario(
        api_usd_per_request=api, usd_per_node_hour=node, requests_per_s_per_node=rate, spare_nodes=1
    )
    assert break_even(here).requests_per_day is None
    for decade in range(1, 11):
        volume = 10.0**decade
        assert here.self_host_usd_per_month(volume) > here.api_usd_per_month(volume)


def price_lever(low: float, high: float) -> lever_kinds.Lever:
    """The rent of a node of one GPU."""
    return lever_kinds.gpu_price(rented(1.0, low, high), 1)


def test_band_covers_the_point_and_is_repeatable() -> None:
    """Rent from 0.5 to 2 dollars puts 2,400 between 1,200 and 4,800; the same seed gives the same band."""
    levers = [price_lever(0.5, 2.0)]
    first = break_even_band(scenario(), levers, against="x", requests_per_day=2400)
    again = break_even_band(scenario(), levers, against="x", requests_per_day=2400)
    assert first == again
    assert first.low is not None
    assert first.high is not None
    assert 1200 < first.low < 2400 < first.high < 4800
    assert 0 < first.share_cheaper_at_volume < 1


def test_band_is_open_where_some_draws_never_break_even() -> None:
    """If the rent may make a full node dearer than its requests, the upper end is none."""
    wide = [price_lever(0.1, 100.0)]
    found = break_even_band(scenario(), wide, against="x", requests_per_day=2400)
    assert found.high is None
    assert 0 < found.share_with_break_even < 1


def test_tornado_puts_the_widest_first() -> None:
    """Rent within 10 % moves the break-even less than staff from none to 10 dollars a day."""
    wide = lever_kinds.gpu_price(rented(1.0, 0.25, 4.0), 1)
    narrow = lever_kinds.capacity(1.0, 0.9, 1.1, "measured", "made by hand")
    rows = tornado(scenario(spare_nodes=1), [narrow, wide], requests_per_day=4800)
    assert [row.id for row in rows] == ["gpu_price", "capacity"]
    assert rows[0].break_even_at_low == pytest.approx(1200)
    assert rows[0].break_even_at_high == pytest.approx(19_200)
    assert rows[0].saving_at_low == pytest.approx(48 * 0.75 * DAYS_PER_MONTH)
    assert math.isclose(rows[1].break_even_spread, 1.0)  # one node carries it either way

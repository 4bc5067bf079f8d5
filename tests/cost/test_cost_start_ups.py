"""Hours in which engines start, and bytes that leave: lines of the bill, and of the break-even."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from cost_samples import CATALOG, CHAT, DAY, NOON, assumption, plan

from qwenhost.cost import CompareOptions, Comparison, compare
from qwenhost.cost.start_ups import egress_usd_per_request, start_hours_per_node_month
from qwenhost.units import DAYS_PER_MONTH

if TYPE_CHECKING:
    from qwenhost.facts import Catalog


def catalog(**values: tuple[float, float, float]) -> Catalog:
    """The catalog with some assumptions at other figures."""
    changed = {name: assumption(name, *figures) for name, figures in values.items()}
    return msgspec.structs.replace(CATALOG, assumptions={**CATALOG.assumptions, **changed})


def result(known: Catalog) -> Comparison:
    """One node of two H200 at 4 dollars, nobody paid, against Sonnet at 0.00663 a chat request."""
    options = CompareOptions(
        as_of=DAY, requests_per_day=10_000, spare_nodes=0, staff_fte=0.0, mean_over_peak=1.0
    )
    return compare(known, CHAT, plan(), None, options=options, generated_at=NOON)


def test_a_start_is_boot_read_and_warm_up() -> None:
    """127 GB at 1 GB/s between 30 and 150 s is 307 s; four starts and an upgrade a month."""
    known = catalog(
        engine_starts_per_node_month=(4, 1, 10),
        rolling_upgrades_per_month=(1, 0, 2),
        weight_read_gb_per_s=(1.0, 0.5, 2.0),
    )
    hours = start_hours_per_node_month(known, plan())
    assert hours.value == pytest.approx(307 * 5 / 3600)
    assert hours.low == pytest.approx((30 + 63.5 + 150) * 1 / 3600)
    assert hours.high == pytest.approx((30 + 254 + 150) * 12 / 3600)
    assert "307 s a start (244 to 434 s), 4 starts and 1 rolling upgrade a month" in hours.note


def test_their_hours_are_bought_again() -> None:
    """307 s x 5 x 8 dollars an hour is 3.41 a month, on the bill and in the break-even."""
    without = result(CATALOG)
    found = result(catalog(engine_starts_per_node_month=(4, 1, 10), rolling_upgrades_per_month=(1, 0, 2)))
    assert found.self_host.monthly.start_ups == pytest.approx(307 * 5 / 3600 * 8)
    assert found.self_host.usd_per_month - without.self_host.usd_per_month == pytest.approx(3.4111, abs=1e-3)
    assert found.break_even.requests_per_day == pytest.approx((5852.70 + 3.4111) / DAYS_PER_MONTH / 0.00663)
    row = next(row for row in found.sensitivity if row.id == "start_ups")
    assert (row.basis, row.break_even_at_low < row.break_even_at_high) == ("assumed", True)


def test_what_leaves_takes_from_what_a_request_is_worth() -> None:
    """211 tokens of 250 bytes at 0.09 a GB are 4.7 micro-dollars, for which the API must be dearer."""
    known = catalog(egress_usd_per_gb=(0.09, 0.0, 0.09))
    usd = egress_usd_per_request(known, CHAT).value
    assert usd == pytest.approx(211 * 250 * 0.09 / 1e9)
    found = result(known)
    assert found.self_host.monthly.egress == pytest.approx(usd * 10_000 * DAYS_PER_MONTH)
    assert found.break_even.requests_per_day == pytest.approx(5852.70 / DAYS_PER_MONTH / (0.00663 - usd))
    assert found.scenario is not None
    crossing = found.break_even.requests_per_day
    assert found.scenario.self_host_usd_per_month(crossing) == pytest.approx(
        found.scenario.api_usd_per_month(crossing)
    )

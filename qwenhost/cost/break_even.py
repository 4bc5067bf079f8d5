"""Where the two monthly bills cross: a line for the API, stairs for nodes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from qwenhost.facts import Value
from qwenhost.units import DAYS_PER_MONTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost.levers import Lever
    from qwenhost.cost.scenario import Scenario

DRAWS = 10_000
SEED = 20_261_123


class BreakEvenPoint(Value, frozen=True, kw_only=True):
    """The crossing of one scenario."""

    requests_per_day: float | None
    """Smallest volume at which self-hosting costs no more; None = there is none."""
    settled_requests_per_day: float | None = None
    """From here on it stays cheaper, whatever step comes next."""
    serving_nodes: int | None = None
    reason: str


class BreakEven(Value, frozen=True, kw_only=True):
    """The crossing with its band over the stated ranges."""

    against: str
    """Id of the API price it is against."""
    requests_per_day: float | None
    low: float | None
    """5th percentile of the draws."""
    high: float | None
    """95th percentile of the draws; None = at that end there is no break-even."""
    settled_requests_per_day: float | None = None
    reason: str
    draws: int = 0
    share_with_break_even: float = 0.0
    share_cheaper_at_volume: float = 0.0
    """Share of draws in which self-hosting is cheaper at the volume asked for."""


def break_even(scenario: Scenario) -> BreakEvenPoint:
    """The smallest daily volume at which the API's bill reaches the self-hosting bill.

    n nodes serve up to n * d requests a day and cost fixed + n * node; the API costs a per daily
    request and month, egress taken off. They cross on step n if fixed + n * node <= n * a * d, so
    n = ceil(fixed / (a * d - node)), and never if a full node costs more than its requests do at the API.
    """
    node = scenario.usd_per_node_month
    # Egress grows with every request, as the API's bill does: it takes from what a request is worth.
    per_daily_request = (scenario.api_usd_per_request - scenario.egress_usd_per_request) * DAYS_PER_MONTH
    daily = scenario.requests_per_day_per_node
    gain = per_daily_request * daily - node  # what a full node saves a month
    fixed = scenario.spare_nodes * node + scenario.staff_usd_per_month
    if gain <= 0:
        return BreakEvenPoint(requests_per_day=None, reason=_never(scenario))
    nodes = max(1, math.ceil(fixed / gain - 1e-9))
    cost = fixed + nodes * node
    # Step m is cheaper from end to end if fixed + m * node <= (m - 1) * a * d; the last that is not, k:
    last_mixed = max(1, math.ceil((fixed + per_daily_request * daily) / gain - 1e-9) - 1)
    return BreakEvenPoint(
        requests_per_day=cost / per_daily_request,
        settled_requests_per_day=(fixed + last_mixed * node) / per_daily_request,
        serving_nodes=nodes,
        reason=(
            f"{nodes + scenario.spare_nodes} nodes ({nodes} serving, {scenario.spare_nodes} spare) and staff "
            f"cost ${cost:,.0f} a month, which buys that many requests at the API"
        ),
    )


def break_even_band(
    scenario: Scenario,
    levers: Sequence[Lever],
    *,
    against: str,
    requests_per_day: float,
    draws: int = DRAWS,
    seed: int = SEED,
) -> BreakEven:
    """The crossing, and its 5th to 95th percentile when every range is drawn from at once.

    Each lever is triangular between its low and high with its peak at the value used, independent of
    the others; the generator is seeded, so equal inputs give equal bands.
    """
    point = break_even(scenario)
    drawn = [lever for lever in levers if lever.drawn and lever.low < lever.high]
    generator = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    crossings: list[float] = []
    cheaper = 0
    for _ in range(draws):
        here = scenario
        for lever in drawn:
            here = lever.apply(here, generator.triangular(lever.low, lever.high, lever.value))
        found = break_even(here).requests_per_day
        crossings.append(math.inf if found is None else found)
        mine, theirs = (
            here.self_host_usd_per_month(requests_per_day),
            here.api_usd_per_month(requests_per_day),
        )
        cheaper += mine < theirs
    crossings.sort()
    return BreakEven(
        against=against,
        requests_per_day=point.requests_per_day,
        settled_requests_per_day=point.settled_requests_per_day,
        low=_finite(crossings, 0.05),
        high=_finite(crossings, 0.95),
        reason=point.reason,
        draws=draws,
        share_with_break_even=sum(map(math.isfinite, crossings)) / draws,
        share_cheaper_at_volume=cheaper / draws,
    )


def _finite(ordered: Sequence[float], q: float) -> float | None:
    value = ordered[round(q * (len(ordered) - 1))]
    return value if math.isfinite(value) else None


def _never(scenario: Scenario) -> str:
    monthly_requests = scenario.requests_per_day_per_node * DAYS_PER_MONTH
    own = scenario.usd_per_node_month / monthly_requests + scenario.egress_usd_per_request
    return (
        f"even a node full to its peak costs ${own:.4g} a request and the API "
        f"${scenario.api_usd_per_request:.4g}: no volume makes up for it"
    )

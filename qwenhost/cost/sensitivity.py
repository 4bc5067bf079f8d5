"""The tornado: each uncertain input alone, from its low to its high end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qwenhost.cost.break_even import break_even
from qwenhost.cost.figures import FigureBasis
from qwenhost.facts import Positive, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost.levers import Lever
    from qwenhost.cost.scenario import Scenario


class SensitivityRow(Value, frozen=True, kw_only=True):
    """What one input does at the ends of its range, all others held."""

    id: str
    name: str
    unit: str
    value: float
    low: float
    high: float
    basis: FigureBasis
    source: str
    break_even_at_low: Positive | None
    """Requests per day; None = no break-even there."""
    break_even_at_high: Positive | None
    saving_at_low: float
    """USD per month saved by self-hosting at the volume asked for; negative = the API is cheaper."""
    saving_at_high: float

    @property
    def break_even_spread(self) -> float:
        """Ratio of the two ends; infinite where one end has no break-even."""
        low, high = self.break_even_at_low, self.break_even_at_high
        if low is None and high is None:
            return 1.0
        if low is None or high is None:
            return math.inf
        return max(low, high) / min(low, high)


def tornado(
    scenario: Scenario, levers: Sequence[Lever], *, requests_per_day: float
) -> tuple[SensitivityRow, ...]:
    """Rows for every lever with a range, the one that moves the break-even most first."""
    rows = [_row(scenario, lever, requests_per_day) for lever in levers if lever.low < lever.high]
    return tuple(sorted(rows, key=lambda row: (-row.break_even_spread, -_swing(row), row.id)))


def saving(scenario: Scenario, requests_per_day: float) -> float:
    """USD a month that self-hosting saves; negative where the API is cheaper."""
    return scenario.api_usd_per_month(requests_per_day) - scenario.self_host_usd_per_month(requests_per_day)


def _row(scenario: Scenario, lever: Lever, requests_per_day: float) -> SensitivityRow:
    low, high = lever.apply(scenario, lever.low), lever.apply(scenario, lever.high)
    return SensitivityRow(
        id=lever.id,
        name=lever.name,
        unit=lever.unit,
        value=lever.value,
        low=lever.low,
        high=lever.high,
        basis=lever.basis,
        source=lever.source,
        break_even_at_low=break_even(low).requests_per_day,
        break_even_at_high=break_even(high).requests_per_day,
        saving_at_low=saving(low, requests_per_day),
        saving_at_high=saving(high, requests_per_day),
    )


def _swing(row: SensitivityRow) -> float:
    return abs(row.saving_at_high - row.saving_at_low)

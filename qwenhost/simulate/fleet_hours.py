"""Replicas by the hour of the day, as an operator who knows the load would set them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from qwenhost.simulate.fleet_config import DAY_S, Hours, Range

if TYPE_CHECKING:
    from collections.abc import Callable


def hours_for(
    rate_at: Callable[[float], float], peak_rate: float, top: int, headroom: float, lead_s: float
) -> tuple[Hours, ...]:
    """Replicas by the hour of each day: demand's share of the peak, begun early by the time a start takes."""
    rows: list[Hours] = []
    week = 7 if any(rate_at(DAY_S * day + 43_200) != rate_at(43_200) for day in range(7)) else 1
    for day in range(week):
        days = (day,) if week > 1 else tuple(range(7))
        for hour in range(24):
            since = 3600.0 * hour
            # Ordered early enough to be ready when the hour begins, and kept to its end.
            busiest = max(
                rate_at((day * DAY_S + since + ahead) % (7 * DAY_S))
                for ahead in range(0, 3600 + math.ceil(lead_s) + 1, 300)
            )
            number = min(top, max(1, math.ceil(top * headroom * busiest / peak_rate - 1e-9)))
            row = Hours(
                days=days, from_s=since, to_s=(since + 3600) % DAY_S, replicas=Range(low=number, high=number)
            )
            last = rows[-1] if rows else None
            if last is not None and last.replicas == row.replicas and last.days == row.days:
                rows[-1] = msgspec.structs.replace(last, to_s=row.to_s)
            else:
                rows.append(row)
    return tuple(rows)

"""Both bills against volume, and the same node at every listed price of its GPUs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from qwenhost.cost.break_even import break_even
from qwenhost.cost.comparison import CurvePoint, HardwareOption
from qwenhost.cost.gpu_hour import interruption_factor, owned_usd_per_gpu_hour
from qwenhost.units import DAYS_PER_MONTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost.break_even import BreakEven
    from qwenhost.cost.comparison import ApiLine
    from qwenhost.cost.frame import Frame
    from qwenhost.cost.scenario import Scenario
    from qwenhost.facts import Catalog

CURVE_POINTS = 160


def curve(frame: Frame, lines: Sequence[ApiLine], crossing: BreakEven) -> tuple[CurvePoint, ...]:
    """Both bills over four decades or so around the volumes that matter, evenly on a log axis."""
    held, rent = frame.held.requests_per_s, frame.rent
    marks = [frame.requests_per_day, crossing.requests_per_day or frame.scenario.requests_per_day_per_node]
    start, stop = min(marks) / 30, max(marks) * 10
    gpus = frame.gpus_per_node
    cheap = _with(frame.scenario, rent.low * gpus, held.high / held.value)
    dear = _with(frame.scenario, rent.high * gpus, held.low / held.value)
    points = []
    for i in range(CURVE_POINTS):
        volume = start * math.exp(math.log(stop / start) * i / (CURVE_POINTS - 1))
        points.append(
            CurvePoint(
                requests_per_day=volume,
                self_host=frame.scenario.self_host_usd_per_month(volume),
                self_host_low=cheap.self_host_usd_per_month(volume),
                self_host_high=dear.self_host_usd_per_month(volume),
                api={line.id: line.usd_per_request * volume * DAYS_PER_MONTH for line in lines},
            )
        )
    return tuple(points)


def hardware_options(catalog: Catalog, frame: Frame) -> tuple[HardwareOption, ...]:
    """Every listed price of this GPU, and owning it, cheapest first."""
    gpus = frame.plan.inputs.node.gpus
    gpu = gpus[0].spec if gpus else None
    found = []
    for row in (row for row in catalog.gpu_prices if row.gpu == gpu):
        usd = row.usd_per_gpu_hour * interruption_factor(catalog, row.tier)
        here = _with(frame.scenario, usd * frame.gpus_per_node, 1.0)
        found.append(
            HardwareOption(
                label=row.provider,
                tier=row.tier,
                usd_per_gpu_hour=row.usd_per_gpu_hour,
                usd_per_month=here.self_host_usd_per_month(frame.requests_per_day),
                break_even_requests_per_day=break_even(here).requests_per_day,
                min_gpus=row.min_gpus,
                basis="published",
                source=row.source.where,
                as_of=row.source.as_of.isoformat(),
            )
        )
    owned = catalog.owned_gpus.get(gpu or "")
    if owned is not None:
        cost = owned_usd_per_gpu_hour(catalog, owned, frame.options.own)
        here = _with(frame.scenario, cost.value * frame.gpus_per_node, 1.0)
        found.append(
            HardwareOption(
                label="own hardware",
                tier="owned",
                usd_per_gpu_hour=cost.value,
                usd_per_month=here.self_host_usd_per_month(frame.requests_per_day),
                break_even_requests_per_day=break_even(here).requests_per_day,
                basis="modelled",
                source=f"{cost.source}; {cost.note}",
                as_of=cost.as_of,
            )
        )
    return tuple(sorted(found, key=lambda option: (option.usd_per_gpu_hour, option.label)))


def _with(scenario: Scenario, usd_per_node_hour: float, capacity_factor: float) -> Scenario:
    return msgspec.structs.replace(
        scenario,
        usd_per_node_hour=usd_per_node_hour,
        requests_per_s_per_node=scenario.requests_per_s_per_node * capacity_factor,
    )

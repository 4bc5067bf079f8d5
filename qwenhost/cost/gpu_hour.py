"""What an hour of a GPU costs: rented by a dated listing, or owned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cost.assumptions import assumption
from qwenhost.cost.figures import Figure
from qwenhost.errors import BadInputError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from qwenhost.facts import Catalog, OwnedGpu
    from qwenhost.plan import GpuPriceRef, Plan

HOURS_PER_YEAR = 8_760.0
WITHDRAWN_TIERS = ("spot", "community")


class Ownership(Value, frozen=True, kw_only=True):
    """Hardware of your own; None = the profile's figure, with its band."""

    purchase_usd: float | None = None
    """Of one GPU, its share of the server included."""
    years: float | None = None
    kw: float | None = None
    """Power of one GPU, its share of the server included."""
    colo_usd_per_kw_month: float | None = None
    electricity_usd_per_kwh: float | None = None
    """On your own premises instead of colocation."""
    power_usage_effectiveness: float | None = None


def gpu_rent(
    catalog: Catalog, plan: Plan, given: GpuPriceRef | None = None, *, own: Ownership | None = None
) -> Figure:
    """USD per GPU hour with its band: cheapest steady listing to the cheapest hyperscaler's.

    Spot and community prices stay out of the band: a service that runs day and night cannot rest on them.
    Where one is asked for, the node hours lost to withdrawals are bought again.

    Raises:
        BadInputError: no price is known for this GPU, or what it costs to own.
    """
    if own is not None:
        return _owned(catalog, plan, own)
    reference = given or plan.inputs.gpu_price
    gpu = plan.inputs.node.gpus[0].spec if plan.inputs.node.gpus else None
    if reference is None:
        raise BadInputError(
            f"no rent is known for {gpu or plan.inputs.node.description}",
            remedy="Give --gpu-price USD (per GPU hour).",
        )
    usd = reference.usd_per_gpu_hour
    if reference.provider == "given":
        return Figure(value=usd, low=usd, high=usd, basis="assumed", source=reference.source)

    def listed(*tiers: str) -> list[float]:
        return [p.usd_per_gpu_hour for p in catalog.gpu_prices if p.gpu == gpu and p.tier in tiers]

    hyperscalers = listed("hyperscaler")
    highest = min(hyperscalers) if hyperscalers else max(listed("on_demand"), default=usd)
    if reference.tier in WITHDRAWN_TIERS:
        return _withdrawn(catalog, reference)
    return Figure(
        value=usd, low=min([usd, *listed("on_demand", "reserved_1y")]), high=max(usd, highest),
        basis="published",
        source=f"{reference.provider}, {reference.tier}: {reference.source}", as_of=reference.as_of,
        note="band: cheapest one-year or on-demand listing to the cheapest hyperscaler's",
    )  # fmt: skip


def _owned(catalog: Catalog, plan: Plan, own: Ownership) -> Figure:
    gpu = plan.inputs.node.gpus[0].spec if plan.inputs.node.gpus else None
    row = catalog.owned_gpus.get(gpu or "")
    if row is None:
        raise BadInputError(
            f"what it costs to own {gpu or plan.inputs.node.description} is not known",
            remedy=f"Add it to your profiles (owned_gpus). Known: {', '.join(sorted(catalog.owned_gpus))}.",
        )
    return owned_usd_per_gpu_hour(catalog, row, own)


def _withdrawn(catalog: Catalog, reference: GpuPriceRef) -> Figure:
    """Usd = price * (1 + share of node hours bought again)."""
    lost = assumption(catalog, "spot_lost_share")
    usd = reference.usd_per_gpu_hour
    return Figure(
        value=usd * (1 + lost.value),
        low=usd * (1 + lost.low),
        high=usd * (1 + lost.high),
        basis="modelled",
        source=f"{reference.provider}, {reference.tier}: {reference.source}",
        as_of=reference.as_of,
        note=(
            f"{reference.tier} GPUs at ${usd:.2f} can be withdrawn at minutes' notice: {lost.value:.0%} of "
            f"node hours ({lost.low:.0%} to {lost.high:.0%}, assumed) are bought again, "
            "and requests in flight are lost"
        ),
    )


def interruption_factor(catalog: Catalog, tier: str) -> float:
    """What withdrawals add to the price of a tier."""
    return 1 + assumption(catalog, "spot_lost_share").value if tier in WITHDRAWN_TIERS else 1.0


def owned_usd_per_gpu_hour(catalog: Catalog, owned: OwnedGpu, own: Ownership | None = None) -> Figure:
    """USD per GPU hour of hardware you own and never switch off.

    usd = (capex / (years * 8760) + facility) * (1 + overhead), where the facility is kW * colo * 12 / 8760,
    or kW * PUE * USD per kWh on your own premises. Source: survey of owner costs, 2026-09-19; no residual
    value. What is given has no band.
    """
    own = own or Ownership()
    capex = _span((owned.purchase_usd_low + owned.purchase_usd_high) / 2, owned.purchase_usd_low,
                  owned.purchase_usd_high, given=own.purchase_usd)  # fmt: skip
    years = _row(catalog, "depreciation_years", own.years)
    overhead = _row(catalog, "ownership_overhead_fraction", None)
    kw = owned.facility_kw if own.kw is None else own.kw
    if own.electricity_usd_per_kwh is None:
        colo = _row(catalog, "colo_usd_per_kw_month", own.colo_usd_per_kw_month)
        per_kw_hour = [rate * 12 / HOURS_PER_YEAR for rate in colo]
        where = "colocation"
    else:
        pue = _row(catalog, "power_usage_effectiveness", own.power_usage_effectiveness)
        per_kw_hour = [factor * own.electricity_usd_per_kwh for factor in pue]
        where = "electricity"
    ends = [
        (price / (life * HOURS_PER_YEAR) + kw * facility) * (1 + extra)
        for price, life, facility, extra in zip(
            capex, (years[0], years[2], years[1]), per_kw_hour, overhead, strict=True
        )
    ]
    return Figure(
        value=ends[0],
        low=ends[1],
        high=ends[2],
        basis="modelled",
        source=owned.source.where,
        as_of=owned.source.as_of.isoformat(),
        note=(
            f"${capex[0]:,.0f} a GPU over {years[0]:g} years, {kw:g} kW of {where}, {overhead[0]:.0%} for "
            "fabric, spares and hands"
        ),
    )


def _row(catalog: Catalog, name: str, given: float | None) -> tuple[float, float, float]:
    row = assumption(catalog, name)
    return _span(row.value, row.low, row.high, given=given)


def _span(value: float, low: float, high: float, *, given: float | None) -> tuple[float, float, float]:
    return (value, low, high) if given is None else (given, given, given)

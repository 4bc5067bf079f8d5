"""What serving it yourself costs: nodes by the month, people apart, and what one request's share is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cost.assumptions import assumption
from qwenhost.cost.capacity import MODEL
from qwenhost.cost.figures import Figure
from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.units import DAYS_PER_MONTH, GB, SECONDS_PER_HOUR, TOKENS_PER_MTOK

if TYPE_CHECKING:
    from qwenhost.cost.break_even import Scenario
    from qwenhost.cost.capacity import Capacity
    from qwenhost.facts import Catalog, OwnedGpu, Workload
    from qwenhost.plan import GpuPriceRef, Plan

HOURS_PER_YEAR = 8_760.0


class MonthlyCost(Value, frozen=True, kw_only=True):
    """The self-hosting bill of one month, in USD."""

    nodes: float
    storage: float
    staff: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.nodes + self.storage + self.staff


class SelfHost(Value, frozen=True, kw_only=True):
    """The self-hosting side at the volume asked for."""

    name: str
    hardware: str
    gpus_per_node: int
    nodes: int
    serving_nodes: int
    spare_nodes: int
    usd_per_gpu_hour: Figure
    requests_per_s_per_node: Figure
    requests_per_day_per_node: float
    mean_over_peak: Figure
    utilisation: float
    """Mean demand over the capacity of all nodes, spare ones included."""
    monthly: MonthlyCost
    usd_per_month: float
    usd_per_request: float
    """Everything, staff included, over the month's requests."""
    usd_per_request_nodes_only: float
    """Without staff."""
    usd_per_request_full: float
    """A node that runs at its capacity day and night, alone: the floor no service reaches."""
    usd_per_mtok_input: float
    usd_per_mtok_output: float
    usd_per_mtok_blended: float
    allocation: str
    """How the bill was split between input and output tokens."""
    slo: str
    meets_slo: bool | None
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """Why the measured speed may not be that of the hardware priced."""


def gpu_rent(catalog: Catalog, plan: Plan, given: GpuPriceRef | None = None) -> Figure:
    """USD per GPU hour with its band: cheapest steady listing to the cheapest hyperscaler's.

    Spot and community prices stay out of the band: a service that runs day and night cannot rest on them.

    Raises:
        BadInputError: no price is known for this GPU.
    """
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
    return Figure(
        value=usd, low=min([usd, *listed("on_demand", "reserved_1y")]), high=max(usd, highest),
        basis="published",
        source=f"{reference.provider}, {reference.tier}: {reference.source}", as_of=reference.as_of,
        note="band: cheapest one-year or on-demand listing to the cheapest hyperscaler's",
    )  # fmt: skip


def owned_usd_per_gpu_hour(catalog: Catalog, owned: OwnedGpu) -> Figure:
    """USD per GPU hour of hardware you own and never switch off.

    usd = (capex / (years * 8760) + kW * colo * 12 / 8760) * (1 + overhead). Source: survey of owner
    costs, 2026-09-19; no residual value.
    """
    years = assumption(catalog, "depreciation_years")
    colo = assumption(catalog, "colo_usd_per_kw_month")
    overhead = assumption(catalog, "ownership_overhead_fraction")

    def usd(capex: float, life: float, per_kw: float, extra: float) -> float:
        capital = capex / (life * HOURS_PER_YEAR)
        facility = owned.facility_kw * per_kw * 12 / HOURS_PER_YEAR
        return (capital + facility) * (1 + extra)

    middle = (owned.purchase_usd_low + owned.purchase_usd_high) / 2
    return Figure(
        value=usd(middle, years.value, colo.value, overhead.value),
        low=usd(owned.purchase_usd_low, years.high, colo.low, overhead.low),
        high=usd(owned.purchase_usd_high, years.low, colo.high, overhead.high),
        basis="modelled",
        source=owned.source.where,
        as_of=owned.source.as_of.isoformat(),
        note="purchase price over its life, colocation, overheads",
    )


def self_host_cost(
    scenario: Scenario,
    workload: Workload,
    *,
    requests_per_day: float,
    held: Capacity,
    rent: Figure,
    demand: Figure,
    gpus_per_node: int,
    hardware: str,
    prefill_share: float,
    prefill_share_source: str,
) -> SelfHost:
    """The self-hosting side at one volume.

    A request's share of the bill is split by the time its prompt and its answer take:
    usd_per_mtok_input = usd_per_request * prefill_share / input Mtok, the rest to output.
    """
    serving = scenario.serving_nodes(requests_per_day)
    nodes = serving + scenario.spare_nodes
    monthly = MonthlyCost(
        nodes=nodes * (scenario.usd_per_node_month - scenario.storage_usd_per_node_month),
        storage=nodes * scenario.storage_usd_per_node_month,
        staff=scenario.staff_usd_per_month,
    )
    per_request = monthly.total / (requests_per_day * DAYS_PER_MONTH)
    input_mtok = workload.input_tokens.mean / TOKENS_PER_MTOK
    output_mtok = workload.output_tokens.mean / TOKENS_PER_MTOK
    daily_capacity = nodes * scenario.requests_per_s_per_node * 24 * SECONDS_PER_HOUR
    return SelfHost(
        name=f"{MODEL}, self-hosted",
        hardware=hardware,
        gpus_per_node=gpus_per_node,
        nodes=nodes,
        serving_nodes=serving,
        spare_nodes=scenario.spare_nodes,
        usd_per_gpu_hour=rent,
        requests_per_s_per_node=held.requests_per_s,
        requests_per_day_per_node=scenario.requests_per_day_per_node,
        mean_over_peak=demand,
        utilisation=requests_per_day / daily_capacity,
        monthly=monthly,
        usd_per_month=monthly.total,
        usd_per_request=per_request,
        usd_per_request_nodes_only=(monthly.total - monthly.staff) / (requests_per_day * DAYS_PER_MONTH),
        usd_per_request_full=scenario.usd_per_node_hour
        / (scenario.requests_per_s_per_node * SECONDS_PER_HOUR),
        usd_per_mtok_input=per_request * prefill_share / input_mtok,
        usd_per_mtok_output=per_request * (1 - prefill_share) / output_mtok,
        usd_per_mtok_blended=per_request / (input_mtok + output_mtok),
        allocation=prefill_share_source,
        slo=held.slo,
        meets_slo=held.meets_slo,
        remarks=held.remarks,
        warnings=held.warnings,
    )


def storage_usd_per_node_month(catalog: Catalog, plan: Plan) -> float:
    """The checkpoint on every node's disk."""
    gigabytes = plan.chosen.checkpoint.disk_bytes / GB
    return gigabytes * assumption(catalog, "storage_usd_per_gb_month").value

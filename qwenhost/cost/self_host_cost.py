"""What serving it yourself costs: nodes by the month, people apart, and what one request's share is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cost.assumptions import assumption
from qwenhost.cost.figures import Figure, FigureBasis
from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.units import DAYS_PER_MONTH, GB, SECONDS_PER_HOUR, TOKENS_PER_MTOK

if TYPE_CHECKING:
    from qwenhost.cost.break_even import Scenario
    from qwenhost.facts import Catalog, OwnedGpu, Slo, Workload
    from qwenhost.measurements import Measurements
    from qwenhost.plan import GpuPriceRef, Plan

HOURS_PER_YEAR = 8_760.0
# A measured mean further than this from the workload's is another workload.
SAME_SIZE_TOLERANCE = 0.05


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


class Capacity(Value, frozen=True, kw_only=True):
    """What one planned node carries within its service level."""

    requests_per_s: Figure
    meets_slo: bool | None
    slo: str
    remarks: tuple[str, ...] = ()


def capacity(
    catalog: Catalog, workload: Workload, plan: Plan | None, measurements: Measurements | None
) -> Capacity:
    """Requests per second of one node: measured goodput where there is some, else the plan's estimate.

    Raises:
        BadInputError: a void measurement, one without completed requests, or neither source.
    """
    if measurements is not None:
        return _measured_capacity(catalog, workload, plan, measurements)
    if plan is None:
        raise BadInputError(
            "no capacity: neither a plan nor measurements", remedy="Give --plan, --gpus or --measurements."
        )
    estimate = plan.chosen.estimate.requests_per_s
    return Capacity(
        requests_per_s=Figure(
            value=estimate.value, low=estimate.low, high=estimate.high, basis=estimate.basis,
            source=estimate.source or "the plan's speed model",
        ),
        meets_slo=plan.chosen.estimate.meets_slo,
        slo=describe_slo(plan.inputs.slo),
        remarks=("capacity is predicted, not measured: run qwenhost probe and pass --measurements",),
    )  # fmt: skip


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
        name="Qwen3.5-122B-A10B, self-hosted",
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
    )


def storage_usd_per_node_month(catalog: Catalog, plan: Plan) -> float:
    """The checkpoint on every node's disk."""
    gigabytes = plan.chosen.checkpoint.disk_bytes / GB
    return gigabytes * assumption(catalog, "storage_usd_per_gb_month").value


def describe_slo(slo: Slo) -> str:
    """``p90: TTFT 1000 ms, TPOT 50 ms``, or ``none``."""
    named = (("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms), ("end to end", slo.e2e_ms))
    limits = [f"{name} {limit:g} ms" for name, limit in named if limit is not None]
    return f"p{slo.percentile:g}: {', '.join(limits)}" if limits else "none"


def _measured_capacity(
    catalog: Catalog, workload: Workload, plan: Plan | None, run: Measurements
) -> Capacity:
    if run.void:
        raise BadInputError(
            f"the measurements are void: {run.void_reason}", remedy="Measure again with: qwenhost probe URL"
        )
    rate = run.goodput.requests_per_s if run.goodput else run.request_per_s
    if rate <= 0:
        raise BadInputError(
            "the measurements hold no request that kept the service level",
            remedy="Measure at a lower load, or relax --slo-ttft-ms and --slo-tpot-ms.",
        )
    remarks = [] if run.goodput else ["measured without a service level: the rate is plain throughput"]
    offered = (
        f"{run.load.concurrency} in flight" if run.load.kind == "closed" else f"{run.load.rate:g} requests/s"
    )
    remarks.append(f"capacity is the rate measured at one load ({offered}); a sweep may find more")
    fit = _size_factor(workload, run)
    basis: FigureBasis = "simulated" if run.server.simulated else "measured"
    if fit is not None:
        remarks.append(
            f"measured at {run.workload.mean_input_tokens:,.0f} tokens in and "
            f"{run.workload.mean_output_tokens:,.0f} out, "
            f"the workload is {workload.input_tokens.mean:,.0f} and {workload.output_tokens.mean:,.0f}: "
            f"the rate is multiplied by {fit:.3g}, the harsher of the two ratios"
        )
        basis = basis if basis == "simulated" else "modelled"
    low, high = _measured_band(catalog, plan, run)
    value = rate * (fit or 1.0)
    return Capacity(
        requests_per_s=Figure(
            value=value, low=value * low, high=value * high, basis=basis,
            source=f"{'simulated run' if run.server.simulated else 'measured run'} of {run.server.model}",
            as_of=run.started_at.date().isoformat(),
        ),
        meets_slo=None if run.goodput is None else run.goodput.fraction >= run.goodput.slo.percentile / 100,
        slo=describe_slo(run.goodput.slo) if run.goodput else "none",
        remarks=tuple(remarks),
    )  # fmt: skip


def _size_factor(workload: Workload, run: Measurements) -> float | None:
    """How the measured rate shrinks (or grows) on this workload's sizes; None = same sizes."""
    ratios = (
        run.workload.mean_input_tokens / workload.input_tokens.mean,
        run.workload.mean_output_tokens / workload.output_tokens.mean,
    )
    return None if all(abs(r - 1) <= SAME_SIZE_TOLERANCE for r in ratios) else min(ratios)


def _measured_band(catalog: Catalog, plan: Plan | None, run: Measurements) -> tuple[float, float]:
    """Relative band: a simulated run is no surer than the speed model it simulates."""
    if run.server.simulated and plan is not None:
        estimate = plan.chosen.estimate.requests_per_s
        if estimate.value > 0:
            return estimate.low / estimate.value, estimate.high / estimate.value
    spread = assumption(catalog, "measured_capacity_band").value
    return 1 - spread, 1 + spread

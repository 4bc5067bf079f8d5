"""What serving it yourself costs: nodes by the month, people apart, and what one request's share is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cost.assumptions import assumption
from qwenhost.cost.capacity import MODEL
from qwenhost.cost.figures import Figure
from qwenhost.facts import Value
from qwenhost.units import DAYS_PER_MONTH, GB, HOURS_PER_MONTH, SECONDS_PER_HOUR, TOKENS_PER_MTOK

if TYPE_CHECKING:
    from qwenhost.cost.capacity import Capacity
    from qwenhost.cost.scenario import Scenario
    from qwenhost.facts import Catalog, Workload
    from qwenhost.plan import Plan


class MonthlyCost(Value, frozen=True, kw_only=True):
    """The self-hosting bill of one month, in USD."""

    nodes: float
    storage: float
    staff: float
    start_ups: float = 0.0
    """Node hours in which engines start: after faults and in rolling upgrades."""
    egress: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.nodes + self.storage + self.staff + self.start_ups + self.egress


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
    start_hours: Figure | None = None
    """Of a node, each month, in which an engine starts."""
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


def self_host_cost(
    scenario: Scenario,
    workload: Workload,
    *,
    requests_per_day: float,
    held: Capacity,
    rent: Figure,
    demand: Figure,
    start_hours: Figure,
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
        nodes=nodes * scenario.usd_per_node_hour * HOURS_PER_MONTH,
        storage=nodes * scenario.storage_usd_per_node_month,
        staff=scenario.staff_usd_per_month,
        start_ups=nodes * scenario.usd_per_node_hour * scenario.start_hours_per_node_month,
        egress=scenario.egress_usd_per_request * requests_per_day * DAYS_PER_MONTH,
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
        start_hours=start_hours,
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

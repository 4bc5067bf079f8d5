"""What starting engines and sending answers out costs: paid hours that serve nobody, and bytes that leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cost.assumptions import assumption
from qwenhost.cost.figures import Figure
from qwenhost.units import GB, SECONDS_PER_HOUR

if TYPE_CHECKING:
    from qwenhost.facts import Catalog, Workload
    from qwenhost.plan import Plan


def start_hours_per_node_month(catalog: Catalog, plan: Plan) -> Figure:
    """Hours of a node, each month, in which an engine starts; they are bought again.

    hours = (boot + checkpoint bytes / read rate + warm-up) * (starts + rolling upgrades). A rolling upgrade
    starts one engine beside each node before that one is taken away: a surge of one node for one start.
    """
    boot, rate, warm = (
        assumption(catalog, name) for name in ("engine_boot_s", "weight_read_gb_per_s", "engine_warmup_s")
    )
    starts = assumption(catalog, "engine_starts_per_node_month")
    upgrades = assumption(catalog, "rolling_upgrades_per_month")
    gigabytes = plan.chosen.checkpoint.disk_bytes / GB
    each_s = boot.value + gigabytes / rate.value + warm.value
    best_s = boot.low + gigabytes / rate.high + warm.low
    worst_s = boot.high + gigabytes / rate.low + warm.high
    return Figure(
        value=each_s * (starts.value + upgrades.value) / SECONDS_PER_HOUR,
        low=best_s * (starts.low + upgrades.low) / SECONDS_PER_HOUR,
        high=worst_s * (starts.high + upgrades.high) / SECONDS_PER_HOUR,
        basis="assumed",
        source=f"{warm.source.where}; how often: {starts.source.where}",
        as_of=warm.source.as_of.isoformat(),
        note=(
            f"{each_s:,.0f} s a start ({best_s:,.0f} to {worst_s:,.0f} s), {starts.value:g} starts and "
            f"{upgrades.value:g} rolling upgrade{'' if upgrades.value == 1 else 's'} a month"
        ),
    )


def egress_usd_per_request(catalog: Catalog, workload: Workload) -> Figure:
    """USD = output tokens * bytes a streamed token * USD per GB; prompts come in free."""
    size = assumption(catalog, "streamed_bytes_per_output_token")
    price = assumption(catalog, "egress_usd_per_gb")
    tokens = workload.output_tokens.mean
    return Figure(
        value=tokens * size.value * price.value / GB,
        low=tokens * size.low * price.low / GB,
        high=tokens * size.high * price.high / GB,
        basis="assumed",
        source=price.source.where,
        as_of=price.source.as_of.isoformat(),
    )

"""What is uncertain, with its range and what moving it does to the bill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.cost.figures import Figure, FigureBasis
    from qwenhost.cost.scenario import Scenario
    from qwenhost.facts import Assumption


@dataclass(frozen=True, kw_only=True, slots=True)
class Lever:
    """One uncertain input."""

    id: str
    name: str
    value: float
    low: float
    high: float
    unit: str
    basis: FigureBasis
    source: str
    apply: Callable[[Scenario, float], Scenario]
    """The scenario with this input at another value."""
    drawn: bool = True
    """Whether the Monte-Carlo band draws it; choices (spare nodes, cache policy) are not drawn."""


def gpu_price(rent: Figure, gpus_per_node: int) -> Lever:
    """One GPU for an hour, rented or owned."""

    def apply(scenario: Scenario, usd: float) -> Scenario:
        return msgspec.structs.replace(scenario, usd_per_node_hour=usd * gpus_per_node)

    return Lever(
        id="gpu_price", name="GPU price", value=rent.value, low=rent.low, high=rent.high, unit="USD/GPU/h",
        basis=rent.basis, source=rent.source, apply=apply,
    )  # fmt: skip


def capacity(value: float, low: float, high: float, basis: FigureBasis, source: str) -> Lever:
    """Requests per second of one node within the service level."""

    def apply(scenario: Scenario, rate: float) -> Scenario:
        factor = rate / value
        return msgspec.structs.replace(
            scenario, requests_per_s_per_node=scenario.requests_per_s_per_node * factor
        )

    return Lever(
        id="capacity", name="Node capacity", value=value, low=low, high=high, unit="requests/s",
        basis=basis, source=source, apply=apply,
    )  # fmt: skip


def demand_shape(demand: Figure) -> Lever:
    """Mean over peak demand."""

    def apply(scenario: Scenario, share: float) -> Scenario:
        return msgspec.structs.replace(scenario, mean_over_peak=share)

    return Lever(
        id="mean_over_peak", name="Mean over peak demand", value=demand.value, low=demand.low,
        high=demand.high, unit="share", basis=demand.basis, source=demand.source, apply=apply,
    )  # fmt: skip


def verbosity(row: Assumption, prefill_share: float) -> Lever:
    """Qwen's output tokens per output token of the baseline; only the decode share of a node's time grows."""

    def time(output_ratio: float) -> float:
        return prefill_share + (1 - prefill_share) * output_ratio

    def apply(scenario: Scenario, output_ratio: float) -> Scenario:
        slower = time(output_ratio) / time(row.value)
        return msgspec.structs.replace(
            scenario, requests_per_s_per_node=scenario.requests_per_s_per_node / slower
        )

    return Lever(
        id=row.id, name="Qwen output per Sonnet output", value=row.value, low=row.low, high=row.high,
        unit="ratio", basis="assumed", source=row.source.where, apply=apply,
    )  # fmt: skip


def tokenizer(ratio: Figure, *, fees_usd_per_request: float) -> Lever:
    """Tokens the API counts per Qwen token of the same text; fees do not grow with them."""

    def apply(scenario: Scenario, tokens: float) -> Scenario:
        by_token = scenario.api_usd_per_request - fees_usd_per_request
        return msgspec.structs.replace(
            scenario, api_usd_per_request=fees_usd_per_request + by_token * tokens / ratio.value
        )

    return Lever(
        id="claude_tokens_per_qwen_token", name="API tokens per Qwen token", value=ratio.value, low=ratio.low,
        high=ratio.high, unit="ratio", basis=ratio.basis, source=ratio.source, apply=apply,
    )  # fmt: skip


def own_prefix_hits(hit: float, low: float, prefill_share: float, source: str) -> Lever:
    """Share of prompt tokens the node's own cache finds; what it misses is prefilled again.

    work(h) / work(hit) = prefill_share * (1 - h) / (1 - hit) + (1 - prefill_share).
    """

    def apply(scenario: Scenario, share: float) -> Scenario:
        longer = prefill_share * (1 - share) / (1 - hit) + (1 - prefill_share)
        return msgspec.structs.replace(
            scenario, requests_per_s_per_node=scenario.requests_per_s_per_node / longer
        )

    return Lever(
        id="own_prefix_hits", name="Own cache hits", value=hit, low=low, high=hit, unit="share",
        basis="modelled", source=source, apply=apply,
    )  # fmt: skip


def staff(fte: Assumption, salary: Assumption, value: float) -> Lever:
    """People, in USD a month."""

    def apply(scenario: Scenario, usd: float) -> Scenario:
        return msgspec.structs.replace(scenario, staff_usd_per_month=usd)

    return Lever(
        id="staff", name="Staff", value=value, low=min(value, fte.low * salary.low / 12),
        high=max(value, fte.high * salary.value / 12), unit="USD/month", basis="assumed",
        source=fte.source.where, apply=apply,
    )  # fmt: skip


def start_ups(hours: Figure) -> Lever:
    """Node hours a month in which engines start."""

    def apply(scenario: Scenario, value: float) -> Scenario:
        return msgspec.structs.replace(scenario, start_hours_per_node_month=value)

    return Lever(
        id="start_ups", name="Start-ups and upgrades", value=hours.value, low=hours.low, high=hours.high,
        unit="h/node/month", basis=hours.basis, source=hours.source, apply=apply,
    )  # fmt: skip


def egress(usd: Figure) -> Lever:
    """USD a request for bytes that leave."""

    def apply(scenario: Scenario, value: float) -> Scenario:
        return msgspec.structs.replace(scenario, egress_usd_per_request=value)

    return Lever(
        id="egress", name="Egress", value=usd.value, low=usd.low, high=usd.high, unit="USD/request",
        basis=usd.basis, source=usd.source, apply=apply,
    )  # fmt: skip


def spare_nodes(row: Assumption, value: int) -> Lever:
    """Idle nodes kept for failures and upgrades."""

    def apply(scenario: Scenario, nodes: float) -> Scenario:
        return msgspec.structs.replace(scenario, spare_nodes=round(nodes))

    return Lever(
        id=row.id, name="Spare nodes", value=value, low=min(row.low, value), high=max(row.high, value),
        unit="nodes", basis="assumed", source=row.source.where, apply=apply, drawn=False,
    )  # fmt: skip


def api_cache(usd: float, usd_without: float, usd_best: float, source: str) -> Lever:
    """The API's bill from no caching to the best published hit share, in USD per request."""

    def apply(scenario: Scenario, per_request: float) -> Scenario:
        return msgspec.structs.replace(scenario, api_usd_per_request=per_request)

    return Lever(
        id="api_cache", name="API prompt cache", value=usd, low=min(usd, usd_best),
        high=max(usd, usd_without),
        unit="USD/request", basis="modelled", source=source, apply=apply, drawn=False,
    )  # fmt: skip

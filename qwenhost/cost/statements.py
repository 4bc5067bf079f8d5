"""What a comparison rests on, said in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.cost.assumptions import assumption
from qwenhost.cost.comparison import AssumptionLine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from qwenhost.cost.api_lines import ApiTerms
    from qwenhost.cost.comparison import ApiLine
    from qwenhost.cost.figures import Figure
    from qwenhost.cost.prompt_cache import CacheCheck
    from qwenhost.cost.self_host_cost import SelfHost
    from qwenhost.facts import Catalog, Workload

RATIO: Final = "claude_tokens_per_qwen_token"


_ROWS: Final = (
    ("spare_nodes", "spare_nodes"),
    ("staff_fte", "staff_fte"),
    ("staff_usd_per_fte_year", ""),
    ("storage_usd_per_gb_month", ""),
    ("engine_starts_per_node_month", ""),
    ("rolling_upgrades_per_month", ""),
    ("egress_usd_per_gb", ""),
    (RATIO, "token_ratio"),
    ("qwen_output_per_sonnet_output", "output_ratio"),
)
"""Rows of the catalog, and the option that takes the place of each."""


def assumption_lines(
    catalog: Catalog,
    workload: Workload,
    terms: ApiTerms,
    side: SelfHost,
    baseline: ApiLine,
    *,
    given: AbstractSet[str],
    checks: Sequence[CacheCheck] = (),
    counts: Figure | None = None,
    warnings: Sequence[str] = (),
) -> tuple[AssumptionLine, ...]:
    """Every assumption that moved a figure of this comparison."""
    lines = _node_lines(side)
    lines += [
        _row(catalog, name, given=option in given)
        for name, option in _ROWS
        if counts is None or name != RATIO  # counted on the user's own text
    ]
    if counts is not None:
        said = "the API's tokens per token of Qwen, on your own sample"
        lines.append(_figure(RATIO, said, counts, "ratio"))
        lines += [_said("token_counts", f"of the sample: {warning}") for warning in warnings]
    lines.append(_cache_line(workload, terms, baseline))
    lines += [_check_line(check, workload, baseline) for check in checks]
    if workload.synthetic:
        said = "the workload's sizes are synthetic, no production trace stands behind them"
        lines.append(_said("synthetic_workload", said))
    listed = f"list prices on {terms.as_of.isoformat()}: no volume discount, credit, tax or currency change"
    lines += [
        _said("list_prices", listed),
        _said("mean_request", "every request is priced at the workload's mean size"),
        _said("always_on", "nodes are rented for all 730 hours of a month"),
        _said("allocation", f"USD per million tokens of the self-hosted side: {side.allocation}"),
    ]
    return tuple(lines)


def _node_lines(side: SelfHost) -> list[AssumptionLine]:
    """What one node carries, how evenly it is asked, what its starts take."""
    carries = "requests/s one node carries at the service level"
    even = "mean demand over peak demand; nodes are bought for the peak"
    lines = [
        _figure("requests_per_s_per_node", carries, side.requests_per_s_per_node, "requests/s"),
        _figure("mean_over_peak", even, side.mean_over_peak, "share"),
    ]
    if side.start_hours is not None:
        said = f"node hours a month in which engines start, bought again: {side.start_hours.note}"
        lines.append(_figure("start_hours", said, side.start_hours, "h"))
    return lines


def _figure(name: str, statement: str, figure: Figure, unit: str) -> AssumptionLine:
    return AssumptionLine(
        id=name,
        statement=f"{statement} ({figure.basis})",
        value=figure.value,
        low=figure.low,
        high=figure.high,
        unit=unit,
        source=figure.source,
        as_of=figure.as_of,
    )


def _row(catalog: Catalog, name: str, *, given: bool) -> AssumptionLine:
    row = assumption(catalog, name)
    if given:
        return _said(name, f"{row.why}: given on the command line in place of {row.value:g} {row.unit}")
    return AssumptionLine(
        id=name,
        statement=row.why,
        value=row.value,
        low=row.low,
        high=row.high,
        unit=row.unit,
        source=row.source.where,
        as_of=row.source.as_of.isoformat(),
    )


def _cache_line(workload: Workload, terms: ApiTerms, baseline: ApiLine) -> AssumptionLine:
    how = "the cheapest policy with a published hit share" if terms.cache == "auto" else "as asked"
    policy = (
        "no prompt cache" if baseline.cache_policy == "none" else f"a {baseline.cache_policy} prompt cache"
    )
    hit = baseline.usage.cache_read_tokens / baseline.usage.prompt_tokens
    return _said(
        "api_cache",
        f"{baseline.name} is billed with {policy} ({how}), {hit:.1%} of input read from it",
        source=workload.source.where,
        as_of=workload.source.as_of.isoformat(),
    )


def _check_line(check: CacheCheck, workload: Workload, baseline: ApiLine) -> AssumptionLine:
    published = (
        "no share is published" if check.published_hit is None else f"{check.published_hit:.1%} published"
    )
    paid = ""
    if check.usd_per_request_published is not None:
        paid = f" against ${check.usd_per_request_published:.4f}"
    return _said(
        f"cache_check_{check.policy}",
        f"check of the {check.policy} cache by simulation over {check.requests:,} requests: "
        f"{check.simulated_hit:.1%} of input read, {published}; "
        f"${check.usd_per_request_simulated:.4f} a request at {baseline.name}{paid} ({check.model})",
        source=workload.source.where,
        as_of=workload.source.as_of.isoformat(),
    )


def _said(name: str, statement: str, *, source: str = "", as_of: str = "") -> AssumptionLine:
    return AssumptionLine(id=name, statement=statement, source=source, as_of=as_of)

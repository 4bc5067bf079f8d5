"""The sentence a manager can quote, and how sure it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cost.comparison import Verdict
from qwenhost.units import format_usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost.break_even import BreakEven
    from qwenhost.cost.comparison import ApiLine, Confidence
    from qwenhost.cost.self_host_cost import SelfHost
    from qwenhost.cost.sensitivity import SensitivityRow

SURE, FAIRLY_SURE = 0.9, 0.7


def verdict_of(
    side: SelfHost,
    lines: Sequence[ApiLine],
    crossing: BreakEven,
    rows: Sequence[SensitivityRow],
    *,
    requests_per_day: float,
) -> Verdict:
    """Compare the two bills at the volume asked for and say what would change the answer."""
    baseline = lines[0]
    self_hosting = side.usd_per_month < baseline.usd_per_month
    confidence, why = _confidence(side, crossing, self_hosting=self_hosting)
    hosted = [line for line in lines if line.kind == "hosted_qwen"]
    cheapest = min(hosted, key=lambda line: line.usd_per_request, default=None)
    return Verdict(
        choice="self_host" if self_hosting else "api",
        headline=_headline(side, baseline, self_hosting=self_hosting),
        sentence=(
            f"At {requests_per_day:,.0f} requests a day, {side.name} on {_nodes(side.nodes)} "
            f"of {side.hardware}, costs {format_usd(side.usd_per_month)} a month; {baseline.name} costs "
            f"{format_usd(baseline.usd_per_month)}. {_crossing_sentence(crossing)}"
        ),
        reasons=tuple(_reasons(side, baseline, crossing, rows)),
        cautions=tuple(_cautions(side, baseline, cheapest)),
        confidence=confidence,
        confidence_reason=why,
    )


def _headline(side: SelfHost, baseline: ApiLine, *, self_hosting: bool) -> str:
    gap = abs(baseline.usd_per_month - side.usd_per_month)
    if self_hosting:
        return f"Self-host: it saves {format_usd(gap)} a month against {baseline.name}."
    return f"Stay with {baseline.name}: self-hosting would cost {format_usd(gap)} a month more."


def _nodes(count: int) -> str:
    return "one node" if count == 1 else f"{count:,} nodes"


def _crossing_sentence(crossing: BreakEven) -> str:
    if crossing.requests_per_day is None:
        return f"There is no break-even: {crossing.reason}."
    low = f"{crossing.low:,.0f}" if crossing.low is not None else "none"
    high = f"{crossing.high:,.0f}" if crossing.high is not None else "none at all"
    return (
        f"Self-hosting breaks even at {crossing.requests_per_day:,.0f} requests a day "
        f"(90 % band {low} to {high})."
    )


def _reasons(
    side: SelfHost, baseline: ApiLine, crossing: BreakEven, rows: Sequence[SensitivityRow]
) -> list[str]:
    found = [
        (
            f"One request costs {format_usd(side.usd_per_request)} self-hosted and "
            f"{format_usd(baseline.usd_per_request)} at {baseline.name}."
        ),
        (
            f"The peak needs {_nodes(side.serving_nodes)}, with {side.spare_nodes} more to spare; "
            f"mean use of their capacity is {side.utilisation:.0%}."
        ),
    ]
    if side.monthly.staff:
        share = side.monthly.staff / side.usd_per_month
        found.append(
            f"Staff is {format_usd(side.monthly.staff)} a month, {share:.0%} of the self-hosting bill."
        )
    if rows:
        found.append(f"{rows[0].name} moves the break-even most.")
    if crossing.settled_requests_per_day and crossing.requests_per_day:
        settled = crossing.settled_requests_per_day
        if settled > crossing.requests_per_day * 1.001:
            found.append(
                f"Nodes come in whole steps: only from {settled:,.0f} requests a day on is it always cheaper."
            )
    return found


def _cautions(side: SelfHost, baseline: ApiLine, cheapest: ApiLine | None) -> list[str]:
    found = []
    basis = side.requests_per_s_per_node.basis
    if basis == "simulated":
        found.append("The node's speed was simulated, not measured on hardware.")
    elif basis != "measured":
        found.append("The node's speed is predicted, not measured.")
    if side.meets_slo is False:
        found.append(f"The service level ({side.slo}) is not met at this speed.")
    if cheapest is not None and cheapest.usd_per_month < min(side.usd_per_month, baseline.usd_per_month):
        found.append(
            f"{cheapest.name} serves the same open model for "
            f"{format_usd(cheapest.usd_per_month)} a month, less than either: self-hosting must be wanted "
            "for privacy, control or fine-tuning."
        )
    found.append("The two models do not score alike: see cost per solved task.")
    return found


def _confidence(side: SelfHost, crossing: BreakEven, *, self_hosting: bool) -> tuple[Confidence, str]:
    share = crossing.share_cheaper_at_volume
    agree = share if self_hosting else 1 - share
    level: Confidence = "high" if agree >= SURE else "moderate" if agree >= FAIRLY_SURE else "low"
    why = f"{agree:.0%} of {crossing.draws:,} draws from the stated ranges agree"
    if level == "high" and self_hosting and side.requests_per_s_per_node.basis != "measured":
        return "moderate", f"{why}, but the node's speed is not measured"
    return level, why

"""The sentence a manager can quote, and how sure it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qwenhost.cost.api_lines import BEYOND_TIERS
from qwenhost.cost.comparison import Verdict
from qwenhost.units import format_usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost.break_even import BreakEven
    from qwenhost.cost.comparison import ApiLine, Confidence
    from qwenhost.cost.freshness import StaleFact
    from qwenhost.cost.prompt_cache import IdleSessions
    from qwenhost.cost.self_host_cost import SelfHost
    from qwenhost.cost.sensitivity import SensitivityRow

SURE, FAIRLY_SURE = 0.9, 0.7
QUALITY = "The two models do not score alike: see cost per solved task."
TRIAL = "No verdict: the run was not of what is priced."


def verdict_of(
    side: SelfHost,
    lines: Sequence[ApiLine],
    crossing: BreakEven,
    rows: Sequence[SensitivityRow],
    *,
    requests_per_day: float,
    given: bool,
    idle: IdleSessions | None = None,
    searches: float = 0.0,
    stale: Sequence[StaleFact] = (),
) -> Verdict:
    """Compare the two bills at the volume asked for and say what would change the answer."""
    baseline = lines[0]
    self_hosting = side.usd_per_month < baseline.usd_per_month
    confidence, why = _confidence(side, crossing, idle, self_hosting=self_hosting)
    hosted = [line for line in lines if line.kind == "hosted_qwen"]
    cheapest = min(hosted, key=lambda line: line.usd_per_request, default=None)
    if side.warnings:
        headline = TRIAL
    elif given:
        headline = _headline(side, baseline, self_hosting=self_hosting)
    else:
        headline = _open_headline(baseline, crossing)
    return Verdict(
        choice="self_host" if self_hosting else "api",
        headline=headline,
        sentence=_sentence(side, baseline, crossing, requests_per_day, given=given),
        reasons=tuple(_reasons(side, baseline, crossing, rows)),
        cautions=(
            *_cautions(side, baseline, cheapest),
            *_forgotten(idle),
            *_searching(searches, baseline),
            *_limited(baseline),
            *_aged(stale),
            QUALITY,
        ),
        confidence=confidence,
        confidence_reason=why,
    )


def _headline(side: SelfHost, baseline: ApiLine, *, self_hosting: bool) -> str:
    gap = abs(baseline.usd_per_month - side.usd_per_month)
    if self_hosting:
        return f"Self-host: it saves {format_usd(gap)} a month against {baseline.name}."
    return f"Stay with {baseline.name}: self-hosting would cost {format_usd(gap)} a month more."


def _sentence(
    side: SelfHost, baseline: ApiLine, crossing: BreakEven, requests_per_day: float, *, given: bool
) -> str:
    volume = f"At {count(requests_per_day)} requests a day{'' if given else ' (what one node carries)'}"
    ours = f"{side.name} on {_nodes(side.nodes)} of {side.hardware}, costs {format_usd(side.usd_per_month)}"
    theirs = f"{baseline.name} costs {format_usd(baseline.usd_per_month)}"
    return f"{volume}, {ours} a month; {theirs}. {_crossing_sentence(crossing)}"


def _open_headline(baseline: ApiLine, crossing: BreakEven) -> str:
    if crossing.requests_per_day is None:
        return f"Stay with {baseline.name}: at no volume is self-hosting cheaper."
    return f"Self-hosting beats {baseline.name} from {count(crossing.requests_per_day)} requests a day."


def _nodes(number: int) -> str:
    return "one node" if number == 1 else f"{number:,} nodes"


def count(number: float) -> str:
    """Three significant digits: ``84,800``, ``1,270,000``, ``12.3``."""
    if number <= 0:
        return "0"
    digits = 2 - math.floor(math.log10(number))
    return f"{round(number, digits):,.{max(0, digits)}f}"


def _crossing_sentence(crossing: BreakEven) -> str:
    if crossing.requests_per_day is None:
        return f"There is no break-even: {crossing.reason}."
    low = count(crossing.low) if crossing.low is not None else "none"
    high = count(crossing.high) if crossing.high is not None else "none at all"
    return (
        f"Self-hosting breaks even at {count(crossing.requests_per_day)} requests a day "
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
        what = "gap" if crossing.requests_per_day is None else "break-even"
        found.append(f"{rows[0].name} moves the {what} most.")
    if crossing.settled_requests_per_day and crossing.requests_per_day:
        settled = crossing.settled_requests_per_day
        if settled > crossing.requests_per_day * 1.001:
            found.append(
                f"Nodes come in whole steps: only from {count(settled)} requests a day on "
                "is self-hosting always cheaper."
            )
    return found


def _cautions(side: SelfHost, baseline: ApiLine, cheapest: ApiLine | None) -> list[str]:
    found = []
    basis = side.requests_per_s_per_node.basis
    if basis == "simulated":
        found.append("The node's speed was simulated, not measured on hardware.")
    elif basis != "measured" and not side.warnings:
        found.append("The node's speed is predicted, not measured.")
    found.extend(side.warnings)
    if "withdrawn" in side.usd_per_gpu_hour.note:
        found.append(f"{side.usd_per_gpu_hour.note[0].upper()}{side.usd_per_gpu_hour.note[1:]}.")
    if side.meets_slo is False:
        found.append(f"The service level ({side.slo}) is not met at this speed.")
    if cheapest is not None and cheapest.usd_per_month < min(side.usd_per_month, baseline.usd_per_month):
        found.append(
            f"{cheapest.name} serves the same open model for "
            f"{format_usd(cheapest.usd_per_month)} a month, less than either: self-hosting must be wanted "
            "for privacy, control or fine-tuning."
        )
    return found


def _limited(baseline: ApiLine) -> list[str]:
    """Where no published tier of the baseline carries the peak or the bill."""
    return [f"{baseline.name}: {said}." for said in baseline.remarks if said.endswith(BEYOND_TIERS)]


def _aged(stale: Sequence[StaleFact]) -> list[str]:
    if not stale:
        return []
    return [f"Older than their stated age: {'; '.join(fact.sentence for fact in stale)}."]


def _searching(searches: float, baseline: ApiLine) -> list[str]:
    if not searches:
        return []
    each = (
        f"{searches:g} web searches a request cost {format_usd(baseline.breakdown.fees)} at {baseline.name}"
    )
    return [f"{each}; self-hosting needs a search service of its own, which is in no bill here."]


def _forgotten(idle: IdleSessions | None) -> list[str]:
    """Where the node's cache cannot keep what the published share takes for granted."""
    if idle is None or idle.held >= idle.needed:
        return []
    rate = f"{idle.requests_per_s:.3g} requests/s x ({idle.gap_s:.0f} s mean gap + {idle.end_to_end_s:.0f} s)"
    held = f"{idle.cache_tokens:,} tokens / {idle.mean_prompt_tokens:,.0f} a prompt"
    told = (
        "The prefix-hit share is taken as published. It needs "
        f"{count(idle.needed)} sessions kept in each node's cache ({rate}); the cache holds "
        f"{count(idle.held)} ({held}). Without offloading, expect fewer hits and less capacity."
    )
    return [told]


def _confidence(
    side: SelfHost, crossing: BreakEven, idle: IdleSessions | None, *, self_hosting: bool
) -> tuple[Confidence, str]:
    if side.warnings:
        return "low", "the rates are those of another model or machine"
    if self_hosting and idle is not None and idle.held < idle.needed:
        return "low", (
            f"the cache holds {count(idle.held)} of the {count(idle.needed)} sessions its hit share asks for"
        )
    share = crossing.share_cheaper_at_volume
    agree = share if self_hosting else 1 - share
    level: Confidence = "high" if agree >= SURE else "moderate" if agree >= FAIRLY_SURE else "low"
    why = f"{agree:.0%} of {crossing.draws:,} draws from the stated ranges agree"
    if level == "high" and self_hosting and side.requests_per_s_per_node.basis != "measured":
        return "moderate", f"{why}, but the node's speed is not measured"
    return level, why

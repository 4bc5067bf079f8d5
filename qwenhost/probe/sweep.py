"""Several runs against one endpoint: a list of loads, or a search for the highest that keeps the SLO."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo, Value
from qwenhost.probe.bench import Axis, Bench, End, Point
from qwenhost.probe.saturation import Rule, Search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.probe.bench import Measure
    from qwenhost.probe.config import ProbeConfig

SCHEMA: Final = "qwenhost.sweep/1"


class Sweep(Value, frozen=True, kw_only=True):
    """What a sweep or a search found."""

    schema: str = SCHEMA
    axis: Axis
    mode: Literal["sweep", "find"]
    slo: Slo | None
    confidence: float
    tolerance: float
    points: tuple[Point, ...]
    """Ascending."""
    found_at: float | None
    """Highest load shown to keep the SLO."""
    not_shown_at: float | None
    """Lowest load tried above it that was not."""
    end: End
    """``sure``: the two are within the tolerance. ``limit``: met at the highest load allowed."""
    reason: str
    took_s: float

    @property
    def found(self) -> Point | None:
        """The point at ``found_at``."""
        return next((point for point in self.points if point.at == self.found_at), None)


class Plan(Value, frozen=True, kw_only=True):
    """What a search may do."""

    axis: Axis
    start: float | None = None
    """None: one request at a time."""
    most: float = math.inf
    confidence: float = 0.95
    tolerance: float = 0.05
    within_s: float = 1800.0
    """No run is begun that is not expected to end by then."""


def run_sweep(config: ProbeConfig, axis: Axis, loads: Sequence[float], *, measure: Measure) -> Sweep:
    """One run at each load, ascending; the verdict at each is that of its one run.

    Raises:
        BadInputError: no load, or one that cannot be offered.
    """
    if not loads or any(load <= 0 or (axis == "concurrency" and load % 1) for load in loads):
        raise BadInputError(
            f"--sweep {axis}: {', '.join(f'{load:g}' for load in loads) or 'no load'}",
            remedy="Give numbers above 0, e.g. --sweep concurrency=1,2,4,8 or --sweep rate=0.5,1,2.",
        )
    began = time.monotonic()
    # Without limits nothing can be missed; the intervals are then of the share that succeeded.
    bench = Bench(config, axis, _rule(config.slo or Slo(), 0.95), measure)
    end: End = "complete"
    for load in sorted(set(loads)):
        bench.look(load, config.requests)
        if bench.interrupted:
            end = "interrupted"
            break
    points = bench.points()
    meeting = _unbroken(points) if _has_limits(config.slo) else []
    above = [p.at for p in points[len(meeting) :]] if _has_limits(config.slo) else []
    return Sweep(
        axis=axis, mode="sweep", slo=config.slo, confidence=bench.rule.confidence, tolerance=0.0,
        points=points, found_at=meeting[-1].at if meeting else None,
        not_shown_at=above[0] if above else None, end=end,
        reason=f"{len(points)} of {len(set(loads))} loads measured", took_s=time.monotonic() - began,
    )  # fmt: skip


def find_limit(config: ProbeConfig, plan: Plan, *, measure: Measure) -> Sweep:
    """The highest load that keeps the SLO.

    Each point gets up to four looks, each twice as long as the one before, until its share of requests
    within the SLO is surely above or below the required one. A point that stays undecided is not
    shown to meet. The answer is the highest point shown to meet.

    Raises:
        BadInputError: there is no limit to keep.
    """
    slo = config.slo
    if slo is None or not _has_limits(slo):
        raise BadInputError("there is no SLO to keep", remedy="Give --slo-ttft-ms or --slo-tpot-ms.")
    began = time.monotonic()
    bench = Bench(config, plan.axis, _rule(slo, plan.confidence), measure, _queue_shows_s(slo, plan))
    search = Search(
        start=min(plan.start or bench.one_at_a_time(), plan.most), whole=plan.axis == "concurrency",
        tolerance=plan.tolerance, most=plan.most,
    )  # fmt: skip
    end: End | None = "interrupted" if bench.interrupted else None
    deadline = began + plan.within_s
    while end is None:
        if (at := search.next) is not None:
            verdict, end = bench.decide(at, deadline=deadline)
            if end is None:
                search = search.told(at, meets=verdict == "meets")
        elif search.low is not None and plan.axis == "rate" and not bench.held(search.low):
            verdict, end = bench.decide(search.low, deadline=deadline, full=True)
            if end is None and verdict != "meets":
                search = search.lowered(bench.below(search.low))
        else:
            break
    end = end or ("sure" if search.closed else "limit" if search.low is not None else "none_meets")
    return Sweep(
        axis=plan.axis, mode="find", slo=slo, confidence=plan.confidence, tolerance=plan.tolerance,
        points=bench.points(), found_at=search.low, not_shown_at=search.high, end=end,
        reason=_reason(end, search, plan, bench), took_s=time.monotonic() - began,
    )  # fmt: skip


def sweep_to_json(sweep: Sweep) -> bytes:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(sweep), indent=2) + b"\n"


def _rule(slo: Slo, confidence: float) -> Rule:
    if not 0 < slo.percentile < 100:
        raise BadInputError(
            f"the SLO asks for {slo.percentile:g} % of requests, which no number of requests can show",
            remedy="Name a percentile below 100 in the workload's slo.",
        )
    return Rule(required=slo.percentile / 100, confidence=confidence)


def _queue_shows_s(slo: Slo, plan: Plan) -> float:
    """How long an overload by twice the tolerance must last until half of a run's requests miss their TTFT.

    A rate of 1 + x times what the server can do makes those who come after t seconds wait x t.
    """
    return 0.0 if slo.ttft_ms is None or plan.axis != "rate" else slo.ttft_ms / 1000 / plan.tolerance


def _has_limits(slo: Slo | None) -> bool:
    return slo is not None and any(x is not None for x in (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms))


def _unbroken(points: Sequence[Point]) -> list[Point]:
    """The points that meet, up to the first that does not: a lucky one above it proves nothing."""
    kept = []
    for point in points:
        if point.verdict != "meets":
            break
        kept.append(point)
    return kept


def _reason(end: End, search: Search, plan: Plan, bench: Bench) -> str:
    unit = "in flight" if plan.axis == "concurrency" else "requests/s"
    low = "none" if search.low is None else f"{search.low:.4g} {unit}"
    if search.low is not None and plan.axis == "rate" and not bench.held(search.low):
        low += " (from an empty server only)"
    high = "nothing above it" if search.high is None else f"{search.high:.4g}"
    return {
        "sure": f"{low} keeps the SLO, {high} was not shown to",
        "limit": f"{low}, the highest allowed, keeps the SLO",
        "none_meets": f"not even {high} {unit} was shown to keep the SLO",
        "time": f"out of time ({plan.within_s:g} s): shown up to {low}, not shown at {high}",
        "void": f"shown up to {low}; further runs were void: {bench.void_reason()}",
        "interrupted": f"interrupted: shown up to {low}",
    }.get(end, end)

"""Several runs against one endpoint: a list of loads, or a search for the highest that keeps the SLO."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo, Value
from qwenhost.measurements import Measurements, RequestRecord
from qwenhost.probe.saturation import LOOKS, Rule, Search, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.load import ProbeResult

SCHEMA: Final = "qwenhost.sweep/1"
Axis = Literal["concurrency", "rate"]
End = Literal["complete", "sure", "limit", "none_meets", "time", "void", "interrupted"]

_SETTLED_E2ES: Final = 4.0
"""An open loop runs for at least so many requests' lengths: a queue needs time to show."""
_SEED_STEP: Final = 1_000_003


class Point(Value, frozen=True, kw_only=True):
    """One load and what was seen there."""

    at: float
    """Requests in flight, or requests per second."""
    measurements: Measurements
    """Of the last look, the longest."""
    looks: int
    judged: int
    """Requests after the start-up phase, over all looks that are not void."""
    kept_slo: int
    share_low: float
    """The share that keeps the SLO is at least this..."""
    share_high: float
    """...and at most this, one-sided each, at the sweep's confidence over all looks."""
    verdict: Verdict


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


class Measure(Protocol):
    """How one run is made: ``run_probe``, or a model of a server in tests."""

    def __call__(self, config: ProbeConfig, /) -> ProbeResult:
        """Offer the load and measure."""


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
    bench = _Bench(config, axis, _rule(config.slo or Slo(), 0.95), measure)
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
    bench = _Bench(config, plan.axis, _rule(slo, plan.confidence), measure, _queue_shows_s(slo, plan))
    search = Search(
        start=min(plan.start or bench.one_at_a_time(), plan.most), whole=plan.axis == "concurrency",
        tolerance=plan.tolerance, most=plan.most,
    )  # fmt: skip
    end: End | None = "interrupted" if bench.interrupted else None
    while end is None and (at := search.next) is not None:
        verdict, end = bench.decide(at, deadline=began + plan.within_s)
        if end is None:
            search = search.told(at, meets=verdict == "meets")
    end = end or ("sure" if search.closed else "limit" if search.low is not None else "none_meets")
    return Sweep(
        axis=plan.axis, mode="find", slo=slo, confidence=plan.confidence, tolerance=plan.tolerance,
        points=bench.points(), found_at=search.low, not_shown_at=search.high, end=end,
        reason=_reason(end, search, plan, bench), took_s=time.monotonic() - began,
    )  # fmt: skip


def sweep_to_json(sweep: Sweep) -> bytes:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(sweep), indent=2) + b"\n"


def judged(result: ProbeResult) -> list[RequestRecord]:
    """Requests due once the first had completed: before that the server was filling up."""
    load = result.measurements.load
    since = load.rate_window_s[0] if load.rate_window == "steady" and load.rate_window_s else -math.inf
    return [r for r in result.records if r.scheduled_s >= since and r.error != "interrupted"]


class _Tally:
    def __init__(self) -> None:
        self.looks = self.good = self.total = 0
        self.void_reason: str | None = None
        self.last: Measurements | None = None


class _Bench:
    """Makes the runs and keeps the evidence."""

    def __init__(
        self, config: ProbeConfig, axis: Axis, rule: Rule, measure: Measure, open_loop_s: float = 0.0
    ) -> None:
        self.rule, self._open_loop_s = rule, open_loop_s
        self.interrupted = False
        self._config, self._axis, self._measure = config, axis, measure
        self._tallies: dict[float, _Tally] = {}
        self._runs = 0
        self._e2e_s = 0.0

    def one_at_a_time(self) -> float:
        """A load at which requests do not meet: one in flight, or the rate that keeps one in flight."""
        if self._axis == "concurrency":
            return 1.0
        alone = {"concurrency": 1, "rate": None, "requests": 5, "duration_s": None}
        measured = self._run(alone, "alone").measurements
        return 1 / max(self._e2e_s, 1e-3) if measured.requests.completed else 1.0

    def decide(self, at: float, *, deadline: float) -> tuple[Verdict, End | None]:
        """Look until sure, four times at most; or the reason why the search ends here."""
        requests = self._config.requests or self.rule.first_look
        for _ in range(LOOKS):
            count = self._enough(at, requests)
            if time.monotonic() + self._seconds(at, count) > deadline:
                return "undecided", "time"
            verdict = self.look(at, count)
            if self.interrupted:
                return verdict, "interrupted"
            if verdict != "undecided":
                return verdict, None
            requests *= 2
        tally = self._tallies[at]
        return "undecided", "void" if tally.total == 0 else None

    def look(self, at: float, requests: int | None) -> Verdict:
        """One run; a void one is no evidence."""
        tally = self._tallies.setdefault(at, _Tally())
        tally.looks += 1
        load: dict[str, object] = {"requests": requests, "concurrency": None, "rate": None}
        load[self._axis] = int(at) if self._axis == "concurrency" else at
        result = self._run(load, f"{self._axis}-{at:g}-{tally.looks}")
        tally.last = result.measurements
        # Where nothing at all succeeded the load was too much; that says nothing ill of the client.
        nothing = result.measurements.requests.completed == 0 and bool(result.records)
        if result.measurements.void and not nothing:
            tally.void_reason = result.measurements.void_reason
        else:
            slo = self._config.slo or Slo()
            steady = judged(result)
            tally.good += sum(record.meets(slo) for record in steady)
            tally.total += len(steady)
        verdict = self.rule.verdict(tally.good, tally.total)
        if verdict == "meets":
            self._note_length(result.measurements)
        return verdict

    def points(self) -> tuple[Point, ...]:
        """Ascending."""
        points = []
        for at, tally in sorted(self._tallies.items()):
            assert tally.last is not None  # noqa: S101 - set by every look
            low, high = self.rule.interval(tally.good, tally.total)
            verdict = self.rule.verdict(tally.good, tally.total)
            point = Point(
                at=at, measurements=tally.last, looks=tally.looks, judged=tally.total,
                kept_slo=tally.good, share_low=low, share_high=high, verdict=verdict,
            )  # fmt: skip
            points.append(point)
        return tuple(points)

    def void_reason(self) -> str | None:
        """The last that was given."""
        reasons = [t.void_reason for t in self._tallies.values() if t.void_reason]
        return reasons[-1] if reasons else None

    def _enough(self, at: float, judged_requests: int) -> int:
        """Requests of a run: those to be judged and those that fill the server first."""
        if self._axis == "concurrency":
            return judged_requests + int(at)
        settled_s = max(_SETTLED_E2ES * self._e2e_s, self._open_loop_s)
        return math.ceil(max(judged_requests + at * self._e2e_s, at * settled_s))

    def _seconds(self, at: float, count: int) -> float:
        """About how long that takes; longer where the server is overloaded."""
        rounds = count / at if self._axis == "rate" else math.ceil(count / at) * self._e2e_s
        return rounds + self._e2e_s

    def _run(self, load: Mapping[str, object], name: str) -> ProbeResult:
        config = msgspec.structs.replace(self._config, **load)
        changes: dict[str, object] = {}
        if config.seed is not None:  # Other prompts in each run: none may find another's in the cache.
            changes["seed"] = config.seed + _SEED_STEP * self._runs
        if config.records is not None:
            changes["records"] = config.records.with_stem(f"{config.records.stem}-{name}")
        self._runs += 1
        result = self._measure(msgspec.structs.replace(config, **changes))
        self.interrupted = result.measurements.interrupted
        if not self._e2e_s:
            self._note_length(result.measurements)
        return result

    def _note_length(self, measured: Measurements) -> None:
        """How long requests take while the SLO holds; those of an overloaded server would only mislead."""
        if measured.e2e_ms.p50 is not None:
            self._e2e_s = measured.e2e_ms.p50 / 1000


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


def _reason(end: End, search: Search, plan: Plan, bench: _Bench) -> str:
    unit = "in flight" if plan.axis == "concurrency" else "requests/s"
    low = "none" if search.low is None else f"{search.low:.4g} {unit}"
    high = "nothing above it" if search.high is None else f"{search.high:.4g}"
    return {
        "sure": f"{low} keeps the SLO, {high} was not shown to",
        "limit": f"{low}, the highest allowed, keeps the SLO",
        "none_meets": f"not even {high} {unit} was shown to keep the SLO",
        "time": f"out of time ({plan.within_s:g} s): shown up to {low}, not shown at {high}",
        "void": f"shown up to {low}; further runs were void: {bench.void_reason()}",
        "interrupted": f"interrupted: shown up to {low}",
    }.get(end, end)

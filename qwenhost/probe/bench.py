"""The runs of a sweep or a search, and the evidence they give at each load."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from qwenhost.facts import Slo, Value
from qwenhost.measurements import Measurements, RequestRecord
from qwenhost.probe.arrivals import RUSH
from qwenhost.probe.saturation import LOOKS, Rule, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.load import ProbeResult

Axis = Literal["concurrency", "rate"]
End = Literal["complete", "sure", "limit", "none_meets", "time", "void", "interrupted"]

_SETTLED_E2ES: Final = 4.0
"""An open loop runs for at least so many requests' lengths: a queue needs time to show."""
_RUSH_E2ES: Final = 1.0
"""One request's length at twice the rate leaves the server with about twice its ordinary work."""
_FULL_LOOKS: Final = 2
_SEED_STEP: Final = 1_000_003


class Seen(Value, frozen=True, kw_only=True):
    """Requests that were judged, and what follows for all that might be sent."""

    looks: int
    judged: int
    kept_slo: int
    share_low: float
    """The share that keeps the SLO is at least this..."""
    share_high: float
    """...and at most this, one-sided each, at the sweep's confidence over all looks."""
    verdict: Verdict


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
    when_full: Seen | None = None
    """Further looks, each begun with twice the rate; None where there were none. They have the last word."""

    @property
    def said(self) -> str:
        """The verdict in a word or three."""
        full = self.when_full
        return (
            "not when full" if self.verdict == "meets" and full and full.verdict != "meets" else self.verdict
        )


class Measure(Protocol):
    """How one run is made: ``run_probe``, or a model of a server in tests."""

    def __call__(self, config: ProbeConfig, /) -> ProbeResult:
        """Offer the load and measure."""


def judged(result: ProbeResult, *, since_s: float = 0.0) -> list[RequestRecord]:
    """Requests due once the first had completed, before which the server was filling up, and since then."""
    load = result.measurements.load
    since = load.rate_window_s[0] if load.rate_window == "steady" and load.rate_window_s else -math.inf
    since = max(since, since_s)
    return [r for r in result.records if r.scheduled_s >= since and r.error != "interrupted"]


class _Tally:
    def __init__(self) -> None:
        self.looks = self.good = self.total = 0
        self.void_reason: str | None = None
        self.last: Measurements | None = None


class Bench:
    """Makes the runs and keeps the evidence."""

    def __init__(
        self, config: ProbeConfig, axis: Axis, rule: Rule, measure: Measure, open_loop_s: float = 0.0
    ) -> None:
        self.rule, self._open_loop_s = rule, open_loop_s
        self.interrupted = False
        self._config, self._axis, self._measure = config, axis, measure
        self._tallies: dict[tuple[float, bool], _Tally] = {}
        """By load, and whether the server was full when the looks began."""
        self._runs = 0
        self._e2e_s = 0.0

    def one_at_a_time(self) -> float:
        """A load at which requests do not meet: one in flight, or the rate that keeps one in flight."""
        if self._axis == "concurrency":
            return 1.0
        alone = {"concurrency": 1, "rate": None, "requests": 5, "duration_s": None}
        measured = self._run(alone, "alone").measurements
        return 1 / max(self._e2e_s, 1e-3) if measured.requests.completed else 1.0

    def decide(self, at: float, *, deadline: float, full: bool = False) -> tuple[Verdict, End | None]:
        """Look until sure, four times at most; or the reason why the search ends here.

        Args:
            at: the load.
            deadline: no run is begun that would not end by then; seconds of the monotonic clock.
            full: begin each look with twice the rate, and judge its second half: where there is a
                twentieth to spare, the rush takes 20 of its own lengths to be worked off.
        """
        requests = self._config.requests or self.rule.first_look
        if full:
            requests = max(requests, self._tallies[at, False].total)
        for _ in range(_FULL_LOOKS if full else LOOKS):
            count = self._enough(at, requests)
            if time.monotonic() + self._seconds(at, count * (1 + full)) + self._rush_s(full) > deadline:
                return "undecided", "time"
            verdict = self.look(at, count, full=full)
            if self.interrupted:
                return verdict, "interrupted"
            if verdict != "undecided":
                return verdict, None
            requests *= 2
        tally = self._tallies[at, full]
        return "undecided", "void" if tally.total == 0 else None

    def look(self, at: float, requests: int | None, *, full: bool = False) -> Verdict:
        """One run; a void one is no evidence."""
        tally = self._tallies.setdefault((at, full), _Tally())
        tally.looks += 1
        load: dict[str, object] = {"requests": requests, "concurrency": None, "rate": None}
        load[self._axis] = int(at) if self._axis == "concurrency" else at
        rush_s = self._rush_s(full)
        if rush_s and requests is not None:
            # The rush, and as many again as are judged, in which it is worked off.
            load |= {"rush_s": rush_s, "requests": 2 * requests + math.ceil(RUSH * at * rush_s)}
        result = self._run(load, f"{self._axis}-{at:g}{'-full' * full}-{tally.looks}")
        tally.last = result.measurements
        # Where nothing at all succeeded the load was too much; that says nothing ill of the client.
        nothing = result.measurements.requests.completed == 0 and bool(result.records)
        if result.measurements.void and not nothing:
            tally.void_reason = result.measurements.void_reason
        else:
            slo = self._config.slo or Slo()
            steady = judged(result, since_s=(rush_s + (requests or 0) / at) if rush_s else 0.0)
            tally.good += sum(record.meets(slo) for record in steady)
            tally.total += len(steady)
        verdict = self.rule.verdict(tally.good, tally.total)
        if verdict == "meets" and not full:
            self._note_length(result.measurements)
        return verdict

    def held(self, at: float) -> bool:
        """Whether a load was shown to keep the SLO with the server full when the look began."""
        tally = self._tallies.get((at, True))
        return tally is not None and self.rule.verdict(tally.good, tally.total) == "meets"

    def below(self, at: float) -> float | None:
        """The highest lower load that was shown to keep the SLO; None where there is none."""
        meeting = (
            lower
            for (lower, full), tally in self._tallies.items()
            if lower < at and not full and self.rule.verdict(tally.good, tally.total) == "meets"
        )
        return max(meeting, default=None)

    def points(self) -> tuple[Point, ...]:
        """Ascending."""
        points = []
        for at in sorted(at for at, full in self._tallies if not full):
            tally, full = self._tallies[at, False], self._tallies.get((at, True))
            assert tally.last is not None  # noqa: S101 - set by every look
            seen = self._seen(tally)
            point = Point(
                at=at, measurements=tally.last, looks=seen.looks, judged=seen.judged, kept_slo=seen.kept_slo,
                share_low=seen.share_low, share_high=seen.share_high, verdict=seen.verdict,
                when_full=None if full is None else self._seen(full),
            )  # fmt: skip
            points.append(point)
        return tuple(points)

    def _seen(self, tally: _Tally) -> Seen:
        low, high = self.rule.interval(tally.good, tally.total)
        return Seen(
            looks=tally.looks, judged=tally.total, kept_slo=tally.good, share_low=low, share_high=high,
            verdict=self.rule.verdict(tally.good, tally.total),
        )  # fmt: skip

    def void_reason(self) -> str | None:
        """The last that was given."""
        reasons = [t.void_reason for t in self._tallies.values() if t.void_reason]
        return reasons[-1] if reasons else None

    def _rush_s(self, full: bool) -> float:
        return max(_RUSH_E2ES * self._e2e_s, 1e-3) if full else 0.0

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

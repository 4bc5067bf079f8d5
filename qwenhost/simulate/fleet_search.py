"""The cheapest fleet that keeps its service level, and why the others are not it.

Tried in turn, each by simulation over the whole load: every pool alone with a fixed number, with numbers by
the hour, and autoscaled at several targets; then half of one pool's number as a base under another that
scales. A run is given up once it can no longer keep the service level, so that what is too small costs
little time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from qwenhost.facts import Value
from qwenhost.simulate.fleet_config import DAY_S, Autoscale, Hours, Pool, Range, Trigger
from qwenhost.simulate.fleet_result import FleetRun

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TARGETS: Final = (0.9, 0.7, 0.5)
"""Autoscaling targets, as shares of what is in flight on a replica at its highest rate."""
MOST_REPLICAS: Final = 512
HEADROOM: Final = (1.0, 1.25)
"""Of the numbers by the hour, over demand's share of the peak."""


class Tried(Value, frozen=True, kw_only=True):
    """One fleet of the search."""

    label: str
    usd_per_day: float | None
    """Spare replicas included; None where the run was given up."""
    kept_slo: float | None
    verdict: str
    """``cheapest``, ``dearer``, ``misses the SLO``, ``not run``."""
    pools: tuple[Pool, ...]


class FleetSearch(Value, frozen=True, kw_only=True):
    """What a search found."""

    schema: str = "qwenhost.fleet_search/1"
    chosen: FleetRun | None
    """With spare replicas and all that may break."""
    label: str
    why: tuple[str, ...]
    tried: tuple[Tried, ...]


class Trial(Protocol):
    """Run a fleet; None where it was given up."""

    def __call__(self, pools: tuple[Pool, ...], /) -> FleetRun | None:
        """The run's figures."""


class Candidate(NamedTuple):
    """A pool to search with."""

    pool: Pool
    rate: float
    """Requests per second that one replica carries within the service level."""
    in_flight: float
    """Requests on it then."""


class Load(NamedTuple):
    """What the search knows of the load."""

    peak_rate: float
    rate_at: Callable[[float], float] | None
    """Requests per second at an instant, where a curve is known."""


class Search:
    """One search.

    Args:
        candidates: pools, each with what a replica carries.
        load: peak and curve.
        trial: runs a fleet.
        on_trial: told what is tried next.
    """

    def __init__(
        self, candidates: Sequence[Candidate], load: Load, trial: Trial, on_trial: Callable[[str], None]
    ) -> None:
        self._candidates, self._load, self._trial, self._on_trial = candidates, load, trial, on_trial
        self._best: tuple[float, str, tuple[Pool, ...]] | None = None
        self._tried: list[Tried] = []
        self._fixed: dict[str, int] = {}

    def run(self) -> tuple[tuple[Pool, ...] | None, str, tuple[Tried, ...]]:
        """The cheapest pools (None where nothing keeps the SLO), their name, and all that was tried."""
        for candidate in self._candidates:
            if self._find_fixed(candidate):
                self._by_the_hour(candidate)
                self._autoscaled(candidate)
        self._mixed()
        if self._best is None:
            return None, "", tuple(self._tried)
        _, label, pools = self._best
        final = tuple(
            msgspec.structs.replace(t, verdict="cheapest") if t.label == label else t for t in self._tried
        )
        return pools, label, final

    def _find_fixed(self, candidate: Candidate) -> bool:
        """The fewest fixed replicas, from the number that the peak over the rate says."""
        number = max(1, math.ceil(self._load.peak_rate / candidate.rate))
        missed, kept = 0, None
        while kept is None and number <= MOST_REPLICAS:
            if self._keeps_fixed(candidate, number):
                kept = number
            else:
                missed, number = number, number + max(1, number // 4)
        while kept is not None and kept - missed > 1:
            # Down by one first: the guess is rarely off by more.
            middle = kept - 1 if missed == 0 else (kept + missed) // 2
            if self._keeps_fixed(candidate, middle):
                kept = middle
            else:
                missed = middle
        if kept is not None:
            self._fixed[candidate.pool.name] = kept
        return kept is not None

    def _keeps_fixed(self, candidate: Candidate, number: int) -> bool:
        pool = _with(candidate.pool, number, number)
        return self._try(f"{number} x {pool.name}, fixed", (pool,))

    def _by_the_hour(self, candidate: Candidate) -> None:
        if self._load.rate_at is None:
            return
        top = self._fixed[candidate.pool.name]
        for headroom in HEADROOM:
            lead_s = candidate.pool.start.cold_s
            rows = hours_for(self._load.rate_at, self._load.peak_rate, top, headroom, lead_s)
            counts = {row.replicas.low for row in rows}
            if len(counts) > 1:
                pool = msgspec.structs.replace(_with(candidate.pool, max(counts), max(counts)), schedule=rows)
                label = f"{min(counts)} to {max(counts)} x {pool.name}, by the hour (headroom {headroom:g})"
                if self._try(label, (pool,)):
                    break

    def _autoscaled(self, candidate: Candidate) -> None:
        top = self._fixed[candidate.pool.name]
        if top == 1:
            return
        for share in TARGETS:
            pool = self._scaling(candidate, 1, top + 1, share)
            if self._try(_scaling_label(pool), (pool,)):
                break  # a lower target only costs more
        low = max(2, top // 2)
        if top > 3:
            for share in TARGETS:
                pool = self._scaling(candidate, low, top + 1, share)
                if self._try(_scaling_label(pool), (pool,)):
                    break

    def _mixed(self) -> None:
        """A fixed base of one pool under another that scales."""
        for base in self._candidates:
            for burst in self._candidates:
                top = self._fixed.get(base.pool.name, 0)
                if base is burst or top < 2 or burst.pool.name not in self._fixed:
                    continue
                number = math.ceil(top / 2)
                rest = max(1, math.ceil((top - number) * base.rate / burst.rate))
                scaled = self._scaling(burst, 1, rest + 1, TARGETS[1])
                label = f"{number} x {base.pool.name}, fixed, and {_scaling_label(scaled)}"
                self._try(label, (_with(base.pool, number, number), scaled))

    @staticmethod
    def _scaling(candidate: Candidate, low: int, high: int, share: float) -> Pool:
        target = max(1.0, round(candidate.in_flight * share, 1))
        rules = candidate.pool.autoscale or Autoscale(triggers=())
        rules = msgspec.structs.replace(rules, triggers=(Trigger(metric="in-flight", target=target),))
        return msgspec.structs.replace(_with(candidate.pool, low, high), autoscale=rules)

    def _try(self, label: str, pools: tuple[Pool, ...]) -> bool:
        """Run it unless it is known to be dearer; whether it keeps the service level."""
        least = _least_usd_per_day(pools)
        if self._best is not None and least >= self._best[0] and all(p.autoscale is None for p in pools):
            self._tried.append(
                Tried(label=label, usd_per_day=least, kept_slo=None, verdict="not run", pools=pools)
            )
            return True  # it would have to be smaller to matter
        self._on_trial(label)
        run = self._trial(tuple(msgspec.structs.replace(pool, spare=0) for pool in pools))
        keeps = run is not None and bool(run.meets_slo)
        usd = None
        if run is not None and run.usd_per_day is not None:
            usd = run.usd_per_day + sum(24 * pool.spare * (pool.usd_per_hour or 0.0) for pool in pools)
        verdict = "dearer" if keeps else "misses the SLO"
        kept = None if run is None else run.kept_slo
        self._tried.append(Tried(label=label, usd_per_day=usd, kept_slo=kept, verdict=verdict, pools=pools))
        if keeps and usd is not None and (self._best is None or usd < self._best[0]):
            self._best = (usd, label, pools)
        return keeps


def hours_for(
    rate_at: Callable[[float], float], peak_rate: float, top: int, headroom: float, lead_s: float
) -> tuple[Hours, ...]:
    """Replicas by the hour of each day: demand's share of the peak, begun early by the time a start takes."""
    rows: list[Hours] = []
    week = 7 if any(rate_at(DAY_S * day + 43_200) != rate_at(43_200) for day in range(7)) else 1
    for day in range(week):
        days = (day,) if week > 1 else tuple(range(7))
        for hour in range(24):
            since = 3600.0 * hour
            # Ordered early enough to be ready when the hour begins, and kept to its end.
            busiest = max(
                rate_at((day * DAY_S + since + ahead) % (7 * DAY_S))
                for ahead in range(0, 3600 + math.ceil(lead_s) + 1, 300)
            )
            number = min(top, max(1, math.ceil(top * headroom * busiest / peak_rate - 1e-9)))
            row = Hours(
                days=days, from_s=since, to_s=(since + 3600) % DAY_S, replicas=Range(low=number, high=number)
            )
            last = rows[-1] if rows else None
            if last is not None and last.replicas == row.replicas and last.days == row.days:
                rows[-1] = msgspec.structs.replace(last, to_s=row.to_s)
            else:
                rows.append(row)
    return tuple(rows)


def why(tried: Sequence[Tried], label: str, candidates: Sequence[Candidate], load: Load) -> tuple[str, ...]:
    """The reasons, for people."""
    said = [
        f"one replica of {c.pool.name} carries {c.rate:.3g} requests/s with {c.in_flight:.3g} in flight; the "
        f"peak is {load.peak_rate:.3g}"
        for c in candidates
    ]
    keeping = [t for t in tried if t.verdict in ("cheapest", "dearer") and t.usd_per_day is not None]
    keeping.sort(key=lambda t: t.usd_per_day or 0.0)
    if keeping:
        first = keeping[0].usd_per_day or 0.0
        said.append(f"{label} keeps the SLO for {first:,.0f} USD a day")
        for other in keeping[1:3]:
            more = (other.usd_per_day or 0.0) / first - 1 if first else 0.0
            said.append(f"{other.label} keeps it for {more:.0%} more")
    missed = sum(t.verdict == "misses the SLO" for t in tried)
    skipped = sum(t.verdict == "not run" for t in tried)
    if missed or skipped:
        said.append(f"{missed} smaller or slower fleets missed it; {skipped} dearer ones were not run")
    return tuple(said)


def _with(pool: Pool, low: int, high: int) -> Pool:
    return msgspec.structs.replace(pool, replicas=Range(low=low, high=high), autoscale=None, schedule=())


def _scaling_label(pool: Pool) -> str:
    assert pool.autoscale is not None  # noqa: S101 - made by the search
    target = pool.autoscale.triggers[0].target
    return f"{pool.replicas.low} to {pool.replicas.high} x {pool.name}, autoscaled at {target:g} in flight"


def _least_usd_per_day(pools: tuple[Pool, ...]) -> float:
    """A fixed fleet's rent, spare ones included; what an autoscaled one pays at least."""
    total = 0.0
    for pool in pools:
        if pool.schedule:
            seconds = (
                row.replicas.low * ((row.to_s - row.from_s) % DAY_S or DAY_S) * len(row.days)
                for row in pool.schedule
            )
            number = sum(seconds) / (7 * DAY_S)
        else:
            number = float(pool.replicas.low)
        total += 24 * (number + pool.spare) * (pool.usd_per_hour or 0.0)
    return total

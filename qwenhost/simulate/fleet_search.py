"""The cheapest fleet that keeps its service level, and why the others are not it.

Tried in turn: every pool alone with a fixed number, with numbers by the hour, and autoscaled at several
targets; then half of one pool's number as a base under another that scales. Each is simulated over the whole
load, and given up once it can no longer keep the service level. Where the load is long, all are judged by
samples first, and what may keep it is run over the whole load, the cheapest first, until the rest is dearer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from qwenhost.facts import Value
from qwenhost.simulate.fleet_config import DAY_S, Autoscale, Pool, Range, Trigger
from qwenhost.simulate.fleet_hours import hours_for
from qwenhost.simulate.fleet_result import FleetRun

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.simulate.fleet_sample import Sampled

TARGETS: Final = (0.9, 0.7, 0.5)
"""Autoscaling targets, as shares of what is in flight on a replica at its highest rate."""
MOST_REPLICAS: Final = 512
HEADROOM: Final = (1.0, 1.25)
"""Of the numbers by the hour, over demand's share of the peak."""
NEAR: Final = 1.5
"""A sample that misses the allowed share by less than this factor decides nothing."""
SAMPLE_ERROR: Final = 0.05
"""A whole run may cost so much less than its sample says."""


class Tried(Value, frozen=True, kw_only=True):
    """One fleet of the search."""

    label: str
    usd_per_day: float | None
    """Spare replicas included; None where the run was given up."""
    kept_slo: float | None
    verdict: str
    """``cheapest``, ``dearer``, ``misses the SLO``, ``not run``."""
    sampled: bool = False
    """Judged by samples of the load and not over all of it."""
    pools: tuple[Pool, ...]


class FleetSearch(Value, frozen=True, kw_only=True):
    """What a search found."""

    schema: str = "qwenhost.fleet_search/1"
    chosen: FleetRun | None
    """With spare replicas and all that may break."""
    label: str
    why: tuple[str, ...]
    tried: tuple[Tried, ...]
    interrupted: bool = False
    """Given up by the user: cheaper ones may not have been tried."""


class Trial(Protocol):
    """Run a fleet; None where it was given up."""

    def __call__(self, pools: tuple[Pool, ...], /) -> FleetRun | None:
        """The run's figures."""


class Screen(Protocol):
    """Judge fleets by samples of the load."""

    @property
    def allowed(self) -> float:
        """Share of requests that may miss the service level."""

    def prepare(self, shapes: Sequence[tuple[Pool, ...]], /) -> None:
        """Will be asked for these, in this order, perhaps not for all: a chance to use several cores."""

    def __call__(self, pools: tuple[Pool, ...], /) -> Sampled:
        """What samples say of it."""


class Shape(NamedTuple):
    """A fleet to try."""

    label: str
    pools: tuple[Pool, ...]


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
        screen: judges by samples; None runs the whole load for each.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        load: Load,
        trial: Trial,
        on_trial: Callable[[str], None],
        screen: Screen | None = None,
    ) -> None:
        self._candidates, self._load, self._trial, self._on_trial = candidates, load, trial, on_trial
        self._screen = screen
        self._best: tuple[float, str, tuple[Pool, ...]] | None = None
        self._bound = math.inf
        """USD a day of the cheapest that keeps the service level, by sample or run."""
        self._tried: dict[str, Tried] = {}
        self._possible: dict[str, float] = {}
        self._fixed: dict[str, int] = {}

    def run(self) -> tuple[tuple[Pool, ...] | None, str, tuple[Tried, ...]]:
        """The cheapest pools (None where nothing keeps the SLO), their name, and all that was tried."""
        found = [candidate for candidate in self._candidates if self._find_fixed(candidate)]
        groups = [group for candidate in found for group in self._shapes(candidate)]
        mixed = self._mixed()
        if self._screen is not None:
            self._screen.prepare([shape.pools for group in (*groups, mixed) for shape in group])
        for group in groups:
            # The first that keeps it is the cheapest of its group.
            next((shape for shape in group if self._try(shape)), None)
        for shape in mixed:
            self._try(shape)
        self._verify()
        return self.so_far()

    def so_far(self) -> tuple[tuple[Pool, ...] | None, str, tuple[Tried, ...]]:
        """The same, of what has been tried until now."""
        if self._best is None:
            return None, "", tuple(self._tried.values())
        _, label, pools = self._best
        best = msgspec.structs.replace(self._tried[label], verdict="cheapest")
        return pools, label, tuple({**self._tried, label: best}.values())

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
        return self._try(_fixed_shape(candidate.pool, number))

    def _shapes(self, candidate: Candidate) -> list[list[Shape]]:
        """Groups of fleets of one pool, in each the cheapest first."""
        return [self._by_the_hour(candidate), *self._autoscaled(candidate)]

    def _by_the_hour(self, candidate: Candidate) -> list[Shape]:
        if self._load.rate_at is None:
            return []
        top, shapes = self._fixed[candidate.pool.name], []
        for headroom in HEADROOM:
            lead_s = candidate.pool.start.cold_s
            rows = hours_for(self._load.rate_at, self._load.peak_rate, top, headroom, lead_s)
            counts = {row.replicas.low for row in rows}
            if len(counts) > 1:
                pool = msgspec.structs.replace(_with(candidate.pool, max(counts), max(counts)), schedule=rows)
                label = f"{min(counts)} to {max(counts)} x {pool.name}, by the hour (headroom {headroom:g})"
                shapes.append(Shape(label, (pool,)))
        return shapes

    def _autoscaled(self, candidate: Candidate) -> list[list[Shape]]:
        top = self._fixed[candidate.pool.name]
        lows = [] if top == 1 else [1] if top <= 3 else [1, max(2, top // 2)]
        pools = [[self._scaling(candidate, low, top + 1, share) for share in TARGETS] for low in lows]
        return [[Shape(_scaling_label(pool), (pool,)) for pool in group] for group in pools]

    def _mixed(self) -> list[Shape]:
        """A fixed base of one pool under another that scales."""
        shapes = []
        for base in self._candidates:
            for burst in self._candidates:
                top = self._fixed.get(base.pool.name, 0)
                if base is burst or top < 2 or burst.pool.name not in self._fixed:
                    continue
                number = math.ceil(top / 2)
                rest = max(1, math.ceil((top - number) * base.rate / burst.rate))
                scaled = self._scaling(burst, 1, rest + 1, TARGETS[1])
                label = f"{number} x {base.pool.name}, fixed, and {_scaling_label(scaled)}"
                shapes.append(Shape(label, (_with(base.pool, number, number), scaled)))
        return shapes

    @staticmethod
    def _scaling(candidate: Candidate, low: int, high: int, share: float) -> Pool:
        target = max(1.0, round(candidate.in_flight * share, 1))
        rules = candidate.pool.autoscale or Autoscale(triggers=())
        rules = msgspec.structs.replace(rules, triggers=(Trigger(metric="in-flight", target=target),))
        return msgspec.structs.replace(_with(candidate.pool, low, high), autoscale=rules)

    def _try(self, shape: Shape) -> bool:
        """Judge it unless it is known to be dearer; whether it keeps the service level."""
        least = _least_usd_per_day(shape.pools)
        if least >= self._bound and all(pool.autoscale is None for pool in shape.pools):
            self._note(shape, least, None, "not run")
            return True  # it would have to be smaller to matter
        self._on_trial(shape.label)
        return self._run(shape) if self._screen is None else self._sample(shape, self._screen)

    def _sample(self, shape: Shape, screen: Screen) -> bool:
        """By samples; what they leave possible is run later."""
        found = screen(_without_spare(shape.pools))
        usd = _with_spare(found.usd_per_day, shape.pools)
        misses = 1 - found.kept_slo
        possible = misses <= NEAR * screen.allowed and usd is not None
        verdict = "dearer" if possible else "misses the SLO"
        self._note(shape, usd, found.kept_slo, verdict, sampled=True)
        if possible and usd is not None:
            self._possible[shape.label] = usd
        keeps = misses <= screen.allowed
        if keeps and usd is not None:
            self._bound = min(self._bound, usd)
        return keeps

    def _verify(self) -> None:
        """Over the whole load, the cheapest by its sample first, until the rest must be dearer."""
        while self._possible:
            label = min(self._possible, key=lambda one: (self._possible[one], one))
            usd = self._possible.pop(label)
            if self._best is not None and usd * (1 - SAMPLE_ERROR) >= self._best[0]:
                return
            shape = Shape(label, self._tried[label].pools)
            self._on_trial(f"{label}, over the whole load")
            if not self._run(shape):
                self._one_more(shape)
            if not self._possible and self._best is None:
                # Set aside as dearer than what only the samples kept.
                passed = [one for one in self._tried.values() if one.verdict == "not run"]
                self._possible = {one.label: one.usd_per_day or 0.0 for one in passed}

    def _one_more(self, shape: Shape) -> None:
        """The next larger fixed fleet, where the samples took one for enough that is not."""
        pool = shape.pools[0]
        if len(shape.pools) == 1 and pool.autoscale is None and not pool.schedule:
            larger = _fixed_shape(pool, pool.replicas.low + 1)
            done = self._tried.get(larger.label)
            known = done is not None and not done.sampled and done.verdict != "not run"
            if not known and pool.replicas.low < MOST_REPLICAS:
                usd = _least_usd_per_day(larger.pools)
                self._note(larger, usd, None, "not run")
                self._possible[larger.label] = usd

    def _run(self, shape: Shape) -> bool:
        """Over the whole load."""
        run = self._trial(_without_spare(shape.pools))
        keeps = run is not None and bool(run.meets_slo)
        usd = None if run is None else _with_spare(run.usd_per_day, shape.pools)
        kept = None if run is None else run.kept_slo
        self._note(shape, usd, kept, "dearer" if keeps else "misses the SLO")
        if keeps and usd is not None and (self._best is None or usd < self._best[0]):
            self._best = (usd, shape.label, shape.pools)
            self._bound = min(self._bound, usd)
        return keeps

    def _note(
        self, shape: Shape, usd: float | None, kept: float | None, verdict: str, *, sampled: bool = False
    ) -> None:
        self._tried[shape.label] = Tried(
            label=shape.label, usd_per_day=usd, kept_slo=kept, verdict=verdict, sampled=sampled,
            pools=shape.pools,
        )  # fmt: skip


def _fixed_shape(pool: Pool, number: int) -> Shape:
    return Shape(f"{number} x {pool.name}, fixed", (_with(pool, number, number),))


def _without_spare(pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
    return tuple(msgspec.structs.replace(pool, spare=0) for pool in pools)


def _with_spare(usd: float | None, pools: tuple[Pool, ...]) -> float | None:
    if usd is None:
        return None
    return usd + sum(24 * pool.spare * (pool.usd_per_hour or 0.0) for pool in pools)


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

"""A few stretches of a long load stand for all of it, so that a fleet is judged in a fraction of the time.

The load is cut into bins; sorted by their requests they fall into strata, the busiest ones thin. Of each
stratum one bin is simulated, begun early enough for replicas to start and queues to settle, and counts for
its stratum. Failures and interruptions are too rare to show in a sample, and caches begin empty: what a
search finds by samples it verifies on the whole load.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.simulate.fleet import Fleet
from qwenhost.simulate.fleet_config import DAY_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from qwenhost.facts import Slo
    from qwenhost.plan import StepShape
    from qwenhost.simulate.fleet_config import FleetConfig, Pool
    from qwenhost.simulate.fleet_log import FleetLog
    from qwenhost.simulate.load import Arrival

STRATA: Final = (0.02, 0.1, 0.3, 0.6, 0.85, 1.0)
"""Ends of the strata, as shares of the bins from the busiest down."""
SHORTEST_BIN_S: Final = 300.0
MOST_BINS: Final = 288
SETTLING_S: Final = 300.0
"""Beside the start of a replica: what an autoscaler's window and a queue take."""


class Stretch(NamedTuple):
    """A part of the load that is simulated, and what it stands for."""

    begin_s: float
    """The fleet runs from here."""
    since_s: float
    """What is sent from here counts."""
    until_s: float
    requests: float
    """Of its stratum, as the next."""
    seconds: float


class Sampled(NamedTuple):
    """A fleet judged by stretches."""

    kept_slo: float
    usd_per_day: float | None


class Worth(NamedTuple):
    """What one replica of a pool does at its limit."""

    in_flight: float
    request_s: float


def bin_seconds(horizon_s: float) -> float:
    """Length of the bins of a load."""
    return max(SHORTEST_BIN_S, horizon_s / MOST_BINS)


def stretches(counts: Sequence[float], bin_s: float, lead_s: float) -> tuple[Stretch, ...]:
    """The stretches of a load in order of time.

    Args:
        counts: requests by bin.
        bin_s: length of a bin.
        lead_s: from the fleet's beginning to the first request that counts, where the load is that old.
    """
    order = sorted(range(len(counts)), key=lambda number: -counts[number])
    found = []
    first = 0
    for share in STRATA:
        end = max(first + 1, round(share * len(order)))
        members = order[first:end]
        if not members:
            break
        first = end
        total = sum(counts[number] for number in members)
        # The one in the middle of the stratum; of those next to it one into which demand rises.
        middle = members[len(members) // 4 : max(len(members) // 4 + 1, -(-3 * len(members) // 4))]
        rising = [n for n in middle if n and counts[n] > counts[n - 1]]
        near = rising or middle
        chosen = near[len(near) // 2]
        since = chosen * bin_s
        found.append(Stretch(max(0.0, since - lead_s), since, since + bin_s, total, bin_s * len(members)))
    return tuple(sorted(found))


def lead_seconds(pools: Sequence[Pool], longest_request_s: float) -> float:
    """How long before a stretch its fleet begins: nothing scales in a fixed one, but it must fill."""
    fills = 5 * longest_request_s
    scaling = [pool.start.cold_s + SETTLING_S for pool in pools if pool.autoscale is not None]
    return max([fills, *scaling])


def opening(pools: Sequence[Pool], rate: float, at_s: float, worth: Mapping[str, Worth]) -> tuple[int, ...]:
    """Replicas of each pool with which a stretch begins, those of an autoscaled pool by Little's law."""
    numbers = []
    request_s = max(one.request_s for one in worth.values())
    rest = rate * request_s
    for pool in sorted(pools, key=lambda one: one.autoscale is not None):
        bounds = pool.range_at(at_s)
        if pool.autoscale is None:
            numbers.append((pool.name, bounds.low))
            rest -= bounds.low * worth[pool.name].in_flight
            continue
        targets = [one.target for one in pool.autoscale.triggers if one.metric == "in-flight"]
        wanted = math.ceil(max(0.0, rest) / targets[0]) if targets else bounds.low
        numbers.append((pool.name, min(max(wanted, bounds.low), bounds.high)))
    by_name = dict(numbers)
    return tuple(by_name[pool.name] for pool in pools)


def sample(
    config: FleetConfig,
    step_times: Sequence[Callable[[StepShape], float]],
    parts: Sequence[tuple[Stretch, Iterable[Arrival], Sequence[int]]],
    *,
    slo: Slo,
    seed: int,
) -> Sampled:
    """Judge a fleet by stretches.

    Args:
        config: pools, routing, limits.
        step_times: seconds per step of one rank, for each pool.
        parts: each stretch with its requests (absolute times) and the replicas it begins with.
        slo: to judge requests by.
        seed: of everything drawn.
    """
    requests = missed = usd = seconds = 0.0
    priced = all(pool.usd_per_hour is not None for pool in config.pools)
    for stretch, calls, numbers in parts:
        fleet = Fleet(config, step_times, seed=seed, slo=slo)
        log = fleet.run(calls, horizon_s=stretch.until_s, begin_s=stretch.begin_s, begin_with=numbers)
        rows = [kept for at, kept in zip(log.at_s, log.kept, strict=True) if at >= stretch.since_s]
        if rows:
            missed += stretch.requests * (1 - sum(rows) / len(rows))
        requests += stretch.requests
        usd += stretch.seconds * _usd_per_second(config, log, stretch)
        seconds += stretch.seconds
    return Sampled(1 - missed / max(1e-9, requests), usd / max(1e-9, seconds) * DAY_S if priced else None)


def _usd_per_second(config: FleetConfig, log: FleetLog, stretch: Stretch) -> float:
    total = 0.0
    for pool, since, until in log.billed():
        rented = max(0.0, min(until, stretch.until_s) - max(since, stretch.since_s))
        total += rented / 3600 * (config.pools[pool].usd_per_hour or 0.0)
    return total / (stretch.until_s - stretch.since_s)

"""Replicas come and go: started, drained, stopped; broken and repaired; withdrawn and replaced."""

from __future__ import annotations

import heapq
import math
import random
from typing import TYPE_CHECKING

from qwenhost.simulate.fleet_config import DAY_S
from qwenhost.simulate.fleet_replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.plan import StepShape
    from qwenhost.simulate.fleet_config import FleetConfig
    from qwenhost.simulate.fleet_log import FleetLog


class Agenda:
    """What is to be done when; things due at one instant in the order in which they were noted."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = 0

    @property
    def next_s(self) -> float:
        """The earliest instant, or infinity."""
        return self._entries[0][0] if self._entries else math.inf

    def note(self, at_s: float, action: Callable[[float], None]) -> None:
        """Do it then."""
        self._serial += 1
        heapq.heappush(self._entries, (at_s, self._serial, action))

    def run(self, now: float) -> None:
        """Do what is due."""
        while self._entries and self._entries[0][0] <= now:
            at, _, action = heapq.heappop(self._entries)
            action(at)


class Lives:
    """All replicas of a fleet.

    Args:
        config: pools and rules.
        step_times: of each pool.
        agenda: for what comes later.
        log: where changes are noted.
        seed: of failures, interruptions and what the engines draw.
        on_lost: called with a replica before what it held is gone.
        on_ready: called when a replica takes requests.
    """

    def __init__(  # noqa: PLR0917 - its collaborators
        self,
        config: FleetConfig,
        step_times: Sequence[Callable[[StepShape], float]],
        agenda: Agenda,
        log: FleetLog,
        seed: int,
        on_lost: Callable[[Replica, float], None],
        on_ready: Callable[[Replica, float], None],
    ) -> None:
        self.ready: list[Replica] = []
        self.wanted = [0] * len(config.pools)
        self._config, self._step_times, self._agenda, self._log = config, step_times, agenda, log
        self._seed, self._on_lost, self._on_ready = seed, on_lost, on_ready
        self._members: list[list[Replica]] = [[] for _ in config.pools]  # starting or ready

    def members(self, pool: int) -> list[Replica]:
        """Replicas of a pool that are starting or ready."""
        return self._members[pool]

    def begin(self, pool: int, number: int, now: float = 0.0) -> None:
        """So many are there and ready when time begins."""
        self.wanted[pool] = number
        for _ in range(self._target(pool)):
            self._become_ready(self._order(pool, now), now)
        if not self._members[pool]:
            self._note(pool, now)

    def scale(self, pool: int, number: int, now: float) -> None:
        """Start or drain until so many, and the spare ones, are there."""
        self.wanted[pool] = number
        members = self._members[pool]
        start = self._config.pools[pool].start
        while len(members) < self._target(pool):
            replica = self._order(pool, now)
            self._agenda.note(now + start.cold_s, self._readiness(replica))
            self._note(pool, now)
        # As a ReplicaSet picks: what is not ready first, then what became ready last.
        while len(members) > self._target(pool):
            starting = [replica for replica in members if replica.state == "starting"]
            self.drain(starting[-1] if starting else max(members, key=lambda r: (r.ready_s, r.number)), now)

    def drain(self, replica: Replica, now: float, within_s: float | None = None) -> None:
        """Take no more requests, finish those there are, stop when they are done or time is up."""
        self._leave(replica, now)
        replica.state = "draining"
        self._note(replica.pool_index, now)
        if replica.outstanding == 0:
            self.stop(replica, now)
            return
        limit = self._config.drain_s if within_s is None else within_s
        self._agenda.note(now + limit, lambda at: self._kill(replica, at))

    def stop(self, replica: Replica, now: float) -> None:
        """It is gone, and its rent ends."""
        replica.state, replica.stopped_s = "stopped", now
        self._log.preemptions += int(replica.engine_sum(lambda engine: engine.preemptions))
        replica.ranks = []

    def _target(self, pool: int) -> int:
        wanted = self.wanted[pool]
        return wanted + self._config.pools[pool].spare if wanted else 0

    def _order(self, pool: int, now: float) -> Replica:
        replica = Replica(len(self._log.replicas), pool, self._config.pools[pool], now)
        self._log.replicas.append(replica)
        self._members[pool].append(replica)
        return replica

    def _readiness(self, replica: Replica) -> Callable[[float], None]:
        generation = replica.generation

        def act(at: float) -> None:
            if replica.state == "starting" and replica.generation == generation:
                self._become_ready(replica, at)

        return act

    def _become_ready(self, replica: Replica, now: float) -> None:
        index = replica.pool_index
        replica.boot(self._step_times[index], self._seed + 7919 * replica.number, now)
        self.ready.append(replica)
        self._note(index, now)
        pool, generation = replica.pool, replica.generation
        # Each replica draws from a stream of its own: another fleet size breaks the same ones.
        rng = random.Random(f"{self._seed} {replica.number} {generation}")  # noqa: S311 - a model's draws
        if pool.failures is not None:
            at = now + rng.expovariate(1 / pool.failures.mtbf_s)
            self._agenda.note(at, lambda at: self._fail(replica, generation, at))
        if pool.spot is not None and pool.spot.interruptions_per_day > 0:
            at = now + rng.expovariate(pool.spot.interruptions_per_day / DAY_S)
            self._agenda.note(at, lambda at: self._withdraw(replica, generation, at))
        self._on_ready(replica, now)

    def _fail(self, replica: Replica, generation: int, now: float) -> None:
        """It dies with all it holds, and starts anew on the same machine."""
        failures = replica.pool.failures
        if replica.generation != generation or failures is None:
            return
        self._log.failures += 1
        self.ready.remove(replica)
        replica.leave_ready(now)
        replica.state = "starting"
        replica.generation += 1
        self._log.preemptions += int(replica.engine_sum(lambda engine: engine.preemptions))
        self._note(replica.pool_index, now)
        self._on_lost(replica, now)
        replica.ranks = []
        self._agenda.note(now + failures.repair_s + replica.pool.start.warm_s, self._readiness(replica))

    def _withdraw(self, replica: Replica, generation: int, now: float) -> None:
        """The notice: drain while it lasts, and order another."""
        spot = replica.pool.spot
        if replica.generation != generation or spot is None:
            return
        self._log.interruptions += 1
        self.drain(replica, now, spot.notice_s)
        self.scale(replica.pool_index, self.wanted[replica.pool_index], now)

    def _kill(self, replica: Replica, now: float) -> None:
        if replica.state == "draining":
            self._on_lost(replica, now)
            self.stop(replica, now)

    def _leave(self, replica: Replica, now: float) -> None:
        self._members[replica.pool_index].remove(replica)
        if replica.state == "ready":
            self.ready.remove(replica)
        replica.leave_ready(now)
        replica.generation += 1

    def _note(self, pool: int, now: float) -> None:
        members = self._members[pool]
        self._log.note_counts(now, pool, len(members), sum(replica.takes_requests for replica in members))

"""How many replicas each pool is to have: fixed, by the hour, or by its autoscaler."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from qwenhost.simulate.fleet_autoscale import Autoscaler
from qwenhost.simulate.fleet_config import DAY_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.simulate.fleet_config import FleetConfig
    from qwenhost.simulate.fleet_life import Agenda, Lives

RATE_WINDOW_S = 60.0
"""The ``rate`` trigger is a rate over the last minute."""


class Scaling:
    """Everything that changes the wanted number of replicas.

    Args:
        config: pools and their rules.
        lives: the replicas.
        agenda: for what comes later.
        queued: requests that wait in the gateway, since nothing takes them.
    """

    def __init__(self, config: FleetConfig, lives: Lives, agenda: Agenda, queued: Callable[[], int]) -> None:
        self._config, self._lives, self._agenda, self._queued = config, lives, agenda, queued
        self._autoscalers = [
            None if pool.autoscale is None else Autoscaler(pool.autoscale) for pool in config.pools
        ]
        self._arrivals: list[deque[float]] = [deque() for _ in config.pools]
        self._watches_rate = [
            pool.autoscale is not None and any(t.metric == "rate" for t in pool.autoscale.triggers)
            for pool in config.pools
        ]

    def begin(self, now: float = 0.0, numbers: Sequence[int] | None = None) -> None:
        """Start with the fewest, or with so many; look again at every change of hours, poll and sync."""
        for index, pool in enumerate(self._config.pools):
            self._lives.begin(index, pool.range_at(now).low if numbers is None else numbers[index], now)
            if pool.schedule:
                self._note_hours(index, now)
            if pool.autoscale is not None:
                self._agenda.note(now + pool.autoscale.sync_s, self._sync(index))
                self._agenda.note(now + pool.autoscale.polling_interval_s, self._poll(index))

    def note_arrival(self, pool: int | None, now: float) -> None:
        """A request was sent to a pool, or waits for any."""
        for index, watches in enumerate(self._watches_rate):
            if watches and pool in (None, index):
                self._arrivals[index].append(now)

    def totals(self, pool: int, now: float) -> dict[str, float]:
        """Each metric summed over a pool's replicas; what waits in the gateway waits for every pool."""
        ready = [replica for replica in self._lives.members(pool) if replica.takes_requests]
        queued = self._queued()
        arrivals = self._arrivals[pool]
        while arrivals and arrivals[0] <= now - RATE_WINDOW_S:
            arrivals.popleft()
        return {
            "in-flight": queued + sum(r.outstanding for r in ready),
            "waiting": queued + sum(r.engine_sum(lambda engine: engine.num_waiting) for r in ready),
            "running": sum(r.engine_sum(lambda engine: engine.num_running) for r in ready),
            "kv": sum(r.engine_sum(lambda engine: engine.pool.usage) / len(r.ranks) for r in ready),
            "rate": len(arrivals) / RATE_WINDOW_S,
        }

    def _sync(self, index: int) -> Callable[[float], None]:
        def act(now: float) -> None:
            scaler, pool = self._autoscalers[index], self._config.pools[index]
            assert scaler is not None  # noqa: S101 - noted for those only
            current = self._lives.wanted[index]
            wanted = scaler.sync(now, self.totals(index, now), current, pool.range_at(now))
            if wanted != current:
                self._lives.scale(index, wanted, now)
            self._agenda.note(now + scaler.rules.sync_s, act)

        return act

    def _poll(self, index: int) -> Callable[[float], None]:
        def act(now: float) -> None:
            scaler, pool = self._autoscalers[index], self._config.pools[index]
            assert scaler is not None  # noqa: S101 - noted for those only
            totals = self.totals(index, now)
            # A trigger is active above its activation value, 0 unless told otherwise.
            active = self._queued() > 0 or any(totals[t.metric] > 0 for t in scaler.rules.triggers)
            current = self._lives.wanted[index]
            wanted = scaler.poll(now, active=active, current=current, bounds=pool.range_at(now))
            if wanted != current:
                self._lives.scale(index, wanted, now)
            self._agenda.note(now + scaler.rules.polling_interval_s, act)

        return act

    def _note_hours(self, index: int, now: float) -> None:
        """Look again when the next hours begin or end."""
        edges = {second for row in self._config.pools[index].schedule for second in (row.from_s, row.to_s)}
        day = now // DAY_S * DAY_S
        later = [day + ahead + edge for ahead in (0.0, DAY_S) for edge in edges | {0.0}]

        def act(at: float) -> None:
            pool = self._config.pools[index]
            bounds, current = pool.range_at(at), self._lives.wanted[index]
            # An autoscaler applies its own bounds, but those of the hours at once.
            low_only = pool.autoscale is None
            wanted = bounds.low if low_only else min(max(current, bounds.low), bounds.high)
            if wanted != current:
                self._lives.scale(index, wanted, at)
            self._note_hours(index, at)

        self._agenda.note(min(edge for edge in later if edge > now), act)

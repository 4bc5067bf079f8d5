"""What a fleet's run leaves behind: a row per request in flat arrays, so that a million take 60 MB."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.facts import Slo
    from qwenhost.simulate.fleet_replica import Replica, Ticket

DONE: Final = 0
ERRORS: Final = ("", "http_400", "http_429", "timeout", "lost")
"""By outcome. ``lost``: sent as often as allowed, to replicas that went away."""


class FleetLog:
    """Requests in the order in which they were settled, and every replica that ever was."""

    def __init__(self, slo: Slo | None = None) -> None:
        self.slo = slo
        self.at_s = array("d")
        self.ttft_s = array("d")
        """NaN where no token came, as in the next two."""
        self.tpot_s = array("d")
        self.e2e_s = array("d")
        self.wait_s = array("d")
        """First sending to the scheduler's first look, in gateway and engine."""
        self.input_tokens = array("l")
        self.cached_tokens = array("l")
        self.output_tokens = array("l")
        self.outcome = array("b")
        self.kept = array("b")
        """Whether it kept the service level; all that were answered do where there is none."""
        self.resent = 0
        self.missed = 0
        self.replicas: list[Replica] = []
        self.counts: list[tuple[float, int, int, int]] = []
        """(instant, pool, replicas starting or ready, ready) at every change."""
        self.failures = 0
        self.interruptions = 0
        self.preemptions = 0
        self.horizon_s = 0.0
        self.end_s = 0.0
        self.abandoned = False
        """Given up early, since too many had missed the service level."""

    def __len__(self) -> int:
        return len(self.at_s)

    def settle(self, ticket: Ticket, now: float, outcome: int) -> None:
        """A request's end."""
        call, nan = ticket.call, float("nan")
        request, sequence = call.request, ticket.sequence
        answered = outcome == DONE
        ttft = ticket.first_s - call.at_s if answered else nan
        e2e = now - call.at_s if answered else nan
        tpot = nan
        if answered and request.output_tokens > 1:
            tpot = (now - ticket.first_s) / (request.output_tokens - 1)
        scheduled = sequence.first_scheduled_s if sequence is not None else None
        self.at_s.append(call.at_s)
        self.ttft_s.append(ttft)
        self.tpot_s.append(tpot)
        self.e2e_s.append(e2e)
        self.wait_s.append((now if scheduled is None else scheduled) - call.at_s)
        self.input_tokens.append(request.prompt_tokens)
        self.cached_tokens.append(sequence.cached_tokens if answered and sequence is not None else 0)
        self.output_tokens.append(request.output_tokens if answered else 0)
        self.outcome.append(outcome)
        kept = answered and self._keeps(ttft, tpot, e2e)
        self.kept.append(kept)
        self.missed += not kept
        self.end_s = max(self.end_s, now)
        ticket.settled = True

    def note_counts(self, now: float, pool: int, replicas: int, ready: int) -> None:
        """The number of replicas of a pool has changed."""
        self.counts.append((now, pool, replicas, ready))

    def billed(self) -> Iterator[tuple[int, float, float]]:
        """(pool, from, to) of each replica's rent, from the order to its end or the run's."""
        for replica in self.replicas:
            yield replica.pool_index, replica.started_s, min(replica.stopped_s, self.end_s)

    def _keeps(self, ttft: float, tpot: float, e2e: float) -> bool:
        slo = self.slo
        if slo is None:
            return True
        # A NaN (one token has no time per further token) breaks no limit.
        return not (
            (slo.ttft_ms is not None and ttft * 1000 > slo.ttft_ms)
            or (slo.tpot_ms is not None and tpot * 1000 > slo.tpot_ms)
            or (slo.e2e_ms is not None and e2e * 1000 > slo.e2e_ms)
        )

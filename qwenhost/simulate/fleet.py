"""A fleet in virtual time: arrivals to a router, the router to replicas, replicas by their own clocks.

An engine is left alone while nothing can end on it (``Engine.quiet_s``), so that a request costs about what
it costs on a single engine however many replicas stand beside it. With one replica of one rank and no
change of the fleet, every step is the one :class:`qwenhost.simulate.virtual.Simulator` takes.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING

from qwenhost.simulate.fleet_life import Agenda, Lives
from qwenhost.simulate.fleet_log import DONE, ERRORS, FleetLog
from qwenhost.simulate.fleet_replica import Ticket
from qwenhost.simulate.fleet_routing import router
from qwenhost.simulate.fleet_scaling import Scaling
from qwenhost.simulate.tabulate import tabulated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qwenhost.facts import Slo
    from qwenhost.plan import StepShape
    from qwenhost.simulate.engine import StepResult
    from qwenhost.simulate.fleet_config import FleetConfig, Pool
    from qwenhost.simulate.fleet_replica import FleetRank, Replica
    from qwenhost.simulate.load import Arrival
    from qwenhost.simulate.sequence import Request

LONGEST_STRETCH = 1 << 40
PROGRESS_EVERY = 2000
BAD_REQUEST, SHED, TIMED_OUT, LOST = (ERRORS.index(name) for name in ERRORS[1:])


class Fleet:
    """Run a load against a fleet.

    Args:
        config: pools, routing, limits.
        step_times: seconds per step of one rank, for each pool.
        seed: of everything drawn.
        slo: to judge requests by.
        misses_allowed: give up once more have missed the service level.
        on_progress: told the present instant and the requests settled, now and then.
    """

    def __init__(
        self,
        config: FleetConfig,
        step_times: Sequence[Callable[[StepShape], float]],
        *,
        seed: int,
        slo: Slo | None = None,
        misses_allowed: float = math.inf,
        on_progress: Callable[[float, int], None] | None = None,
    ) -> None:
        self.config = config
        self.log = FleetLog(slo)
        self._misses_allowed, self._on_progress = misses_allowed, on_progress
        self._agenda = Agenda()
        self._router = router(config.routing)
        remembered = [tabulated(step_time) for step_time in step_times]
        self.lives = Lives(
            config, remembered, self._agenda, self.log, seed, self._lose_replica, self._flush_queue
        )
        self.scaling = Scaling(config, self.lives, self._agenda, self._queued)
        self._queue: deque[Ticket] = deque()  # while no replica takes requests
        self._sent: deque[Ticket] = deque()  # by arrival, so by deadline
        self._open = 0
        self._due: list[tuple[float, int, int, FleetRank]] = []
        self._serial = 0
        self._blocks = config.pools[0].config.block_size

    def run(
        self,
        calls: Iterable[Arrival],
        *,
        horizon_s: float = 0.0,
        begin_s: float = 0.0,
        begin_with: Sequence[int] | None = None,
    ) -> FleetLog:
        """All arrivals to their end, and the fleet on to the horizon.

        Args:
            calls: in order of time; block hashes by the first pool's block size.
            horizon_s: the rent runs at least so long.
            begin_s: when the fleet begins.
            begin_with: ready replicas of each pool then, without spare ones; the fewest allowed if None.
        """
        log, agenda = self.log, self._agenda
        log.horizon_s = log.end_s = horizon_s
        self.scaling.begin(begin_s, begin_with)
        due = iter(calls)
        following = next(due, None)
        while not log.abandoned:
            at = math.inf if following is None else following.at_s
            now = min(at, agenda.next_s, self._deadline())
            self._advance(now)
            if following is None and not self._open and now > horizon_s:
                break
            agenda.run(now)
            self._time_out(now)
            if following is not None and at == now:
                self._arrive(following, now)
                following = next(due, None)
        log.preemptions += sum(int(r.engine_sum(lambda e: e.preemptions)) for r in log.replicas)
        return log

    # ------------------------------------------------------------------ requests

    def _arrive(self, call: Arrival, now: float) -> None:
        ticket = Ticket(call)
        self._open += 1
        request = call.request
        if all(
            pool.config.refusal(request.prompt_tokens, request.output_tokens) for pool in self.config.pools
        ):
            self._settle(ticket, now, BAD_REQUEST)
            return
        limit = self.config.max_outstanding
        ready = self.lives.ready
        if limit is not None and ready and all(replica.outstanding >= limit for replica in ready):
            self._settle(ticket, now, SHED)
            return
        self._sent.append(ticket)
        self._dispatch(ticket, now, first=True)

    def _dispatch(self, ticket: Ticket, now: float, *, first: bool = False) -> None:
        """To a replica, or into the gateway's queue while there is none."""
        call = ticket.call
        request = call.request
        ready: Sequence[Replica] = self.lives.ready
        if len(self.config.pools) > 1:
            ready = [r for r in ready if not _refused(r.pool, request)]
        if not ready:
            self._queue.append(ticket)
            if first:
                self.scaling.note_arrival(None, now)
            return
        replica = self._router.choose(call, ready)
        if first:
            self.scaling.note_arrival(replica.pool_index, now)
        rank = min(replica.ranks, key=_engine_load)
        self._sync(rank, now)
        if rank.engine.idle:
            rank.clock_s = max(rank.clock_s, now)
        size = replica.pool.config.block_size
        if request.block_hashes and size != self._blocks:
            request = request._replace(block_hashes=_regrouped(request, self._blocks, size))
        sequence = rank.engine.submit(request, now)
        sequence.tag = ticket
        ticket.sequence, ticket.rank = sequence, rank
        rank.held[ticket] = None
        replica.outstanding += 1
        self._note(rank)

    def _flush_queue(self, replica: Replica, now: float) -> None:  # noqa: ARG002 - the callback's
        """A replica takes requests: those that wait go first."""
        waiting, self._queue = self._queue, deque()
        for ticket in waiting:
            if not ticket.settled:
                self._dispatch(ticket, now)

    def _lose_replica(self, replica: Replica, now: float) -> None:
        """What it held is sent again from the start, as often as allowed."""
        self._router.forget(replica)
        lost = [ticket for rank in replica.ranks for ticket in rank.held]
        for rank in replica.ranks:
            rank.held.clear()
            rank.version += 1
        replica.outstanding = 0
        for ticket in lost:
            ticket.rank, ticket.first_s = None, math.nan
            ticket.resent += 1
            if ticket.resent > self.config.retries:
                self._settle(ticket, now, LOST)
            else:
                self.log.resent += 1
                self._dispatch(ticket, now)

    def _deadline(self) -> float:
        while self._sent and self._sent[0].settled:
            self._sent.popleft()
        return self._sent[0].call.at_s + self.config.timeout_s if self._sent else math.inf

    def _time_out(self, now: float) -> None:
        while self._deadline() <= now:
            ticket = self._sent.popleft()
            rank = ticket.rank
            if rank is not None and ticket.sequence is not None:
                self._sync(rank, now)
                rank.engine.abort(ticket.sequence)
                self._release(ticket, rank, now)
                self._note(rank)
            self._settle(ticket, now, TIMED_OUT)

    def _settle(self, ticket: Ticket, now: float, outcome: int) -> None:
        log = self.log
        log.settle(ticket, now, outcome)
        self._open -= 1
        log.abandoned = log.missed > self._misses_allowed
        if self._on_progress is not None and len(log) % PROGRESS_EVERY == 0:
            self._on_progress(now, len(log))

    def _release(self, ticket: Ticket, rank: FleetRank, now: float) -> None:
        """It is no longer on the replica, which stops if it was the last it had to finish."""
        del rank.held[ticket]
        replica = rank.replica
        replica.outstanding -= 1
        if replica.state == "draining" and replica.outstanding == 0:
            self.lives.stop(replica, now)

    def _queued(self) -> int:
        return sum(not ticket.settled for ticket in self._queue)

    # ------------------------------------------------------------------ engines

    def _advance(self, now: float) -> None:
        """Let everything happen that becomes visible up to an instant; steps that begin there wait."""
        due, later = self._due, []
        while due and due[0][0] <= now:
            entry = heapq.heappop(due)
            _, _, version, rank = entry
            if version != rank.version:
                continue
            if rank.pending is not None:
                self._deliver(rank)
            elif rank.clock_s < now:
                self._step(rank, now)
            else:
                later.append(entry)
        for entry in later:
            heapq.heappush(due, entry)

    def _sync(self, rank: FleetRank, now: float) -> None:
        """Bring an engine to the present: its clock stands at the end of the step that is running."""
        while rank.pending is None and not rank.engine.idle and rank.clock_s < now:
            self._step(rank, now)

    def _step(self, rank: FleetRank, now: float) -> None:
        result = rank.engine.step(rank.clock_s, until=now, max_steps=LONGEST_STRETCH)
        rank.clock_s += result.duration_s
        rank.pending = result
        if rank.clock_s > now and (result.first_tokens or result.finished):
            self._push(rank, rank.clock_s)
        else:
            self._deliver(rank)

    def _deliver(self, rank: FleetRank) -> None:
        """What a step did becomes visible at its end."""
        result: StepResult | None = rank.pending
        rank.pending = None
        assert result is not None  # noqa: S101 - only called with one
        end = rank.clock_s
        for sequence in result.first_tokens:
            ticket = sequence.tag
            if ticket.sequence is sequence and math.isnan(ticket.first_s):
                ticket.first_s = end
        self._note(rank)
        for sequence in result.finished:
            ticket = sequence.tag
            if ticket.sequence is sequence and not ticket.settled:
                self._release(ticket, rank, end)
                self._settle(ticket, end, DONE)

    def _note(self, rank: FleetRank) -> None:
        """When to look at this engine next."""
        if rank.pending is None:
            if rank.engine.idle:
                rank.version += 1
            else:
                alone = len(self.lives.ready) == len(rank.replica.ranks) == 1
                self._push(rank, rank.clock_s + (0.0 if alone else rank.engine.quiet_s()))

    def _push(self, rank: FleetRank, at_s: float) -> None:
        rank.version += 1
        self._serial += 1
        heapq.heappush(self._due, (at_s, self._serial, rank.version, rank))


def _engine_load(rank: FleetRank) -> int:
    return rank.engine.load


def _refused(pool: Pool, request: Request) -> bool:
    return pool.config.refusal(request.prompt_tokens, request.output_tokens) is not None


def _regrouped(request: Request, size: int, other: int) -> tuple[int, ...]:
    """Block hashes for another block size: each block by the given one in which it ends.

    That names up to ``size - 1`` tokens more than the block has; equal still means equal.
    """
    hashes = request.block_hashes
    pieces = ((index * other - 1) // size for index in range(1, len(hashes) * size // other + 1))
    return tuple(hashes[piece] for piece in pieces)

"""One replica of a fleet: its engines, what is on them, and where it is in its life."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from qwenhost.simulate.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.plan import StepShape
    from qwenhost.simulate.engine import Sequence, StepResult
    from qwenhost.simulate.fleet_config import Pool
    from qwenhost.simulate.load import Arrival

State = Literal["starting", "ready", "draining", "stopped"]


class Ticket:
    """A request on its way: first sent, on which engine, how often sent again."""

    __slots__ = ("call", "first_s", "rank", "resent", "sequence", "settled", "tokens_seen")

    def __init__(self, call: Arrival) -> None:
        self.call = call
        self.first_s = math.nan
        self.rank: FleetRank | None = None
        self.sequence: Sequence | None = None
        self.resent = 0
        self.settled = False
        self.tokens_seen = False


class FleetRank:
    """One data-parallel rank with a clock of its own."""

    __slots__ = ("clock_s", "engine", "held", "pending", "replica", "version")

    def __init__(self, engine: Engine, replica: Replica) -> None:
        self.engine = engine
        self.replica = replica
        self.clock_s = 0.0
        self.pending: StepResult | None = None
        """A step computed past the present, whose outcome nobody has seen."""
        self.held: dict[Ticket, None] = {}
        self.version = 0
        """Raised whenever what was noted about it no longer holds."""


class Replica:
    """A place that requests can be sent to."""

    __slots__ = (
        "generation", "last_turn", "number", "outstanding", "pool", "pool_index", "ranks", "ready_s",
        "ready_spans", "started_s", "state", "stopped_s",
    )  # fmt: skip

    def __init__(self, number: int, pool_index: int, pool: Pool, started_s: float) -> None:
        self.number, self.pool_index, self.pool = number, pool_index, pool
        self.started_s = started_s
        self.stopped_s = math.inf
        self.ready_s = math.nan
        self.ready_spans: list[tuple[float, float]] = []
        self.state: State = "starting"
        self.ranks: list[FleetRank] = []
        self.outstanding = 0
        self.last_turn = 0
        self.generation = 0
        """Lives begun: an event noted for an earlier one is void."""

    @property
    def takes_requests(self) -> bool:
        """Whether a router may choose it."""
        return self.state == "ready"

    @property
    def counts(self) -> bool:
        """Whether it is one of the replicas wanted, as Kubernetes counts them: starting or ready."""
        return self.state in ("starting", "ready")

    def boot(self, step_time: Callable[[StepShape], float], seed: int, now: float) -> None:
        """Take requests from now on, with empty caches."""
        config = self.pool.config
        self.ranks = [
            FleetRank(Engine(config, step_time, seed + index), self)
            for index in range(config.data_parallel_size)
        ]
        for rank in self.ranks:
            rank.clock_s = now
        self.state, self.ready_s = "ready", now

    def leave_ready(self, now: float) -> None:
        """Note the time in which it took requests."""
        if self.state == "ready":
            self.ready_spans.append((self.ready_s, now))

    def engine_sum(self, measure: Callable[[Engine], float]) -> float:
        """Something summed over the ranks."""
        return sum(measure(rank.engine) for rank in self.ranks)

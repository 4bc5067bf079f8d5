"""A fleet as values: pools of equal replicas, how they start, scale and fail, and the hours they keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from qwenhost.facts import Value
from qwenhost.simulate.config import EngineConfig

Routing = Literal["round-robin", "least-load", "prefix-aware", "session-sticky"]
Metric = Literal["in-flight", "waiting", "running", "kv", "rate"]
DAY_S = 86_400.0
WEEK_S = 7 * DAY_S


class Range(Value, frozen=True, kw_only=True):
    """Fewest and most replicas."""

    low: int
    high: int


class Hours(Value, frozen=True, kw_only=True):
    """A range that holds between two times of day on some weekdays; time 0 is Monday 00:00."""

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    from_s: float
    to_s: float
    """Below ``from_s`` it ends on the next day."""
    replicas: Range

    def hold_at(self, at_s: float) -> bool:
        """Whether they hold at an instant."""
        day, second = divmod(at_s % WEEK_S, DAY_S)
        if self.from_s <= self.to_s:
            return day in self.days and self.from_s <= second < self.to_s
        began_today = day in self.days and second >= self.from_s
        return began_today or ((day - 1) % 7 in self.days and second < self.to_s)


class StartUp(Value, frozen=True, kw_only=True):
    """Seconds from the order to the first request, by phase."""

    cold: Mapping[str, float]
    """On a machine that has never run it."""
    warm: Mapping[str, float]
    """On the machine it ran on: weights in the page cache, compiled code on disk."""

    @property
    def cold_s(self) -> float:
        """All phases."""
        return sum(self.cold.values())

    @property
    def warm_s(self) -> float:
        """All phases."""
        return sum(self.warm.values())


class Trigger(Value, frozen=True, kw_only=True):
    """A metric and the value per replica to hold it at (an external metric's AverageValue)."""

    metric: Metric
    target: float


class Policy(Value, frozen=True, kw_only=True):
    """HPAScalingPolicy: how much may change within a period."""

    kind: Literal["pods", "percent"]
    value: int
    period_s: float


class ScalingRules(Value, frozen=True, kw_only=True):
    """HPAScalingRules of one direction; several policies allow the largest change (``Max``)."""

    window_s: float
    """stabilizationWindowSeconds."""
    policies: tuple[Policy, ...]


# Kubernetes pkg/apis/autoscaling/v2/defaults.go.
SCALE_UP = ScalingRules(
    window_s=0,
    policies=(
        Policy(kind="pods", value=4, period_s=15),
        Policy(kind="percent", value=100, period_s=15),
    ),
)
SCALE_DOWN = ScalingRules(window_s=300, policies=(Policy(kind="percent", value=100, period_s=15),))


class Autoscale(Value, frozen=True, kw_only=True):
    """KEDA's ScaledObject and the HPA it makes, with their defaults."""

    triggers: tuple[Trigger, ...]
    polling_interval_s: float = 30.0
    """KEDA asks whether it is needed at all: from 0 up, and down to 0."""
    cooldown_s: float = 300.0
    """KEDA's cooldownPeriod: idle for so long before 0."""
    sync_s: float = 15.0
    """The HPA's horizontal-pod-autoscaler-sync-period."""
    tolerance: float = 0.1
    up: ScalingRules = SCALE_UP
    down: ScalingRules = SCALE_DOWN


class Spot(Value, frozen=True, kw_only=True):
    """Capacity that can be withdrawn."""

    interruptions_per_day: float
    """Of one replica, exponential."""
    notice_s: float = 120.0


class Failures(Value, frozen=True, kw_only=True):
    """Crashes and broken machines."""

    mtbf_s: float
    """Mean time between failures of one replica, exponential."""
    repair_s: float = 0.0
    """Before the warm start begins."""


class Pool(Value, frozen=True, kw_only=True):
    """Equal replicas of one plan."""

    name: str
    config: EngineConfig
    replicas: Range
    start: StartUp
    gpus_per_replica: int = 1
    usd_per_hour: float | None = None
    """Of one replica; None where no price is known."""
    weight: float = 1.0
    """What a replica carries compared with those of other pools, e.g. its planned requests per second."""
    autoscale: Autoscale | None = None
    """None keeps the low end of the range."""
    spare: int = 0
    """Replicas above what is needed, so that one may fail (N+1)."""
    schedule: tuple[Hours, ...] = ()
    """The last that holds wins over ``replicas``."""
    failures: Failures | None = None
    spot: Spot | None = None

    def range_at(self, at_s: float) -> Range:
        """Fewest and most replicas at an instant, the spare ones not counted."""
        return next((row.replicas for row in reversed(self.schedule) if row.hold_at(at_s)), self.replicas)


class FleetConfig(Value, frozen=True, kw_only=True):
    """Pools behind one router."""

    pools: tuple[Pool, ...]
    routing: Routing = "least-load"
    timeout_s: float = 600.0
    """From the first sending to the last token; then the client gives up."""
    retries: int = 3
    """Sendings after a replica was lost with a request on it."""
    max_outstanding: int | None = None
    """Requests on one replica above which the router answers 429; None = no limit."""
    drain_s: float = 300.0
    """A replica that is to go may finish its requests for so long (terminationGracePeriodSeconds)."""

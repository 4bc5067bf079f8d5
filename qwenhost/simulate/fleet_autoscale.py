"""When KEDA and the HorizontalPodAutoscaler change the number of replicas.

KEDA decides between none and some, every ``pollingInterval``; between one and many it makes an HPA, which
reads the triggers as external metrics of type AverageValue every sync period. Read in:

* Kubernetes ``pkg/controller/podautoscaler/replica_calculator.go`` (``GetExternalPerPodMetricReplicas``) and
  ``horizontal.go`` (``stabilizeRecommendationWithBehaviors``, ``convertDesiredReplicasWithBehaviorRate``,
  ``recordInitialRecommendation``, ``calculateScaleUpLimitWithScalingRules``,
  ``calculateScaleDownLimitWithBehaviors``);
* KEDA ``pkg/scaling/executor/scale_scaledobjects.go`` (``RequestScale``, ``scaleToZero``, ``scaleFromZero``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.simulate.fleet_config import Autoscale, Range, ScalingRules


class Autoscaler:
    """The state of one ScaledObject."""

    def __init__(self, rules: Autoscale) -> None:
        self.rules = rules
        self._recommendations: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []
        self._active_s: float | None = None

    def sync(self, now: float, totals: Mapping[str, float], current: int, bounds: Range) -> int:
        """The HPA's turn.

        Args:
            now: seconds.
            totals: each metric summed over the replicas.
            current: replicas wanted so far, starting ones included.
            bounds: fewest and most; KEDA makes an HPA with at least one.

        Returns:
            Replicas wanted now. An HPA leaves a target of none alone.
        """
        low, high = max(1, bounds.low), max(1, bounds.high)
        if current == 0:
            return 0
        if current > high or current < low:
            wanted = min(max(current, low), high)
        else:
            wanted = self._within_rates(now, self._stabilised(now, self._desired(totals, current), current),
                                        current, low, high)  # fmt: skip
        self._note(now, wanted - current)
        return wanted

    def poll(self, now: float, *, active: bool, current: int, bounds: Range) -> int:
        """KEDA's turn: from none to some when a trigger is active, to none after the cooldown."""
        if active:
            self._active_s = now
        if current == 0:
            return min(max(1, bounds.low), bounds.high) if active else bounds.low
        if not active and bounds.low == 0 and self._cooled(now):
            return 0
        return current

    def _cooled(self, now: float) -> bool:
        return self._active_s is None or self._active_s + self.rules.cooldown_s < now

    def _desired(self, totals: Mapping[str, float], current: int) -> int:
        """The largest of the triggers' wishes.

        ceil(total / target), unless total / (target * replicas) is within the tolerance of 1. Replicas that
        are still starting count.
        """
        wishes = []
        for trigger in self.rules.triggers:
            total = totals[trigger.metric]
            ratio = total / (trigger.target * current)
            near = abs(1 - ratio) <= self.rules.tolerance
            wishes.append(current if near else math.ceil(total / trigger.target))
        return max(wishes)

    def _stabilised(self, now: float, desired: int, current: int) -> int:
        """Up no further than the least, down no further than the most recommended within the windows."""
        up_since, down_since = now - self.rules.up.window_s, now - self.rules.down.window_s
        # recordInitialRecommendation: a new HPA does not shrink at first sight.
        seen = self._recommendations or [(now, current)]
        up = min([desired, *(n for at, n in seen if at > up_since)])
        down = max([desired, *(n for at, n in seen if at > down_since)])
        oldest = min(up_since, down_since)
        self._recommendations = [(at, n) for at, n in seen if at > oldest] + [(now, desired)]
        return min(max(current, up), down)

    def _within_rates(self, now: float, wanted: int, current: int, low: int, high: int) -> int:
        if wanted > current:
            limit = max(current, *self._allowed(now, current, self.rules.up, sign=1))
            return min(wanted, high, limit)
        if wanted < current:
            limit = min(current, *self._allowed(now, current, self.rules.down, sign=-1))
            return max(wanted, low, limit)
        return current

    def _allowed(self, now: float, current: int, rules: ScalingRules, *, sign: int) -> list[int]:
        """What each policy lets the number become, counted from the start of its period."""
        allowed = []
        for policy in rules.policies:
            since = now - policy.period_s
            start = current - sum(change for at, change in self._changes if at > since)
            if policy.kind == "pods":
                allowed.append(start + sign * policy.value)
            else:
                share = start * (1 + sign * policy.value / 100)
                allowed.append(math.ceil(share) if sign > 0 else int(share))
        return allowed or [current]

    def _note(self, now: float, change: int) -> None:
        if change:
            longest = max([p.period_s for p in (*self.rules.up.policies, *self.rules.down.policies)] or [0.0])
            self._changes = [(at, n) for at, n in self._changes if at > now - longest] + [(now, change)]

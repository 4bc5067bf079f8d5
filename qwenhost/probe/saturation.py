"""The decisions of a saturation search, without any I/O: is a point good enough, and which one is next."""

from __future__ import annotations

import math
from typing import Final, Literal

from qwenhost.facts import Value

Verdict = Literal["meets", "misses", "undecided"]

LOOKS: Final = 4
"""At most so many runs at a point, each twice as long as the one before."""
_MARGIN: Final = 1.2
_FEWEST: Final = 20
_HALVINGS: Final = 6


def tail_below(good: int, total: int, share: float) -> float:
    """P(X <= good) of a binomial X with ``total`` tries and probability ``share`` between 0 and 1."""
    if good >= total:
        return 1.0
    log_p, log_q, log_n = math.log(share), math.log1p(-share), math.lgamma(total + 1)
    return math.fsum(
        math.exp(log_n - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * log_p + (total - k) * log_q)
        for k in range(good + 1)
    )


def exact_interval(good: int, total: int, risk: float) -> tuple[float, float]:
    """One-sided bounds of a share, each wrong with probability ``risk`` at most (Clopper, Pearson 1934).

    It treats requests as independent. Those of one run share its queue, so it is somewhat too narrow;
    the looks at a point are separate runs.
    """
    low = 0.0 if good == 0 else 1 - _highest(total - good, total, risk)
    high = 1.0 if good == total else _highest(good, total, risk)
    return low, high


def _highest(good: int, total: int, risk: float) -> float:
    """The share at which seeing so few or fewer becomes as rare as ``risk``."""
    if good == total:
        return 1.0
    low, high = good / total, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if tail_below(good, total, middle) > risk else (low, middle)
    return high


class Rule(Value, frozen=True, kw_only=True):
    """What must be shown, and how surely."""

    required: float
    """Share of requests that must keep the SLO, below 1."""
    confidence: float = 0.95
    """That a point said to meet (or miss) does so, over all looks at it."""

    @property
    def risk(self) -> float:
        """Of one verdict, shared out over the looks: looking again must not make luck likelier."""
        return (1 - self.confidence) / LOOKS

    @property
    def first_look(self) -> int:
        """Requests of which all must keep the SLO to show it at once, and a fifth more.

        n out of n are as rare as the risk from required^n = risk.
        """
        return max(_FEWEST, math.ceil(_MARGIN * math.log(self.risk) / math.log(self.required)))

    def interval(self, good: int, total: int) -> tuple[float, float]:
        """Of the share that keeps the SLO; (0, 1) where nothing was seen."""
        return exact_interval(good, total, self.risk)

    def verdict(self, good: int, total: int) -> Verdict:
        """``undecided`` while what was seen is not rare enough on either side of the required share."""
        if total and tail_below(total - good, total, 1 - self.required) <= self.risk:
            return "meets"
        return "misses" if tail_below(good, total, self.required) <= self.risk else "undecided"


class Search(Value, frozen=True, kw_only=True):
    """Doubling, then bisection, for the highest load that meets; meeting is taken to end only once."""

    start: float
    whole: bool
    """Concurrencies are whole numbers, rates are not."""
    tolerance: float = 0.05
    """Stop when the lowest load not shown to meet is at most this much above the highest that does."""
    most: float = math.inf
    low: float | None = None
    """Highest shown to meet."""
    high: float | None = None
    """Lowest not shown to meet."""

    def told(self, at: float, *, meets: bool) -> Search:
        """The search after a verdict."""
        return Search(
            start=self.start, whole=self.whole, tolerance=self.tolerance, most=self.most,
            low=at if meets else self.low, high=self.high if meets else at,
        )  # fmt: skip

    def lowered(self, low: float | None) -> Search:
        """The search after its highest load was found not to hold: back to a lower one that met, if any."""
        return Search(
            start=self.start, whole=self.whole, tolerance=self.tolerance, most=self.most, low=low,
            high=self.low,
        )  # fmt: skip

    @property
    def next(self) -> float | None:
        """Where to look; None when there is nothing left to find out."""
        if self.low is None and self.high is None:
            return self.start
        if self.low is None:
            return self._lower()
        if self.high is None:
            return min(self.low * 2, self.most) if self.low < self.most else None
        return self._between(self.low, self.high)

    @property
    def closed(self) -> bool:
        """Whether both sides are known and close enough."""
        return self.low is not None and self.high is not None and self.next is None

    def _lower(self) -> float | None:
        assert self.high is not None  # noqa: S101 - the caller looked
        if self.whole:
            return float(self.high // 2) if self.high > 1 else None
        return self.high / 2 if self.high > self.start / 2**_HALVINGS else None

    def _between(self, low: float, high: float) -> float | None:
        if high / low <= 1 + self.tolerance:
            return None
        middle = math.sqrt(low * high)  # Load and latency are compared in ratios.
        if not self.whole:
            return middle
        return None if high - low <= 1 else min(max(float(round(middle)), low + 1), high - 1)

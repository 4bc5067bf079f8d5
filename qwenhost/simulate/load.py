"""What arrives and when: sizes drawn from a workload's statistics, arrivals by law, or a recorded trace."""

from __future__ import annotations

import math
import random
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from qwenhost.simulate.engine import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.facts import TokenStats, Workload
    from qwenhost.simulate.config import EngineConfig

# Standard normal quantiles of the percentiles the profiles give.
Z = {"p50": 0.0, "p90": 1.2816, "p99": 2.3263}


class Arrival(NamedTuple):
    """A request and the instant it is sent."""

    at_s: float
    request: Request
    session: str | None = None
    """Whose conversation it belongs to, where that is known."""


class Sizes:
    """Token counts drawn from a lognormal with the given mean; constant where only the mean is known.

    The spread is the one that misses the given percentiles least (squared error of their logarithms),
    since mean, p50, p90 and p99 of real traffic rarely lie on one lognormal.
    """

    def __init__(self, stats: TokenStats) -> None:
        self.mean = stats.mean
        given = {name: getattr(stats, name) for name in Z if getattr(stats, name)}
        self.sigma = _spread(stats.mean, given) if given else 0.0

    def draw(self, rng: random.Random) -> int:
        """One size, at least 1."""
        if not self.sigma:
            return max(1, round(self.mean))
        return max(1, round(rng.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma)))


def _spread(mean: float, given: dict[str, float]) -> float:
    """Sigma in 0..4 by golden-section search."""

    def miss(sigma: float) -> float:
        middle = math.log(mean) - sigma**2 / 2
        return sum((middle + Z[name] * sigma - math.log(value)) ** 2 for name, value in given.items())

    low, high, ratio = 0.0, 4.0, (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if miss(left) < miss(right) else (left, high)
    return (low + high) / 2


def cached_share(workload: Workload) -> float:
    """Published share of prompt tokens found in a cache, by the shortest-lived cache that is known."""
    known = (workload.prefix_hit_5m, workload.prefix_hit_1h, workload.prefix_hit_unbounded)
    return next((share for share in known if share is not None), 0.0)


def drawn_requests(workload: Workload, config: EngineConfig, seed: int) -> Iterator[Request]:
    """Requests without end, sized like the workload and cut to the engine's context."""
    rng = random.Random(seed)  # noqa: S311 - a model's draws
    prompts, outputs = Sizes(workload.input_tokens), Sizes(workload.output_tokens)
    share = cached_share(workload) if config.enable_prefix_caching else 0.0
    while True:
        output = min(outputs.draw(rng), config.max_model_len - 1)
        prompt = min(prompts.draw(rng), config.max_model_len - output)
        yield Request(prompt, output, int(share * prompt))


def arrival_times(kind: str, rate: float, seed: int) -> Iterator[float]:
    """Instants in seconds, the first at zero.

    Args:
        kind: ``poisson`` (exponential gaps) or ``constant``.
        rate: requests per second.
        seed: of the gaps.
    """
    if kind == "constant":
        yield from (index / rate for index in count())
    rng = random.Random(seed + 1)  # noqa: S311 - a model's draws
    now = 0.0
    while True:
        yield now
        now += rng.expovariate(rate)


def assumptions(workload: Workload) -> tuple[str, ...]:
    """What drawing from statistics takes for granted, for people."""
    drawn = []
    for name, stats in (("prompt", workload.input_tokens), ("output", workload.output_tokens)):
        sigma = Sizes(stats).sigma
        law = f"lognormal, mean {stats.mean:g}, sigma {sigma:.2f}" if sigma else f"always {stats.mean:g}"
        drawn.append(f"{name} tokens: {law}, independent of each other, cut to the context")
    share = cached_share(workload)
    if share:
        drawn.append(
            f"{share:.1%} of each prompt is taken as cached, in whole blocks, where prefix caching is on"
        )
    return tuple(drawn)

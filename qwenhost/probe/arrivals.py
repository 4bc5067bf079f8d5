"""When requests are due, in seconds from the start of the run.

Pure functions of the law, its rate, a length (``n`` requests or ``duration_s``) and a seed. All are
schedules on the absolute clock: a late request never moves the ones after it.
"""

from __future__ import annotations

import math
import random
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Law = Literal["constant", "poisson", "gamma"]

RUSH = 2.0
"""How many times the rate is offered in a rush."""
SLOTS_PER_S = 2000
"""A closed loop opens its slots at this pace, so that a thousand first requests are not sent late."""


def schedule(
    law: Law,
    rate: float,
    *,
    n: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
    burstiness: float = 1.0,
    ramp_to: float | None = None,
) -> list[float]:
    """Due times of an open loop; the first request is due at 0.

    Args:
        law: ``constant`` gaps of exactly 1/rate; ``poisson`` exponential gaps; ``gamma`` gaps of shape
            ``burstiness`` (1 is Poisson, below 1 burstier), the meaning vLLM's benchmark gives it.
        rate: requests per second.
        n: stop after so many requests.
        duration_s: stop before this time. At least one of the two is needed; the earlier wins.
        seed: of the gaps.
        burstiness: shape of the gamma law.
        ramp_to: rate at the end of ``duration_s``, to which it goes in a straight line from ``rate``.

    Raises:
        ValueError: no length, a ramp without a duration, or a rate or burstiness that is not positive.
    """
    if rate <= 0 or burstiness <= 0:
        raise ValueError(f"rate {rate} and burstiness {burstiness} must be positive")
    if n is None and duration_s is None:
        raise ValueError("give n or duration_s")
    due: Iterator[float]
    if ramp_to is not None:
        if duration_s is None or ramp_to <= 0:
            raise ValueError(f"a ramp to {ramp_to} needs a duration and a positive rate")
        # A law of rate 1, its time stretched so that its n-th unit ends when the ramp has brought n requests.
        units = _law(law, 1.0, seed, burstiness)
        due = (_when_ramp_brought(unit, rate, ramp_to, duration_s) for unit in units)
    else:
        due = _law(law, rate, seed, burstiness)
    if duration_s is not None:
        end = duration_s
        due = takewhile(lambda t: t < end, due)
    return list(due if n is None else islice(due, n))


def after_rush(
    law: Law,
    rate: float,
    *,
    rush_s: float,
    n: int | None,
    duration_s: float | None,
    seed: int,
    burstiness: float,
) -> list[float]:
    """Due times at ``RUSH`` times the rate for ``rush_s`` seconds, then at the rate; all of them count.

    After the rush a server has more in hand than the rate alone would give it: one that keeps up works it
    off, one that does not never will. The arguments are those of :func:`schedule`.

    Raises:
        ValueError: as :func:`schedule`.
    """
    rush = schedule(law, RUSH * rate, n=n, duration_s=rush_s, seed=seed, burstiness=burstiness)
    rest = schedule(
        law, rate, n=None if n is None else n - len(rush), seed=seed + 1, burstiness=burstiness,
        duration_s=None if duration_s is None else max(0.0, duration_s - rush_s),
    )  # fmt: skip
    return [*rush, *(rush_s + at for at in rest)]


def _law(law: Law, rate: float, seed: int, burstiness: float) -> Iterator[float]:
    return _constant(rate) if law == "constant" else _running_sum(_gap(law, rate, seed, burstiness))


def _when_ramp_brought(requests: float, start: float, end: float, duration_s: float) -> float:
    """T with start * t + (end - start) / (2 * duration) * t^2 = requests; infinite where it never is."""
    bend = (end - start) / (2 * duration_s)
    if abs(bend) < 1e-12:
        return requests / start
    root = start**2 + 4 * bend * requests
    # The form that does not subtract nearly equal numbers.
    return math.inf if root < 0 else 2 * requests / (start + math.sqrt(root))


def closed_loop(concurrency: int, ramp_up_s: float = 0.0) -> list[float]:
    """Due times of the first request of each slot; every later one is due when its slot falls free.

    The slots open evenly over ``ramp_up_s``, and no faster than ``SLOTS_PER_S``.
    """
    gap = max(1 / SLOTS_PER_S, ramp_up_s / concurrency)
    return [slot * gap for slot in range(concurrency)]


def _constant(rate: float) -> Iterator[float]:
    """Multiples of 1/rate, not sums of it: rounding does not add up."""
    index = 0
    while True:
        yield index / rate
        index += 1


def _gap(law: Law, rate: float, seed: int, burstiness: float) -> Callable[[], float]:
    random_ = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    if law == "poisson":
        return lambda: random_.expovariate(rate)
    # Mean of a gamma distribution = shape * scale = 1 / rate.
    return lambda: random_.gammavariate(burstiness, 1 / (rate * burstiness))


def _running_sum(gap: Callable[[], float]) -> Iterator[float]:
    due = 0.0
    while True:
        yield due
        due += gap()

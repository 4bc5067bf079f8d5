"""What of a course is sent on schedule: which requests, when, and how many in all."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from qwenhost.probe.arrivals import after_rush, closed_loop, schedule

if TYPE_CHECKING:
    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.course import Course, Earlier


class Itinerary(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a run that is known beforehand."""

    due: Sequence[float]
    """Of an open loop's starts, or of the first request of each slot of a closed one."""
    starts: Iterator[int]
    """Requests that wait for no answer, in order."""
    limit: int | None
    """Requests still to be sent; None where time rules."""


def itinerary(config: ProbeConfig, course: Course, earlier: Earlier, seed: int) -> Itinerary:
    """Of a run, less what was done earlier."""
    starts = course.starts(earlier.done)
    if config.concurrency is not None:
        limit = _most_requests(config, course, earlier)
        left: Iterator[int] = (index for index in starts if index is not None)
        if limit is not None and course.starts_share < 1:
            whole = _enough(course, left, limit)
            limit, left = course.requests_in(whole), iter(whole)
            first = closed_loop(config.concurrency, config.ramp_up_s)[: len(whole)]
        else:
            first = closed_loop(config.concurrency, config.ramp_up_s)[:limit]
        opening = [earlier.until_s + at for at in first]
        return Itinerary(due=opening, starts=islice(left, limit), limit=limit)
    due = course.due_s
    if due is None:
        assert config.rate is not None  # noqa: S101 - checked in ProbeConfig.check
        due = _schedule(config, config.rate, course.starts_share, seed)
    # Sixteen bytes a request: a soak has millions.
    instants, indices = array("d"), array("q")
    for at, index in zip(due, starts, strict=False):
        if index is not None:
            instants.append(at)
            indices.append(index)
    # What an interruption left open is sent again at once, the rest at its old distance.
    shift = earlier.until_s - instants[0] if earlier.done and instants else 0.0
    return Itinerary(
        due=array("d", (at + shift for at in instants)),
        starts=iter(indices),
        limit=course.requests_in(indices),
    )


def _schedule(config: ProbeConfig, rate: float, share: float, seed: int) -> list[float]:
    """Of those requests, a share of all, that wait for no answer."""
    planned, law, burstiness = config.planned_requests, config.arrivals, config.burstiness
    n = None if planned is None else math.ceil(planned * share)
    if config.rush_s:
        return after_rush(
            law, rate * share, rush_s=config.rush_s, n=n, duration_s=config.planned_duration_s, seed=seed,
            burstiness=burstiness,
        )  # fmt: skip
    ramp_to = None if config.ramp_to is None else config.ramp_to * share
    return schedule(
        law, rate * share, ramp_to=ramp_to, n=n, duration_s=config.planned_duration_s, seed=seed,
        burstiness=burstiness,
    )  # fmt: skip


def _enough(course: Course, starts: Iterator[int], requests: int) -> list[int]:
    """Whole sessions that together make so many requests: cut ones would have shorter prompts."""
    taken: list[int] = []
    planned = 0
    for index in starts:
        if planned >= requests:
            break
        taken.append(index)
        planned += course.requests_in([index])
    return taken


def _most_requests(config: ProbeConfig, course: Course, earlier: Earlier) -> int | None:
    bounds = [bound for bound in (config.planned_requests, course.total) if bound is not None]
    return max(0, min(bounds) - len(earlier.done)) if bounds else None

"""Demand over days: a rate that follows the hours, and conversations whose prompts grow."""

from __future__ import annotations

import heapq
import math
import random
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.facts import TokenStats, Value
from qwenhost.measurements import percentile
from qwenhost.simulate.engine import Request
from qwenhost.simulate.fleet_config import DAY_S
from qwenhost.simulate.load import Arrival, Sizes, drawn_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qwenhost.facts import Workload
    from qwenhost.simulate.config import EngineConfig

WEEKEND: Final = (5, 6)
BLOCK_BITS: Final = 24
"""A block's identity: session << 24 | number of the block, for 16 million blocks a session."""


class Demand(Value, frozen=True, kw_only=True):
    """Requests per second over the week; time 0 is Monday 00:00.

    A raised cosine about the peak hour, as steep or flat as the mean over the peak asks for:
    ``peak * (1 - a + a * (1 + cos x) / 2)`` from a mean of half the peak up, ``peak * ((1 + cos x) / 2)^k``
    below it. Real days differ from any cosine; a trace is better where there is one.
    """

    mean_rate: float
    """Requests per second, over a weekday."""
    mean_over_peak: float = 1.0
    """1 is flat."""
    peak_hour: float = 14.0
    weekend: float = 1.0
    """Of a weekday's demand."""

    @property
    def peak_rate(self) -> float:
        """Requests per second at the busiest moment."""
        return self.mean_rate / self.mean_over_peak

    def rate_at(self, at_s: float) -> float:
        """Requests per second at an instant."""
        day, second = divmod(at_s, DAY_S)
        wave = (1 + math.cos(2 * math.pi * (second / 3600 - self.peak_hour) / 24)) / 2
        if self.mean_over_peak >= 0.5:  # mean of the wave is a half
            depth = 2 * (1 - self.mean_over_peak)
            shape = 1 - depth + depth * wave
        else:
            shape = wave ** _steepness(self.mean_over_peak)
        return self.peak_rate * shape * (self.weekend if day % 7 in WEEKEND else 1.0)

    def times(self, duration_s: float, seed: int, *, since_s: float = 0.0) -> Iterator[float]:
        """Arrivals of a Poisson process of this rate from ``since_s`` up, by thinning one of the peak's."""
        stream = f"{seed} arrivals" + (f" {since_s}" if since_s else "")
        rng = random.Random(stream)  # noqa: S311 - a model's draws
        peak = self.peak_rate * max(1.0, self.weekend)
        now = since_s + rng.expovariate(peak)
        while now < duration_s:
            if rng.random() * peak < self.rate_at(now):
                yield now
            now += rng.expovariate(peak)

    def expected_requests(self, duration_s: float) -> float:
        """The rate's integral, in minutes."""
        minutes = max(1, round(duration_s / 60))
        step = duration_s / minutes
        return math.fsum(self.rate_at((index + 0.5) * step) for index in range(minutes)) * step


def _steepness(mean_over_peak: float) -> float:
    """Power at which the mean of ((1 + cos x) / 2)^k is this; it is Gamma(k + 1/2) / (sqrt(pi) Gamma(k + 1)).

    Raises:
        BadInputError: a peak so high that it is no longer a daily rhythm.
    """
    if mean_over_peak < 0.02:
        raise BadInputError(
            f"mean over peak {mean_over_peak:g}: the day would be one spike",
            remedy="Give at least 0.02, or replay a trace.",
        )
    low, high = 1.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = math.exp(math.lgamma(middle + 0.5) - math.lgamma(middle + 1)) / math.sqrt(math.pi)
        low, high = (middle, high) if mean > mean_over_peak else (low, middle)
    return low


def calls(
    workload: Workload, config: EngineConfig, demand: Demand, duration_s: float, seed: int
) -> Iterator[Arrival]:
    """A workload's requests over a time.

    Where it comes in sessions and the engine caches prefixes, whole conversations are drawn, so that what
    is found in a cache depends on where each request is sent. Elsewhere requests are drawn singly and the
    published share of each prompt is taken as found on any replica.
    """
    if comes_in_sessions(workload, config):
        yield from _conversations(workload, config, demand, duration_s, seed)
        return
    drawn = drawn_requests(workload, config, seed)
    for at in demand.times(duration_s, seed):
        yield Arrival(at, next(drawn))


def calls_between(  # noqa: PLR0917 - a load and two instants
    workload: Workload, config: EngineConfig, demand: Demand, since_s: float, until_s: float, seed: int
) -> Iterator[Arrival]:
    """A part of such a load: others of the same law where requests are drawn singly, else the very ones."""
    if comes_in_sessions(workload, config):
        yield from (one for one in calls(workload, config, demand, until_s, seed) if one.at_s >= since_s)
        return
    drawn = drawn_requests(workload, config, seed)
    for at in demand.times(until_s, seed, since_s=since_s):
        yield Arrival(at, next(drawn))


def comes_in_sessions(workload: Workload, config: EngineConfig) -> bool:
    """Whether conversations are drawn."""
    return (
        config.enable_prefix_caching and workload.requests_per_session > 1 and workload.gap_s_p50 is not None
    )


def seen_rate(times: Sequence[float], span_s: float) -> tuple[Callable[[float], float], float]:
    """Requests per second at an instant of a recorded load, and in its busiest stretch.

    Args:
        times: of the requests, from 0 up.
        span_s: the load's length. Past it an instant has the highest rate seen at that time of day.
    """
    width = max(60.0, span_s / 288)
    counts = [0] * (int(span_s // width) + 1)
    for at in times:
        counts[min(len(counts) - 1, int(at // width))] += 1
    # The last stretch is cut short by the end.
    lengths = [min(width, span_s - number * width) or width for number in range(len(counts))]
    rates = [count / max(length, width / 2) for count, length in zip(counts, lengths, strict=True)]

    def rate_at(at_s: float) -> float:
        if at_s < span_s:
            return rates[int(at_s // width)]
        same = (day * DAY_S + at_s % DAY_S for day in range(math.ceil(span_s / DAY_S)))
        return max((rates[int(at // width)] for at in same if at < span_s), default=0.0)

    return rate_at, max(counts) / min(width, span_s)


def sizes_of(arrivals: Sequence[Arrival], workload: Workload) -> Workload:
    """The workload with a recorded load's sizes, each request for itself, and the cache hits it states."""
    prompts = [float(one.request.prompt_tokens) for one in arrivals]
    cached = sum(one.request.assumed_cached_tokens for one in arrivals) / max(1.0, sum(prompts))
    return msgspec.structs.replace(
        workload, input_tokens=_stats(prompts),
        output_tokens=_stats([float(one.request.output_tokens) for one in arrivals]),
        prefix_hit_5m=cached, prefix_hit_1h=cached, prefix_hit_unbounded=cached, requests_per_session=1.0,
    )  # fmt: skip


def _stats(sizes: list[float]) -> TokenStats:
    found = sorted(sizes)
    if found[0] == found[-1]:
        return TokenStats(mean=found[0])
    p50, p90, p99 = (percentile(found, q) for q in (50, 90, 99))
    return TokenStats(mean=math.fsum(found) / len(found), p50=p50, p90=p90, p99=p99)


def demand_assumptions(workload: Workload, config: EngineConfig, demand: Demand) -> tuple[str, ...]:
    """What the drawn demand takes for granted, for people."""
    said = []
    if demand.mean_over_peak < 1:
        said.append(
            f"demand follows a raised cosine: mean {demand.mean_rate:g}, peak {demand.peak_rate:.3g} "
            f"requests/s at {demand.peak_hour:g} h, mean over peak {demand.mean_over_peak:g}"
        )
    if demand.weekend != 1:
        said.append(f"Saturday and Sunday have {demand.weekend:.0%} of a weekday's demand")
    if comes_in_sessions(workload, config):
        said.append(
            f"sessions of {workload.requests_per_session:g} requests on average (geometric), prompts growing "
            f"evenly within each, gaps lognormal with median {workload.gap_s_p50:g} s; nothing is shared "
            "between sessions"
        )
    return tuple(said)


def _conversations(
    workload: Workload, config: EngineConfig, demand: Demand, duration_s: float, seed: int
) -> Iterator[Arrival]:
    """Sessions begin by the demand's rate over their requests; each runs on by itself.

    The gap is from one request to the next, as trace studies count it.
    """
    rng = random.Random(f"{seed} sessions")  # noqa: S311 - a model's draws
    draw = _Conversation(workload, config)
    begun = Demand(
        mean_rate=demand.mean_rate / workload.requests_per_session, mean_over_peak=demand.mean_over_peak,
        peak_hour=demand.peak_hour, weekend=demand.weekend,
    )  # fmt: skip
    waiting: list[tuple[float, int, Iterator[tuple[float, Request]]]] = []
    for number, at in enumerate(begun.times(duration_s, seed)):
        yield from _until(waiting, at)
        heapq.heappush(waiting, (at, number, draw.turns(number, rng)))
    yield from _until(waiting, duration_s)


def _until(
    waiting: list[tuple[float, int, Iterator[tuple[float, Request]]]], end: float
) -> Iterator[Arrival]:
    while waiting and waiting[0][0] < end:
        at, number, turns = heapq.heappop(waiting)
        turn = next(turns, None)
        if turn is not None:
            gap, request = turn
            yield Arrival(at, request, str(number))
            heapq.heappush(waiting, (at + gap, number, turns))


class _Conversation:
    """Draws sessions of a workload."""

    def __init__(self, workload: Workload, config: EngineConfig) -> None:
        self._prompts, self._outputs = Sizes(workload.input_tokens), Sizes(workload.output_tokens)
        self._mean = workload.requests_per_session
        self._gap_s = workload.gap_s_p50 or 1.0
        p95 = workload.gap_s_p95
        self._sigma = math.log(p95 / self._gap_s) / 1.6449 if p95 and p95 > self._gap_s else 0.0
        self._config = config

    def turns(self, number: int, rng: random.Random) -> Iterator[tuple[float, Request]]:
        """(gap to the next, request) of one session; its mean prompt is drawn like the workload's."""
        config, own = self._config, random.Random(rng.random())  # noqa: S311 - a model's draws
        count = 1 + int(math.log(1 - own.random()) / math.log(1 - 1 / self._mean))
        mean = self._prompts.draw(own)
        before = 0
        for turn in range(1, count + 1):
            output = min(self._outputs.draw(own), config.max_model_len // 2)
            grown = max(before + 1, round(mean * 2 * turn / (count + 1)))
            prompt = min(grown, config.max_model_len - output)
            full = (prompt + output - 1) // config.block_size
            base = number << BLOCK_BITS
            yield (
                own.lognormvariate(math.log(self._gap_s), self._sigma),
                Request(prompt, output, 0, tuple(range(base, base + full))),
            )
            before = min(prompt + output, config.max_model_len - 2)

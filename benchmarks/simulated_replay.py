"""The same arrivals on the simulated engine, and how far apart two runs are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tiny_vllm import Sample

from qwenhost.simulate.engine import Engine, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.plan import StepShape
    from qwenhost.simulate.config import EngineConfig

Arrival = tuple[float, list[int], int]
"""Instant sent, prompt's tokens, tokens to answer."""


class Replay(NamedTuple):
    """What was seen of a run; requests in the order of arrival."""

    first_s: list[float]
    last_s: list[float]
    instants: list[Sample]
    preemptions: int
    prefix_hits: int
    prefix_queries: int


def replay(
    config: EngineConfig,
    step_time: Callable[[StepShape], float],
    arrivals: Sequence[Arrival],
    *,
    outside_s: float,
    pace: Sequence[Sample] = (),
) -> Replay:
    """Run the arrivals in virtual time.

    Args:
        config: of the engine.
        step_time: seconds of a step.
        arrivals: in any order.
        outside_s: between sending a request and the engine's knowing of it, and back; half each way.
        pace: readings of a real run. Then the n-th step with output ends when the real run's n-th did, which
            leaves the scheduler's decisions and takes the machine's speed out of the comparison.
    """
    engine = Engine(config, step_time, seed=0)
    order = sorted(range(len(arrivals)), key=lambda index: arrivals[index][0])[::-1]
    first, last = [0.0] * len(arrivals), [0.0] * len(arrivals)
    index_of: dict[int, int] = {}
    samples: list[Sample] = []
    now, counted = 0.0, 0
    steps = [sample.steps - pace[0].steps for sample in pace]
    ends_s = [sample.at_s for sample in pace]
    while order or not engine.idle:
        if engine.idle:
            now = max(now, arrivals[order[-1]][0] + outside_s / 2)
        while order and arrivals[order[-1]][0] + outside_s / 2 <= now:
            index = order.pop()
            _, prompt, output = arrivals[index]
            ends = range(config.block_size, len(prompt) + 1, config.block_size)
            hashes = tuple(hash(tuple(prompt[:end])) for end in ends)
            index_of[engine.submit(Request(len(prompt), output, 0, hashes), now).serial] = index
        result = engine.step(now)
        if pace and (result.first_tokens or result.decode_sequences):
            counted += 1
            now = max(now, float(np.interp(counted, steps, ends_s)))
        else:
            now += result.duration_s
        for sequence in result.first_tokens:
            index = index_of[sequence.serial]
            first[index] = first[index] or now + outside_s / 2
        for sequence in result.finished:
            last[index_of[sequence.serial]] = now + outside_s / 2
        samples.append(
            Sample(
                now,
                engine.num_running,
                engine.num_waiting,
                engine.pool.usage,
                engine.preemptions,
                engine.prefix_hits,
                engine.prefix_queries,
            )
        )
    return Replay(first, last, samples, engine.preemptions, engine.prefix_hits, engine.prefix_queries)


def compare(arrivals: Sequence[Arrival], real: Replay, simulated: Replay) -> dict[str, Any]:
    """Means over time of both, and relative errors of the latencies' percentiles."""
    end = max(*real.last_s, *simulated.last_s)
    grid = np.arange(0.0, end, 0.05)
    found: dict[str, Any] = {
        "requests": len(arrivals),
        "duration_s": [round(max(run.last_s), 2) for run in (real, simulated)],
        "preemptions": [real.preemptions, simulated.preemptions],
        "prefix_hits": [real.prefix_hits, simulated.prefix_hits],
        "prefix_queries": [real.prefix_queries, simulated.prefix_queries],
    }
    for name in ("running", "waiting", "kv_cache_usage"):
        ours, theirs = (_series(run.instants, name, grid) for run in (simulated, real))
        found[name] = [float(theirs.mean()), float(ours.mean())]
        found[f"{name}_max"] = [float(theirs.max()), float(ours.max())]
        found[f"{name}_mean_difference"] = float(abs(ours - theirs).mean())
    for name, values in _latencies(arrivals, real).items():
        others = _latencies(arrivals, simulated)[name]
        found[name] = {
            f"p{q}": float(np.percentile(others, q) / np.percentile(values, q) - 1) for q in (50, 90)
        }
        found[f"{name}_ms"] = [float(np.percentile(each, 50) * 1000) for each in (values, others)]
    return found


def _series(samples: list[Sample], name: str, grid: Any) -> Any:
    """A step function: what was last seen holds, and 0 before anything."""
    times = np.array([sample.at_s for sample in samples])
    values = np.array([0.0, *(getattr(sample, name) for sample in samples)])
    return values[np.searchsorted(times, grid, side="right")]


def _latencies(arrivals: Sequence[Arrival], run: Replay) -> dict[str, list[float]]:
    sent = [arrival[0] for arrival in arrivals]
    return {
        "ttft": [first - at for first, at in zip(run.first_s, sent, strict=True)],
        "e2e": [last - at for last, at in zip(run.last_s, sent, strict=True)],
        "tpot": [
            (last - first) / (arrival[2] - 1)
            for last, first, arrival in zip(run.last_s, run.first_s, arrivals, strict=True)
        ],
    }

"""Throughput and latency of continuous batching, estimated from step times.

Closed loop: of B requests in flight each is prefilled once and decoded to its end, sharing every step,
so one request takes cycle = steps * t_decode(B) + B * t_prefill, and B / cycle requests finish per second.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.plan import StepShape

if TYPE_CHECKING:
    from qwenhost.facts import Slo, Workload
    from qwenhost.plan import Bound
    from qwenhost.planner.performance import StepModel
    from qwenhost.planner.tally import StepCost

# Queueing near saturation has no steady state; beyond this share the wait is reported at this share.
MAX_UTILISATION: Final = 0.98


class Demand(NamedTuple):
    """A request's work as the engine sees it."""

    prompt_tokens: float
    """Whole prompt."""
    cached_tokens: float
    """Found in the prefix cache."""
    output_tokens: float

    @property
    def prefill_tokens(self) -> float:
        """Prompt tokens to compute; the last one always is."""
        return max(1.0, self.prompt_tokens - self.cached_tokens)

    @property
    def mean_context_tokens(self) -> float:
        """Context of a decoding request, on average over its life."""
        return self.prompt_tokens + self.output_tokens / 2


class Load(NamedTuple):
    """What one replica is asked to carry."""

    concurrency: float
    """Requests in flight at most."""
    batch_tokens: int
    """max_num_batched_tokens."""


class Service(NamedTuple):
    """What one replica delivers; seconds and requests."""

    requests_per_s: float
    ttft_s: float
    tpot_s: float
    concurrency: float
    bound: Bound
    ideal_fraction: float
    """Rate over the rate with ideal steps."""
    overloaded: bool = False
    """An open loop offered more than it can carry."""

    def strain(self, slo: Slo, demand: Demand, tail: float) -> float:
        """Largest latency over its limit, the first token's scaled by ``tail``; above 1 a limit is broken."""
        ttft_ms, tpot_ms = self.ttft_s * tail * 1000, self.tpot_s * 1000
        e2e_ms = ttft_ms + tpot_ms * max(0.0, demand.output_tokens - 1)
        limits = ((ttft_ms, slo.ttft_ms), (tpot_ms, slo.tpot_ms), (e2e_ms, slo.e2e_ms))
        return max((got / limit for got, limit in limits if limit), default=0.0)


def demand_of(workload: Workload, *, prefix_caching: bool, block_size: int) -> Demand:
    """The workload's mean request. Hits end at a block boundary: half a block is lost on average."""
    prompt = workload.input_tokens.mean
    share = prefix_hit(workload) if prefix_caching else 0.0
    cached = max(0.0, prompt * share - block_size / 2) if share else 0.0
    return Demand(prompt, cached, max(1.0, workload.output_tokens.mean))


def prefix_hit(workload: Workload) -> float:
    """The most cautious published hit rate; 0 where none is."""
    known = (workload.prefix_hit_5m, workload.prefix_hit_1h, workload.prefix_hit_unbounded)
    return next((rate for rate in known if rate is not None), 0.0)


def prompt_tail(workload: Workload) -> float:
    """Prompt length at the 90th percentile over the mean: what a limit on the first token must bear."""
    stats = workload.input_tokens
    return max(1.0, stats.p90 / stats.mean) if stats.p90 and stats.mean else 1.0


def closed_loop(model: StepModel, demand: Demand, load: Load) -> Service:
    """A replica with ``load.concurrency`` requests always in flight."""
    users = max(1.0, load.concurrency)
    steps = demand.output_tokens / model.tokens_per_step
    decoding = StepShape(
        decode_sequences=math.ceil(users),
        decode_context_tokens=round(users * demand.mean_context_tokens),
    )
    decode = model.cost(decoding)
    prefill, chunks = _prefill(model, demand, load, decoding, decode)
    prefill_s = chunks * prefill.seconds
    cycle_s = steps * decode.seconds + users * prefill_s
    rate = users / cycle_s
    ideal_cycle_s = steps * decode.ideal_s + users * chunks * prefill.ideal_s
    ttft_s = _first_token(rate, prefill_s, chunks, decode.seconds, users)
    tpot_s = max(0.0, cycle_s - ttft_s) / max(1.0, demand.output_tokens - 1)
    return Service(
        requests_per_s=rate,
        ttft_s=ttft_s,
        tpot_s=max(tpot_s, decode.seconds / model.tokens_per_step),
        concurrency=users,
        bound=prefill.bound if users * prefill_s > steps * decode.seconds else decode.bound,
        ideal_fraction=min(1.0, ideal_cycle_s / cycle_s),
    )


def open_loop(model: StepModel, demand: Demand, load: Load, rate: float) -> Service:
    """A replica offered ``rate`` requests per second; ``load.concurrency`` is its capacity."""
    most = closed_loop(model, demand, load)
    if most.requests_per_s <= rate:
        return most._replace(overloaded=True)
    low, high = 1.0, max(1.0, load.concurrency)
    for _ in range(12):
        middle = (low + high) / 2
        enough = closed_loop(model, demand, load._replace(concurrency=middle)).requests_per_s >= rate
        low, high = (low, middle) if enough else (middle, high)
    found = closed_loop(model, demand, load._replace(concurrency=high))
    in_flight = rate * high / found.requests_per_s
    return found._replace(requests_per_s=rate, concurrency=in_flight)


def _prefill(
    model: StepModel, demand: Demand, load: Load, decoding: StepShape, decode: StepCost
) -> tuple[StepCost, float]:
    """What a chunk of a prompt adds to a step that decodes anyway, and the chunks of a prompt."""
    tokens = demand.prefill_tokens
    chunk = min(tokens, max(1.0, load.batch_tokens - decoding.decode_sequences))
    # Attention grows linearly with the context before a chunk, so the mean context gives the mean time.
    before = demand.cached_tokens + (tokens - chunk) / 2
    mixed = StepShape(
        prefill_tokens=round(chunk),
        prefill_context_tokens=round(before),
        decode_sequences=decoding.decode_sequences,
        decode_context_tokens=decoding.decode_context_tokens,
    )
    return model.cost(mixed).minus(decode), tokens / chunk


def _first_token(rate: float, prefill_s: float, chunks: float, decode_s: float, users: float) -> float:
    """Own prefill in steps shared with decoding, half a step to get in, and the queue before it.

    The queue is that of one server with fixed service time at the prefill's share of all time, and
    never longer than all other users' prompts.
    """
    share = min(MAX_UTILISATION, rate * prefill_s)
    queue = min(share * prefill_s / (2 * (1 - share)), (users - 1) * prefill_s)
    to_get_in = 0.5 * decode_s * (1 - 1 / users)  # alone, no step is running
    return queue + to_get_in + prefill_s + math.ceil(chunks) * decode_s

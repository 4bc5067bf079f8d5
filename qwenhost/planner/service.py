"""Throughput and latency of continuous batching, estimated from step times.

A closed loop of n requests is a network of two stations, as in mean value analysis (Reiser and Lavenberg
1980). Prompts queue at one server, first come first served: a prompt occupies it for what its tokens add
to the steps they share. Decoding is a delay: D steps, each lengthened by the prompts that share it. With
P what a prompt adds, d a step that only decodes, T the time to the first token, and Z that from the first
to the last:

    Z = D d / (1 - P (n - 1) / (T + Z))        every other user's prompt passes once a cycle
    T = wait + queue(Z) + P + chunks d         own prompt, in steps that decode as well
    n / (T + Z) requests finish per second     Little's law
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

# vLLM schedules a step ahead of the one that runs (v1/engine/core.py, step_with_batch_queue, two batches):
# who comes while step m runs joins step m + 2. A user of a closed loop comes as a step begins, having just
# been answered; an open loop's comes half through one on average.
STEPS_TO_JOIN_AFTER_ANSWER: Final = 2.0
STEPS_TO_JOIN_AT_RANDOM: Final = 1.5
CLOSE_ENOUGH: Final = 1e-7
MOST_ROUNDS: Final = 40
# Where fewer than this share of the users decode at a time, step times are taken again at their number.
MOSTLY_DECODING: Final = 0.97


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


class Times(NamedTuple):
    """What the steps of one load take."""

    decode: StepCost
    """A step that only decodes."""
    chunk: StepCost
    """What a chunk of a prompt adds to it."""
    chunks: float
    """Chunks of a prompt, at least 1."""
    share_of_step: float
    """A prompt's tokens over those a step has room for."""

    @property
    def prompt_s(self) -> float:
        """What a whole prompt adds."""
        return self.chunks * self.chunk.seconds


class Cycle(NamedTuple):
    """One user's round, in seconds."""

    ttft_s: float
    decoding_s: float

    @property
    def seconds(self) -> float:
        """From sending a request to its last token."""
        return self.ttft_s + self.decoding_s


def closed_loop(
    model: StepModel, demand: Demand, load: Load, *, steps_to_join: float = STEPS_TO_JOIN_AFTER_ANSWER
) -> Service:
    """A replica with ``load.concurrency`` requests always in flight."""
    users = max(1.0, load.concurrency)
    steps = (demand.output_tokens - 1) / model.tokens_per_step
    decoding = users
    for _ in range(2):
        times = step_times(model, demand, load, decoding)
        cycle = _cycle(times, users, steps, steps_to_join)
        decoding = max(1.0, users * cycle.decoding_s / cycle.seconds)
        if decoding >= MOSTLY_DECODING * users:
            break
    decode, chunk = times.decode, times.chunk
    ideal_s = (steps + 1) * decode.ideal_s + users * times.chunks * chunk.ideal_s
    per_token_s = cycle.decoding_s / (demand.output_tokens - 1) if demand.output_tokens > 1 else 0.0
    return Service(
        requests_per_s=users / cycle.seconds,
        ttft_s=cycle.ttft_s,
        tpot_s=max(per_token_s, decode.seconds / model.tokens_per_step),
        concurrency=users,
        bound=chunk.bound if users * times.prompt_s > steps * decode.seconds else decode.bound,
        ideal_fraction=min(1.0, ideal_s / cycle.seconds),
    )


def open_loop(model: StepModel, demand: Demand, load: Load, rate: float) -> Service:
    """A replica offered ``rate`` requests per second at random; ``load.concurrency`` is its capacity.

    A request that comes at random finds the mean number in flight and adds itself (arrivals see time
    averages), so its latency is a closed loop's of one more: rate = (n - 1) / (T(n) + Z(n)).
    """

    def at(users: float) -> tuple[Service, float]:
        service = closed_loop(
            model, demand, load._replace(concurrency=users), steps_to_join=STEPS_TO_JOIN_AT_RANDOM
        )
        return service, service.requests_per_s * (users - 1) / users

    low, high = 1.0, max(1.0, load.concurrency)
    found, _ = at(high)
    if found.requests_per_s <= rate:
        return found._replace(overloaded=True)
    for _ in range(12):
        middle = math.sqrt(low * high)
        tried, carried = at(middle)
        if carried >= rate:
            high, found = middle, tried
        else:
            low = middle
    in_flight = rate * found.concurrency / found.requests_per_s
    return found._replace(requests_per_s=rate, concurrency=in_flight)


def step_times(model: StepModel, demand: Demand, load: Load, decoding: float) -> Times:
    """Step times where ``decoding`` requests decode at a time."""
    sequences = round(decoding)
    context = round(decoding * demand.mean_context_tokens)
    decode = model.cost(StepShape(decode_sequences=sequences, decode_context_tokens=context))
    tokens, room = demand.prefill_tokens, max(1.0, load.batch_tokens - sequences)
    chunk = min(tokens, room)
    # Attention grows linearly with the context before a chunk, so the mean context gives the mean time.
    mixed = StepShape(
        prefill_tokens=round(chunk),
        prefill_context_tokens=round(demand.cached_tokens + (tokens - chunk) / 2),
        decode_sequences=sequences,
        decode_context_tokens=context,
    )
    return Times(decode, model.cost(mixed).minus(decode), tokens / chunk, tokens / room)


def _cycle(times: Times, users: float, steps: float, steps_to_join: float) -> Cycle:
    """The one length of a cycle at which both stations agree; found between bounds by false position."""
    step_s, prompt_s = times.decode.seconds, times.prompt_s
    others = users - 1
    own_s = prompt_s + math.ceil(times.chunks) * step_s
    service_s = prompt_s + times.share_of_step * step_s
    join_s = steps_to_join * step_s * min(1.0, others)  # alone, no step is running

    def at(cycle_s: float) -> Cycle:
        decoding_s = steps * step_s / (1 - prompt_s * others / cycle_s)
        away_s = decoding_s + join_s + own_s - service_s
        return Cycle(join_s + own_s + _queue_s(users, service_s, away_s), decoding_s)

    alone_s = join_s + own_s + steps * step_s
    low, high = max(alone_s, prompt_s * others * (1 + CLOSE_ENOUGH)), 2 * (alone_s + users * service_s)
    # What a cycle of length x would take, less x, only falls with x: Illinois' variant.
    low_gap, high_gap = at(low).seconds - low, at(high).seconds - high
    if low_gap <= 0:
        return at(low)
    found, side = at(high), 0
    for _ in range(MOST_ROUNDS):
        middle = low + (high - low) * low_gap / (low_gap - high_gap)
        found = at(middle)
        gap = found.seconds - middle
        if abs(gap) <= CLOSE_ENOUGH * middle:
            break
        if gap > 0:
            low, low_gap = middle, gap
            high_gap, side = (high_gap / 2 if side == 1 else high_gap), 1
        else:
            high, high_gap = middle, gap
            low_gap, side = (low_gap / 2 if side == -1 else low_gap), -1
    return found


def _queue_s(users: float, service_s: float, away_s: float) -> float:
    """Wait at one server of fixed service time, for users who are ``away_s`` between two visits.

    Mean value analysis with Schweitzer's estimate of what an arriving user finds, (n - 1) / n of the mean,
    the one in service half done: R^2 + R (Z - n S) - S Z + S^2 (n - 1) / 2 = 0.
    """
    excess = users * service_s - away_s
    root = math.sqrt(max(0.0, excess**2 + 4 * service_s * away_s - 2 * service_s**2 * (users - 1)))
    return max(0.0, (excess + root) / 2 - service_s)

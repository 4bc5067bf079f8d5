"""How candidates are ranked, and the load at which each is judged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.planner.service import Demand, Load, Service, closed_loop, open_loop

if TYPE_CHECKING:
    from qwenhost.facts import Slo
    from qwenhost.plan import Objective
    from qwenhost.planner.performance import StepModel
    from qwenhost.planner.sizing import Sized

# Scores closer than this are one: the model cannot tell them apart, and the simpler layout is taken.
SAME: Final = 1.02
QUICKER: Final = 1.25
# The search for the best load ends this close to the service level, or after so many loads.
CLOSE_TO_LIMIT: Final = 0.97
MOST_LOADS_TRIED: Final = 6


class Judged(NamedTuple):
    """A sized combination with its service; rates are the whole node's."""

    sized: Sized
    service: Service
    demand: Demand
    replicas: int
    """Data-parallel replicas at work."""
    meets_slo: bool
    holds_long: bool
    """Whether the workload's longest 1 % fit the context, as far as the model's own context allows."""
    limited_by_cache: bool
    caution: float
    """Rate at the low end of draft acceptance over the expected one; 1 without drafts."""

    @property
    def requests_per_s(self) -> float:
        """Whole node."""
        return self.service.requests_per_s * self.replicas

    @property
    def concurrency(self) -> float:
        """Requests in flight, whole node."""
        return self.service.concurrency * self.replicas


class Question(NamedTuple):
    """The load that was asked for, whole node, and what is to be kept."""

    objective: Objective
    slo: Slo
    tail: float
    concurrency: int | None
    rate: float | None
    long_tokens: int
    """Prompt and answer at the 99th percentile, at most the model's context."""


def judge(sized: Sized, model: StepModel, demand: Demand, question: Question) -> Judged:
    """The service at the asked load; without one, at the best load that keeps the service level."""
    ranks = sized.option.layout.data_parallel_size
    room = sized.kv_cache.concurrency_at(math.ceil(demand.prompt_tokens + demand.output_tokens))
    capacity = max(1, min(sized.max_num_seqs, room))
    load = Load(capacity, sized.settings.max_num_batched_tokens)
    replicas = ranks
    if question.rate is not None:
        service = open_loop(model, demand, load, question.rate / ranks)
    elif question.concurrency is not None or question.objective == "latency":
        users = question.concurrency or 1
        replicas = min(ranks, users)
        service = _closed_with_queue(model, demand, load, users / replicas)
    else:
        service = _best_load(model, demand, load, question)
    return Judged(
        sized=sized,
        service=service,
        demand=demand,
        replicas=replicas,
        meets_slo=not service.overloaded and service.strain(question.slo, demand, question.tail) <= 1,
        holds_long=sized.max_model_len >= question.long_tokens,
        caution=model.tokens_per_step_low / model.tokens_per_step,
        limited_by_cache=room < sized.max_num_seqs and service.concurrency >= capacity,
    )


def rank(judged: list[Judged], objective: Objective) -> list[Judged]:
    """Best first: service level kept, long requests held, then the objective, then simplicity."""

    def key(one: Judged) -> tuple[object, ...]:
        return (not one.meets_slo, not one.holds_long, *_score(one, objective), *_simplicity(one))

    return sorted(judged, key=key)


def _score(one: Judged, objective: Objective) -> tuple[float, ...]:
    """Lower is better."""
    if objective == "latency":
        return (_bucket(_end_s(one)),)
    if objective == "context":
        at_full = one.sized.kv_cache.concurrency_at(one.sized.max_model_len)
        ranks = one.sized.option.layout.data_parallel_size
        return (-one.sized.max_model_len, -at_full * ranks, -_bucket(one.requests_per_s))
    # The whole node is rented either way, so the cheapest token is the fastest node's. Drafts must pay
    # even where few are accepted, since they give up prefix caching. Equal rates: the quicker answer.
    return (-_bucket(one.requests_per_s * one.caution), _bucket(_end_s(one), QUICKER))


def _end_s(one: Judged) -> float:
    return one.service.ttft_s + one.service.tpot_s * one.demand.output_tokens


def _bucket(value: float, same: float = SAME) -> float:
    return math.floor(math.log(max(value, 1e-12)) / math.log(same))


def _simplicity(one: Judged) -> tuple[object, ...]:
    option, layout = one.sized.option, one.sized.option.layout
    return (
        layout.pipeline_parallel_size,
        layout.data_parallel_size,
        layout.enable_expert_parallel,
        layout.tensor_parallel_size,
        option.num_speculative_tokens,
        not option.enable_prefix_caching,
        -one.requests_per_s,
        option.checkpoint,
    )


def _closed_with_queue(model: StepModel, demand: Demand, load: Load, users: float) -> Service:
    """More users than the engine holds wait in its queue."""
    capacity = load.concurrency
    service = closed_loop(model, demand, load._replace(concurrency=min(users, capacity)))
    if users <= capacity:
        return service
    waiting_s = (users - capacity) / service.requests_per_s
    return service._replace(ttft_s=service.ttft_s + waiting_s, concurrency=users)


def _best_load(model: StepModel, demand: Demand, load: Load, question: Question) -> Service:
    """The most requests in flight that keep the service level: throughput grows with them.

    Latency is nearly linear in them, so the limit is found by false position.
    """

    def at(users: float) -> tuple[Service, float]:
        service = closed_loop(model, demand, load._replace(concurrency=users))
        return service, service.strain(question.slo, demand, question.tail)

    high, low = load.concurrency, 1.0
    best, high_strain = at(high)
    if high_strain <= 1:
        return best
    best, low_strain = at(low)
    if low_strain > 1:
        return best
    for _ in range(MOST_LOADS_TRIED):
        guess = low + (high - low) * (1 - low_strain) / (high_strain - low_strain)
        users = math.floor(guess) if guess - low > 1 else low + (high - low) / 2
        found, strain = at(users)
        if strain <= 1:
            low, low_strain, best = users, strain, found
        else:
            high, high_strain = users, strain
        if CLOSE_TO_LIMIT <= strain <= 1 or high - low <= 1:
            break
    return best

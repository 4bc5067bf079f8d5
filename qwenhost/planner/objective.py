"""How candidates are ranked, and the load at which each is judged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.planner.service import Demand, Load, Service, closed_loop, open_loop

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    """Share of the expected rate a choice may count on: the low end of draft acceptance, and of the band of
    a layout that nobody is known to have run; 1 without either."""

    @property
    def requests_per_s(self) -> float:
        """Whole node."""
        return self.service.requests_per_s * self.replicas

    @property
    def concurrency(self) -> float:
        """Requests in flight, whole node."""
        return self.service.concurrency * self.replicas


_Aim = tuple[Callable[[Judged], float], float]  # more is better; factor within which two are equal


class Question(NamedTuple):
    """The load that was asked for, whole node, and what is to be kept."""

    objective: Objective
    slo: Slo
    tail: float
    concurrency: int | None
    rate: float | None
    long_tokens: int
    """Prompt and answer at the 99th percentile, at most the model's context."""


def judge(
    sized: Sized, model: StepModel, demand: Demand, question: Question, *, trust: float = 1.0
) -> Judged:
    """The service at the asked load; without one, at the best load that keeps the service level.

    ``trust`` is the share of the rate that may be counted on where the layout is untried.
    """
    ranks = sized.option.layout.serving_groups
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
        caution=trust * model.tokens_per_step_low / model.tokens_per_step,
        limited_by_cache=room < sized.max_num_seqs and service.concurrency >= capacity,
    )


def rank(judged: Iterable[Judged], objective: Objective) -> list[Judged]:
    """Best first: service level kept, long requests held, then the objective, then simplicity.

    What lies within ``SAME`` of the best that is left counts as equal to it.
    """
    aims = _AIMS[objective]
    first = sorted(judged, key=lambda one: (not one.meets_slo, not one.holds_long))
    kept = itertools.groupby(first, key=lambda one: (one.meets_slo, one.holds_long))
    return [one for _, group in kept for one in _by_aims(list(group), aims)]


def is_clearly_better(one: Judged, other: Judged, objective: Objective) -> bool:
    """Whether it would be ranked first for more than simplicity."""
    mine, theirs = ((x.meets_slo, x.holds_long) for x in (one, other))
    if mine != theirs:
        return mine > theirs
    for aim, same in _AIMS[objective]:
        a, b = aim(one), aim(other)
        if max(a, b) > same * min(a, b):
            return a > b
    return False


def _by_aims(judged: list[Judged], aims: Sequence[_Aim]) -> list[Judged]:
    if not aims:
        return sorted(judged, key=_simplicity)
    (aim, same), *rest = aims
    found: list[Judged] = []
    left = sorted(judged, key=aim, reverse=True)
    while left:
        least = aim(left[0]) / same
        count = next((i for i, one in enumerate(left) if aim(one) < least), len(left))
        found += _by_aims(left[:count], rest)
        left = left[count:]
    return found


def _quickness(one: Judged) -> float:
    """Of a whole answer; more is better."""
    return 1 / max(1e-9, one.service.ttft_s + one.service.tpot_s * one.demand.output_tokens)


def _dependable_rate(one: Judged) -> float:
    """Drafts must pay even where few are accepted, since they give up prefix caching."""
    return one.requests_per_s * one.caution


def _long_requests(one: Judged) -> float:
    """Requests of the whole context that the node holds at once."""
    return one.sized.kv_cache.concurrency_at(one.sized.max_model_len) * one.sized.option.layout.serving_groups


# The whole node is rented either way, so the cheapest token is the fastest node's. Equal rates: the
# quicker answer.
_FAST: Final[tuple[_Aim, ...]] = ((_dependable_rate, SAME), (_quickness, QUICKER))
_AIMS: Final[dict[Objective, tuple[_Aim, ...]]] = {
    "cost": _FAST,
    "throughput": _FAST,
    "latency": ((_quickness, SAME),),
    "context": ((lambda one: one.sized.max_model_len, 1.0), (_long_requests, SAME), (_dependable_rate, SAME)),
}


def _simplicity(one: Judged) -> tuple[object, ...]:
    option, layout = one.sized.option, one.sized.option.layout
    return (
        layout.pipeline_parallel_size,
        layout.replicas,
        layout.data_parallel_size,
        layout.decode_context_parallel_size,
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

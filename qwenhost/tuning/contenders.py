"""The candidates of a plan that its own bands cannot tell from the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.plan import Candidate, Plan


def contenders(
    plan: Plan,
    *,
    most: int,
    any_checkpoint: bool = False,
    allowed: Callable[[Candidate], bool] = lambda _: True,
) -> list[Candidate]:
    """The choice first, then those whose band reaches into its band, in the plan's order.

    Args:
        plan: what was decided, alternatives ranked.
        most: so many at most, the choice included.
        any_checkpoint: also other weights: trials measure speed, and other weights answer otherwise.
        allowed: what else an alternative must satisfy.
    """
    chosen = plan.chosen
    least = _worst(plan, chosen)
    found = [
        one
        for one in plan.alternatives
        if allowed(one)
        and _best(plan, one) >= least
        and one.parallelism.replicas == 1  # a service runs one engine
        and (one.estimate.meets_slo or not chosen.estimate.meets_slo)
        and (any_checkpoint or one.checkpoint.id == chosen.checkpoint.id)
    ]
    return [chosen, *found][:most]


def _best(plan: Plan, one: Candidate) -> float:
    """The aim at the good end of the band; more is better."""
    speed = one.estimate
    if plan.inputs.objective != "latency":
        return speed.output_tokens_per_s.high
    return 1 / _answer_ms(plan, speed.ttft_ms.low, speed.tpot_ms.low)


def _worst(plan: Plan, one: Candidate) -> float:
    speed = one.estimate
    if plan.inputs.objective != "latency":
        return speed.output_tokens_per_s.low
    return 1 / _answer_ms(plan, speed.ttft_ms.high, speed.tpot_ms.high)


def _answer_ms(plan: Plan, ttft_ms: float, tpot_ms: float) -> float:
    return max(1e-9, ttft_ms + tpot_ms * plan.inputs.workload_detail.output_tokens.mean)

"""The front of a plan's candidates: those that no other beats in everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from qwenhost.facts import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.plan import Candidate, Plan


class ParetoPoint(Value, frozen=True, kw_only=True):
    """One candidate by what is weighed against one another, each at its best load."""

    label: str
    usd_per_mtok_output: float | None
    """None where no price is known; the node's rate stands for it then."""
    output_tokens_per_s: float
    """Whole node."""
    output_tokens_per_s_per_gpu: float
    """Per GPU in use."""
    output_tokens_per_s_per_user: float
    max_model_len: int
    meets_slo: bool
    chosen: bool
    on_front: bool = True
    """False for a chosen one that another beats: the choice discounts drafts by a low acceptance and
    never takes a cache type the checkpoint is not calibrated for."""


def pareto_front(plan: Plan) -> list[ParetoPoint]:
    """Candidates not beaten at once in cost, rate per GPU, rate per user and context, fastest node first.

    The plan's choice is always listed.
    """
    points = [_point(one, chosen=one is plan.chosen) for one in (plan.chosen, *plan.alternatives)]
    judged = [msgspec.structs.replace(point, on_front=not _is_beaten(point, points)) for point in points]
    front = [point for point in judged if point.on_front or point.chosen]
    return sorted(front, key=lambda point: (-point.output_tokens_per_s, point.label))


def _point(candidate: Candidate, *, chosen: bool) -> ParetoPoint:
    speed = candidate.estimate
    rate = speed.output_tokens_per_s.value
    return ParetoPoint(
        label=candidate.label,
        usd_per_mtok_output=candidate.usd_per_mtok_output,
        output_tokens_per_s=rate,
        output_tokens_per_s_per_gpu=rate / candidate.parallelism.world_size,
        output_tokens_per_s_per_user=1000 / speed.tpot_ms.value,
        max_model_len=candidate.engine_args.max_model_len,
        meets_slo=speed.meets_slo,
        chosen=chosen,
    )


def _is_beaten(point: ParetoPoint, others: Sequence[ParetoPoint]) -> bool:
    mine = _merits(point)
    return any(
        theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True))
        for theirs in map(_merits, others)
    )


def _merits(point: ParetoPoint) -> tuple[float, ...]:
    """More is better. One node is rented either way, so its cost per token falls as its rate grows."""
    return (
        point.output_tokens_per_s,
        point.output_tokens_per_s_per_gpu,
        point.output_tokens_per_s_per_user,
        point.max_model_len,
    )

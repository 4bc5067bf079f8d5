"""The front over every combination and load: what no other beats in everything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from qwenhost.facts import Basis, Value
from qwenhost.planner.candidates import options
from qwenhost.planner.context import Context
from qwenhost.planner.judging import judge_option, question_of
from qwenhost.planner.option import Option
from qwenhost.planner.quality import QualityLoss, quality_loss
from qwenhost.planner.sizing import Sized, size_first
from qwenhost.units import SECONDS_PER_HOUR, TOKENS_PER_MTOK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qwenhost.facts import Catalog
    from qwenhost.plan import Candidate, Plan, PlanRequest
    from qwenhost.planner.objective import Judged


class ParetoPoint(Value, frozen=True, kw_only=True):
    """One combination under one load, by what is weighed against one another."""

    label: str
    checkpoint: str
    layout: str
    """E.g. ``TP2 DP4``."""
    kv_cache_dtype: str
    num_speculative_tokens: int
    usd_per_mtok_output: float | None
    """None where no price is known; the node's rate stands for it then."""
    concurrency: int
    """Requests in flight, whole node."""
    output_tokens_per_s: float
    """Whole node."""
    output_tokens_per_s_per_gpu: float
    """Per GPU in use."""
    output_tokens_per_s_per_user: float
    """1 over the time per output token."""
    ttft_ms: float
    max_model_len: int
    quality: QualityLoss
    """Stated, not weighed: published scores are too few to rank by."""
    meets_slo: bool
    basis: Basis
    chosen: bool
    """The plan's choice at its best load here."""
    on_front: bool = True
    """False for one that another beats. A chosen one may be: the choice discounts drafts by a low
    acceptance, runs one engine, and never takes a cache type the checkpoint is not calibrated for."""


def pareto_points(request: PlanRequest, catalog: Catalog, plan: Plan) -> list[ParetoPoint]:
    """The plan's choice, and every combination at 1, 2, 4... requests in flight up to what it holds.

    Where the load was asked for, at that load alone. Sorted by rate per user, the slowest first.
    ``on_front``: keeps the service level, where any does, and is not beaten at once in the node's rate, rate
    per GPU, rate per user and context.
    """
    context = Context(request, catalog)
    question = question_of(request, catalog)
    found: list[tuple[Judged, bool]] = []
    for option in options(context, []):
        sized = size_first(context, option)
        if isinstance(sized, Sized):
            chosen = _is_choice(option, plan.chosen)
            more = [round(plan.chosen.estimate.concurrency.value)] if chosen else []
            for users in _loads(request, sized, more):
                judged = judge_option(context, sized, question._replace(concurrency=users))
                found.append((judged, chosen))
    points = [_point(judged, context, request, chosen=chosen) for judged, chosen in found]
    kept = [point for point in points if point.meets_slo] or points
    front = _front(kept)
    best = max((p for p in kept if p.chosen), key=lambda p: p.output_tokens_per_s, default=None)
    return sorted(
        (msgspec.structs.replace(p, on_front=id(p) in front, chosen=p is best) for p in kept),
        key=lambda point: (
            point.output_tokens_per_s_per_user,
            -point.output_tokens_per_s_per_gpu,
            point.label,
        ),
    )


def pareto_front(points: Iterable[ParetoPoint]) -> list[ParetoPoint]:
    """Those on the front, and the plan's choice in any case."""
    return [point for point in points if point.on_front or point.chosen]


def _loads(request: PlanRequest, sized: Sized, more: list[int]) -> list[int | None]:
    if request.concurrency is not None or request.rate is not None:
        return [request.concurrency]
    groups = sized.option.layout.serving_groups
    room = sized.kv_cache.concurrency_at(
        math.ceil(request.workload.input_tokens.mean + request.workload.output_tokens.mean)
    )
    most = max(1, min(sized.max_num_seqs, room)) * groups
    return sorted({*more, *(2**i for i in range(most.bit_length()))})


def _is_choice(option: Option, chosen: Candidate) -> bool:
    args = chosen.engine_args
    return option == Option(
        checkpoint=chosen.checkpoint.id,
        layout=chosen.parallelism,
        kv_cache_dtype=args.kv_cache_dtype,
        num_speculative_tokens=args.num_speculative_tokens,
        enable_prefix_caching=args.enable_prefix_caching,
    )


def _point(judged: Judged, context: Context, request: PlanRequest, *, chosen: bool) -> ParetoPoint:
    option, layout = judged.sized.option, judged.sized.option.layout
    checkpoint = context.checkpoint(option)
    rate = judged.requests_per_s * judged.demand.output_tokens
    price = request.gpu_price
    hourly = None if price is None else price.usd_per_gpu_hour * request.node.gpu_count
    drafts = f", MTP {option.num_speculative_tokens}" if option.num_speculative_tokens else ""
    return ParetoPoint(
        label=f"{option.label}, kv {option.kv_cache_dtype}{drafts}",
        checkpoint=option.checkpoint,
        layout=layout.label,
        kv_cache_dtype=option.kv_cache_dtype,
        num_speculative_tokens=option.num_speculative_tokens,
        concurrency=round(judged.concurrency),
        usd_per_mtok_output=None if hourly is None else hourly / (rate * SECONDS_PER_HOUR) * TOKENS_PER_MTOK,
        output_tokens_per_s=rate,
        output_tokens_per_s_per_gpu=rate / layout.world_size,
        output_tokens_per_s_per_user=1 / judged.service.tpot_s,
        ttft_ms=judged.service.ttft_s * 1000,
        max_model_len=judged.sized.max_model_len,
        quality=quality_loss(checkpoint, option.kv_cache_dtype),
        meets_slo=judged.meets_slo,
        basis="assumed" if layout.decode_context_parallel_size > 1 else context.constants.basis,
        chosen=chosen,
    )


def _front(points: Sequence[ParetoPoint]) -> set[int]:
    """Identities of those that no other beats; the best rates come first, so that few need comparing."""
    kept: list[tuple[float, ...]] = []
    found: set[int] = set()
    for point in sorted(points, key=_merits, reverse=True):
        mine = _merits(point)
        if not any(all(a >= b for a, b in zip(theirs, mine, strict=True)) for theirs in kept):
            kept.append(mine)
            found.add(id(point))
    return found


def _merits(point: ParetoPoint) -> tuple[float, ...]:
    """More is better. One node is rented either way, so its cost per token falls as its rate grows."""
    return (
        point.output_tokens_per_s,
        point.output_tokens_per_s_per_gpu,
        point.output_tokens_per_s_per_user,
        point.max_model_len,
    )

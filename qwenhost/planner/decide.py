"""Look at every combination, size it, time it, choose."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost import __version__
from qwenhost.errors import BadInputError, InfeasibleError
from qwenhost.plan import DEFAULT_VLLM_VERSION, Pins, Plan, PlanInputs, PlanRequest, Rejection, StepShape
from qwenhost.planner.candidate import to_candidate
from qwenhost.planner.candidates import options
from qwenhost.planner.context import Context
from qwenhost.planner.fallbacks import fallbacks
from qwenhost.planner.judging import judge_option, question_of
from qwenhost.planner.objective import Judged, Question, is_clearly_better, rank
from qwenhost.planner.refine import refined
from qwenhost.planner.running import running_model
from qwenhost.planner.sizing import Sized, size_first
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.facts import Catalog, Workload
    from qwenhost.node import Node
    from qwenhost.plan import Candidate

MOST_ALTERNATIVES: Final = 24


def make_plan(request: PlanRequest, catalog: Catalog) -> Plan:
    """The best way to run the model on the node, with what was set aside and why.

    Raises:
        InfeasibleError: nothing fits; carries every rejection with its figures.
        BadInputError: an unknown GPU, checkpoint or version, or contradicting pins.
    """
    _check(request)
    context = Context(request, catalog)
    question = question_of(request, catalog)
    rejections: list[Rejection] = []
    judged: list[Judged] = []
    for option in options(context, rejections):
        sized = size_first(context, option)
        if isinstance(sized, Rejection):
            rejections.append(sized)
        else:
            judged.append(judge_option(context, sized, question))
    kept = _distinct(rejections)
    if not judged:
        raise _infeasible(request, kept)
    again = partial(judge_option, context, question=question)
    ranked = rank(refined(context, rank(judged, request.objective), again), request.objective)
    chosen = _choice(ranked, request)
    ranked = rank([*ranked, *_uncalibrated_cache(context, chosen, question)], request.objective)
    return Plan(
        inputs=plan_inputs(request, catalog),
        chosen=_with_engines_note(to_candidate(context, chosen), chosen, ranked, request),
        alternatives=tuple(to_candidate(context, one) for one in _alternatives(ranked, chosen)),
        rejections=kept,
        fallbacks=fallbacks(context, chosen, again),
    )


def step_time_function(
    candidate: Candidate,
    node: Node,
    catalog: Catalog,
    vllm_version: str = DEFAULT_VLLM_VERSION,
) -> Callable[[StepShape], float]:
    """Seconds per engine step of one data-parallel replica of a candidate.

    Raises:
        BadInputError: the candidate's checkpoint or the node's GPU is not in the catalog.
    """
    return running_model(candidate, node, catalog, vllm_version).seconds


def plan_inputs(request: PlanRequest, catalog: Catalog) -> PlanInputs:
    """What a plan, or the refusal of one, was made from."""
    workload: Workload = request.workload
    return PlanInputs(
        node=request.node,
        workload=workload.id,
        workload_detail=workload,
        slo=request.slo,
        objective=request.objective,
        pins=request.pins,
        concurrency=request.concurrency,
        rate=request.rate,
        gpu_price=request.gpu_price,
        catalog_digest=catalog.digest,
        newest_fact=catalog.newest_fact.isoformat(),
        vllm_version=request.vllm_version,
        qwenhost_version=__version__,
        lora=request.lora,
    )


def _check(request: PlanRequest) -> None:
    if request.concurrency is not None and request.rate is not None:
        raise BadInputError(
            "--concurrency and --rate were both given",
            remedy="Give --concurrency for a closed loop or --rate for an open one.",
        )
    if not 0 <= request.memory_margin < 1:
        raise BadInputError(
            f"memory margin {request.memory_margin} is not within 0 to 1", remedy="Write for example 0.02."
        )


def _choice(ranked: list[Judged], request: PlanRequest) -> Judged:
    """The first that one engine serves; several behind a router are chosen only where they are pinned."""
    single = (one for one in ranked if one.sized.option.layout.replicas == 1)
    return ranked[0] if request.pins.replicas is not None else next(single, ranked[0])


def _with_engines_note(
    candidate: Candidate, chosen: Judged, ranked: list[Judged], request: PlanRequest
) -> Candidate:
    """Says so where independent engines would serve clearly better than what one engine does."""
    several = next((one for one in ranked if one.sized.option.layout.replicas > 1), None)
    single = chosen.sized.option.layout.replicas == 1
    if several is None or not single or not is_clearly_better(several, chosen, request.objective):
        return candidate
    option, gain = several.sized.option, several.requests_per_s / chosen.requests_per_s - 1
    drafts = f", MTP {option.num_speculative_tokens}" if option.num_speculative_tokens else ""
    note = (
        f"Independent engines would do better by the model: {option.label}{drafts}, {gain:+.0%} requests/s. "
        f"They need a router: pin --replicas {option.layout.replicas} and write them with qwenhost render."
    )
    return msgspec.structs.replace(candidate, notes=(note, *candidate.notes))


def _uncalibrated_cache(context: Context, chosen: Judged, question: Question) -> list[Judged]:
    """The chosen one with an FP8 cache it is not calibrated for: a stated alternative, never the choice."""
    option = chosen.sized.option
    if option.kv_cache_dtype != "auto" or context.request.pins.kv_cache_dtype is not None:
        return []
    sized = size_first(context, option._replace(kv_cache_dtype="fp8"))
    return [judge_option(context, sized, question)] if isinstance(sized, Sized) else []


def _alternatives(ranked: list[Judged], chosen: Judged) -> list[Judged]:
    """The best of each checkpoint, layout and cache type, with drafts and without, beside the chosen one."""
    best: dict[tuple[str, str, str, bool], Judged] = {}
    for one in ranked:
        option = one.sized.option
        if one is not chosen:
            drafts = option.num_speculative_tokens > 0
            best.setdefault((option.checkpoint, option.layout.label, option.kv_cache_dtype, drafts), one)
    return list(best.values())[:MOST_ALTERNATIVES]


def _distinct(rejections: list[Rejection]) -> tuple[Rejection, ...]:
    """Variants of one checkpoint and layout (drafts, caching) that fail alike are told once, the mildest."""
    mildest: dict[tuple[str, str, str], Rejection] = {}
    for one in rejections:
        key = (one.checkpoint, one.parallelism, one.rule)
        other = mildest.get(key)
        if other is None or _shortfall(one) < _shortfall(other):
            mildest[key] = one
    return tuple(mildest.values())


def _shortfall(rejection: Rejection) -> int:
    return (rejection.need_bytes or 0) - (rejection.have_bytes or 0)


def _infeasible(request: PlanRequest, rejections: tuple[Rejection, ...]) -> InfeasibleError:
    sized = [one for one in rejections if one.need_bytes is not None]
    pinned = any(value is not None for value in (getattr(request.pins, f) for f in Pins.__struct_fields__))
    message = f"Nothing fits {request.node.description}" + (" with what was pinned." if pinned else ".")
    if sized:
        nearest = min(sized, key=_shortfall)
        message += (
            f" Nearest: {nearest.checkpoint} {nearest.parallelism} needs "
            f"{format_gib(nearest.need_bytes or 0)} per GPU and has "
            f"{format_gib(nearest.have_bytes or 0)} ({nearest.rule})."
        )
    elif rejections:
        message += f" {rejections[0].checkpoint}: {rejections[0].message}"
    remedy = "Release a pin, or use more or larger GPUs." if pinned else "Use more or larger GPUs."
    return InfeasibleError(message, remedy=remedy, rejections=rejections)

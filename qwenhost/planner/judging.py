"""The question of a request, and a combination's answer to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.planner.objective import Judged, Question, judge
from qwenhost.planner.service import demand_of, prompt_tail

if TYPE_CHECKING:
    from qwenhost.facts import Catalog
    from qwenhost.plan import PlanRequest
    from qwenhost.planner.context import Context
    from qwenhost.planner.sizing import Sized


def question_of(request: PlanRequest, catalog: Catalog) -> Question:
    """What was asked, for every combination alike."""
    workload = request.workload
    longest = (workload.input_tokens.p99 or 0.0) + (workload.output_tokens.p99 or 0.0)
    native = max(a.max_position_embeddings for a in catalog.architectures.values())
    return Question(
        objective=request.objective,
        slo=request.slo,
        tail=prompt_tail(request.workload),
        concurrency=request.concurrency,
        rate=request.rate,
        long_tokens=round(min(longest, request.pins.max_model_len or native)),
    )


def judge_option(context: Context, sized: Sized, question: Question) -> Judged:
    """A sized combination under the question's load."""
    option = sized.option
    demand = demand_of(
        context.request.workload,
        prefix_caching=option.enable_prefix_caching,
        block_size=sized.kv_cache.hit_tokens,
    )
    model = context.step_model(option, enforce_eager=sized.settings.enforce_eager)
    untried = option.layout.decode_context_parallel_size > 1
    trust = 1 - context.constants.calibration.relative_band_low if untried else 1.0
    return judge(sized, model, demand, question, trust=trust)

"""``qwenhost plan --method simulate``: the leading candidates in the simulated engine, beside the formula."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.console import RenderableType
    from rich.status import Status

    from qwenhost.facts import Catalog
    from qwenhost.plan import Candidate, Estimate, Fallback, Plan, PlanRequest, SpeedEstimate
    from qwenhost.simulate.planned import Bench, Steady

LEADING: Final = 4
"""Candidates that are simulated, the formula's choice first."""
ENOUGH_S: Final = 30.0
"""No further candidate is begun after so long; which ones were not is said."""
SAME: Final = 1.02
"""Rates closer than this are one, as in the planner."""


def simulated_plan(
    request: PlanRequest, known: Catalog, plan: Plan, *, clock: Callable[[], float] = time.monotonic
) -> Plan:
    """The plan with its leading candidates timed by the simulator, and chosen among again.

    ``estimate`` is then the simulator's and ``formula`` keeps the closed formula's. A candidate may pass the
    formula's choice where it has at least its context, no more drafts and no more engines: those trades the
    formula has settled by more than speed.
    """
    began = clock()
    done: list[Candidate] = []
    with _line() as line:
        for one in (plan.chosen, *plan.alternatives[: LEADING - 1]):
            if done and clock() - began > ENOUGH_S:
                break
            if line is not None:
                line.update(f"simulating {one.label}")
            done.append(_simulated(known, plan, one))
    rest = (plan.chosen, *plan.alternatives)[len(done) :]
    chosen = _choice(done, request)
    others = tuple(one for one in done if one is not chosen)
    fallbacks = plan.fallbacks if chosen is done[0] else _fallbacks(request, known, chosen)
    return msgspec.structs.replace(
        plan,
        inputs=msgspec.structs.replace(plan.inputs, method="simulate"),
        chosen=chosen,
        alternatives=(*others, *rest),
        fallbacks=fallbacks,
    )


def comparison(plan: Plan) -> RenderableType:
    """Both figures of every candidate that was simulated."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "output tok/s", "first token", "per token", "in flight", "SLO"):
        table.add_column(title, justify="left" if not title else "right")
    for one in (plan.chosen, *plan.alternatives):
        if one.formula is None:
            continue
        for name, speed in (("simulated", one.estimate), ("by formula", one.formula)):
            table.add_row(
                Text(f"{one.label}" if name == "simulated" else ""),
                *(f"{estimate.value:,.{digits}f}" for estimate, digits in _shown(speed)),
                "kept" if speed.meets_slo else "missed",
                Text(name, style="dim"),
            )
    return table


def _shown(speed: SpeedEstimate) -> tuple[tuple[Estimate, int], ...]:
    return ((speed.output_tokens_per_s, 0), (speed.ttft_ms, 0), (speed.tpot_ms, 1), (speed.concurrency, 0))


def _simulated(known: Catalog, plan: Plan, one: Candidate) -> Candidate:
    from qwenhost.cli.simulation_setup import planned_engine
    from qwenhost.simulate.planned import Bench

    speed, inputs = one.estimate, plan.inputs
    config, step_time = planned_engine(known, msgspec.structs.replace(plan, chosen=one), None)
    answer = inputs.workload_detail.output_tokens.mean
    bench = Bench(
        config=config, step_time=step_time, workload=inputs.workload_detail, slo=inputs.slo,
        request_s=(speed.ttft_ms.value + speed.tpot_ms.value * answer) / 1000,
    )  # fmt: skip
    found = _run(bench, plan, one)
    return _with(one, found, plan)


def _run(bench: Bench, plan: Plan, one: Candidate) -> Steady:
    """At the load that was asked for; without one, at the most users that keep the service level."""
    from qwenhost.simulate.planned import at_rate, most_users, with_users

    inputs = plan.inputs
    if inputs.rate is not None:
        return at_rate(bench, inputs.rate)
    if inputs.concurrency is not None or inputs.objective == "latency":
        return with_users(bench, inputs.concurrency or 1)
    return most_users(bench, max(1, round(one.estimate.concurrency.value)))


def _with(one: Candidate, found: Steady, plan: Plan) -> Candidate:
    """The candidate with the simulator's figures; their bands are as wide as the formula's."""
    speed = one.estimate
    source = f"simulated engine, {found.requests:,} requests, seed 0; {speed.output_tokens_per_s.source}"

    def moved(estimate: Estimate, value: float) -> Estimate:
        scale = value / estimate.value if estimate.value else 1.0
        return msgspec.structs.replace(
            estimate, value=value, low=estimate.low * scale, high=estimate.high * scale, source=source
        )

    asked = plan.inputs.concurrency is not None
    simulated = msgspec.structs.replace(
        speed,
        output_tokens_per_s=moved(speed.output_tokens_per_s, found.output_tokens_per_s),
        input_tokens_per_s=moved(speed.input_tokens_per_s, found.input_tokens_per_s),
        requests_per_s=moved(speed.requests_per_s, found.requests_per_s),
        ttft_ms=moved(speed.ttft_ms, found.ttft_s * 1000),
        tpot_ms=moved(speed.tpot_ms, found.tpot_s * 1000),
        concurrency=speed.concurrency if asked else moved(speed.concurrency, found.in_flight),
        meets_slo=found.meets_slo,
    )
    ratio = found.output_tokens_per_s / speed.output_tokens_per_s.value
    total = speed.output_tokens_per_s.value + speed.input_tokens_per_s.value
    blended = (found.output_tokens_per_s + found.input_tokens_per_s) / total
    return msgspec.structs.replace(
        one,
        estimate=simulated,
        formula=speed,
        usd_per_mtok_output=_divided(one.usd_per_mtok_output, ratio),
        usd_per_mtok_blended=_divided(one.usd_per_mtok_blended, blended),
    )


def _divided(usd: float | None, by: float) -> float | None:
    return None if usd is None or by <= 0 else usd / by


def _choice(done: list[Candidate], request: PlanRequest) -> Candidate:
    first = done[0]
    if request.objective == "context":
        return first
    may = [one for one in done if _may_pass(one, first)]
    kept = [one for one in may if one.estimate.meets_slo] or may
    best = max(_worth(one, request) for one in kept)
    return next(one for one in kept if _worth(one, request) * SAME >= best)


def _may_pass(one: Candidate, first: Candidate) -> bool:
    args, own = one.engine_args, first.engine_args
    return (
        args.max_model_len >= own.max_model_len
        and args.num_speculative_tokens <= own.num_speculative_tokens
        and one.parallelism.replicas <= first.parallelism.replicas
        and one.parallelism.decode_context_parallel_size <= first.parallelism.decode_context_parallel_size
        and one.engine_args.kv_cache_dtype == own.kv_cache_dtype
    )


def _worth(one: Candidate, request: PlanRequest) -> float:
    """More is better: requests per second, or how soon an answer is whole."""
    speed = one.estimate
    if request.objective == "latency":
        answer = request.workload.output_tokens.mean
        return 1 / max(1e-9, speed.ttft_ms.value + speed.tpot_ms.value * answer)
    return speed.requests_per_s.value


def _fallbacks(request: PlanRequest, known: Catalog, chosen: Candidate) -> tuple[Fallback, ...]:
    """Those of another choice, which the planner sizes once the choice is pinned."""
    from qwenhost.planner import make_plan

    layout, args = chosen.parallelism, chosen.engine_args
    pins = msgspec.structs.replace(
        request.pins,
        checkpoint=chosen.checkpoint.id,
        tensor_parallel_size=layout.tensor_parallel_size,
        pipeline_parallel_size=layout.pipeline_parallel_size,
        data_parallel_size=layout.data_parallel_size,
        enable_expert_parallel=layout.enable_expert_parallel,
        num_speculative_tokens=args.num_speculative_tokens,
        enable_prefix_caching=args.enable_prefix_caching,
        kv_cache_dtype=args.kv_cache_dtype,
    )
    return make_plan(msgspec.structs.replace(request, pins=pins), known).fallbacks


def _line() -> AbstractContextManager[Status | None]:
    """What is being simulated, on a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.status import Status

    from qwenhost.cli.output import console

    return Status("simulating", console=console(stderr=True))

"""Catalog, workload, plan and measurements to one :class:`Comparison`; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from qwenhost import __version__
from qwenhost.cost.api_lines import api_line, on_sale, price_request, select_prices
from qwenhost.cost.break_even import BreakEven, break_even, break_even_band
from qwenhost.cost.cache_checks import cache_checks, idle_sessions
from qwenhost.cost.comparison import ApiLine, Comparison, PlanSummary
from qwenhost.cost.curve import curve, hardware_options
from qwenhost.cost.frame import CompareOptions, Frame, levers_of, make_frame, measured_ratio
from qwenhost.cost.freshness import stale_facts
from qwenhost.cost.history import dated_prices, load_points
from qwenhost.cost.quality import QualityRow, baseline_score_id, cost_per_task_rows, quality_rows
from qwenhost.cost.self_host_cost import SelfHost, self_host_cost
from qwenhost.cost.sensitivity import SensitivityRow, tornado
from qwenhost.cost.statements import assumption_lines
from qwenhost.cost.thinking import thinking_rows
from qwenhost.cost.verdict import verdict_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from qwenhost.cost.comparison import AssumptionLine, Verdict
    from qwenhost.cost.freshness import StaleFact
    from qwenhost.cost.prompt_cache import CacheCheck, IdleSessions
    from qwenhost.facts import ApiPrice, Catalog, Workload
    from qwenhost.measurements import Measurements
    from qwenhost.plan import Plan


@dataclass(frozen=True, kw_only=True)
class _Priced:
    """Both sides' bills and where they cross."""

    frame: Frame
    baselines: Sequence[ApiPrice]
    others: Sequence[ApiPrice]
    side: SelfHost
    lines: tuple[ApiLine, ...]
    crossing: BreakEven
    rows: tuple[SensitivityRow, ...]
    idle: IdleSessions | None
    checks: tuple[CacheCheck, ...]

    @property
    def claude_prices(self) -> list[ApiPrice]:
        """Anthropic's own, baselines first."""
        return [price for price in (*self.baselines, *self.others) if price.kind == "claude"]


def compare(
    catalog: Catalog,
    workload: Workload,
    plan: Plan,
    measurements: Measurements | None,
    *,
    options: CompareOptions,
    generated_at: dt.datetime,
    runs: Sequence[Measurements] = (),
) -> Comparison:
    """Price both sides of a workload and find where they cross.

    Args:
        catalog: prices, assumptions and scores.
        workload: what is asked.
        plan: what would answer it.
        measurements: the run whose goodput is the node's capacity; None = the plan's estimate.
        options: what the user fixed.
        generated_at: stamped on the comparison.
        runs: every run, where there are several, for latency against load.

    Raises:
        BadInputError: a price, rent or capacity is missing, or the measurements may not be used.
    """
    priced = _price(catalog, workload, plan, measurements, options)
    frame, side, lines = priced.frame, priced.side, priced.lines
    given = options.requests_per_day is not None
    quality = _quality(catalog, priced)
    stale = _stale(catalog, priced, quality)
    return Comparison(
        generated_at=generated_at,
        qwenhost_version=__version__,
        catalog_digest=catalog.digest,
        as_of=options.as_of.isoformat(),
        workload=workload,
        requests_per_day=frame.requests_per_day,
        requests_per_day_given=given,
        simulated=measurements is not None and measurements.server.simulated,
        predicted=measurements is None,
        verdict=_verdict(priced, given=given, stale=stale),
        self_host=side,
        api=lines,
        break_even=priced.crossing,
        sensitivity=priced.rows,
        quality=quality,
        costs_per_task=cost_per_task_rows(catalog),
        assumptions=_assumptions(catalog, priced),
        curve=curve(frame, lines, priced.crossing),
        hardware_options=hardware_options(catalog, frame),
        plan=_plan_summary(plan),
        measured=measurements,
        cache_checks=priced.checks,
        price_history=dated_prices(priced.claude_prices, workload, frame.terms),
        thinking=thinking_rows(catalog, frame, _with_cheapest_host(priced)),
        load_curve=load_points(runs),
        scenario=frame.scenario,
        stale=stale,
        idle_sessions=priced.idle,
    )  # fmt: skip


def _price(
    catalog: Catalog,
    workload: Workload,
    plan: Plan,
    measurements: Measurements | None,
    options: CompareOptions,
) -> _Priced:
    baselines, others = select_prices(catalog, options.baselines)
    frame = make_frame(catalog, workload, plan, measurements, options=options, baseline=baselines[0])
    volume = frame.requests_per_day
    idle = idle_sessions(plan, workload, frame.scenario, measurements, requests_per_day=volume)
    moved = levers_of(catalog, frame, idle)
    crossing = break_even_band(
        frame.scenario,
        moved,
        against=baselines[0].id,
        requests_per_day=volume,
        draws=options.draws,
        seed=options.seed,
    )
    side = self_host_cost(
        frame.scenario,
        workload,
        requests_per_day=volume,
        held=frame.held,
        rent=frame.rent,
        demand=frame.demand,
        start_hours=frame.start_hours,
        gpus_per_node=frame.gpus_per_node,
        hardware=plan.inputs.node.description,
        prefill_share=frame.prefill_share,
        prefill_share_source=frame.prefill_share_source,
    )
    return _Priced(
        frame=frame,
        baselines=baselines,
        others=others,
        side=side,
        lines=tuple(_api_lines(frame, baselines, others)),
        crossing=crossing,
        rows=tornado(frame.scenario, moved, requests_per_day=volume),
        idle=idle,
        checks=cache_checks(frame.baseline, workload, frame.terms),
    )


def _verdict(priced: _Priced, *, given: bool, stale: Sequence[StaleFact]) -> Verdict:
    return verdict_of(
        priced.side,
        priced.lines,
        priced.crossing,
        priced.rows,
        requests_per_day=priced.frame.requests_per_day,
        given=given,
        idle=priced.idle,
        searches=priced.frame.options.extras.web_searches,
        stale=stale,
    )


def _assumptions(catalog: Catalog, priced: _Priced) -> tuple[AssumptionLine, ...]:
    frame = priced.frame
    counted = frame.options.token_counts
    return assumption_lines(
        catalog,
        frame.workload,
        frame.terms,
        priced.side,
        priced.lines[0],
        given=options_given(frame.options),
        checks=priced.checks,
        counts=measured_ratio(counted) if counted else None,
        warnings=counted.warnings if counted else (),
    )


def _quality(catalog: Catalog, priced: _Priced) -> tuple[QualityRow, ...]:
    attempt = priced.frame.workload.requests_per_session
    return quality_rows(
        catalog,
        success=priced.frame.options.success,
        qwen_usd_per_attempt=priced.side.usd_per_request * attempt,
        baseline_usd_per_attempt=priced.lines[0].usd_per_request * attempt,
        baseline_model=baseline_score_id(priced.frame.baseline.model),
    )


def _stale(catalog: Catalog, priced: _Priced, quality: Sequence[QualityRow]) -> tuple[StaleFact, ...]:
    return stale_facts(
        catalog,
        as_of=priced.frame.options.as_of,
        rent=priced.side.usd_per_gpu_hour,
        lines=priced.lines,
        quality=quality,
    )


def _with_cheapest_host(priced: _Priced) -> list[ApiPrice]:
    hosted = [line for line in priced.lines if line.kind == "hosted_qwen"]
    best = min(hosted, key=lambda line: line.usd_per_request, default=None)
    cheapest = [price for price in priced.others if best is not None and price.id == best.id]
    return [*priced.baselines, *cheapest]


def options_given(options: CompareOptions) -> frozenset[str]:
    """Names of what the user fixed."""
    return frozenset(name for name in CompareOptions.__struct_fields__ if getattr(options, name) is not None)


def _api_lines(frame: Frame, baselines: Sequence[ApiPrice], others: Sequence[ApiPrice]) -> list[ApiLine]:
    """The baselines as asked for, then what was on sale that day, by kind and price."""

    def line(price: ApiPrice) -> ApiLine:
        usd = price_request(price, frame.workload, frame.terms).breakdown.total
        here = msgspec.structs.replace(frame.scenario, api_usd_per_request=usd)
        return api_line(
            price,
            frame.workload,
            frame.terms,
            is_baseline=price is baselines[0],
            requests_per_day=frame.requests_per_day,
            mean_over_peak=frame.demand.value,
            break_even_requests_per_day=break_even(here).requests_per_day,
        )

    order = {"claude": 0, "other": 1, "hosted_qwen": 2}
    rest = [line(price) for price in others if on_sale(price, frame.options.as_of)]
    rest.sort(key=lambda found: (order[found.kind], found.usd_per_request, found.id))
    return [line(price) for price in baselines] + rest


def _plan_summary(plan: Plan) -> PlanSummary:
    chosen, node = plan.chosen, plan.inputs.node
    return PlanSummary(
        label=chosen.label,
        repo_id=chosen.checkpoint.repo_id,
        revision=chosen.checkpoint.revision,
        quantization=chosen.checkpoint.quantization,
        parallelism=chosen.parallelism.label,
        gpus=node.description,
        gpu_count=node.gpu_count,
        max_model_len=chosen.engine_args.max_model_len,
        max_num_seqs=chosen.engine_args.max_num_seqs,
        kv_cache_tokens=chosen.kv_cache.tokens,
        memory_per_gpu=chosen.memory_per_gpu,
        estimate=chosen.estimate,
        objective=plan.inputs.objective,
        vllm_version=plan.inputs.vllm_version,
        vllm_argv=chosen.vllm_argv,
        notes=chosen.notes,
    )

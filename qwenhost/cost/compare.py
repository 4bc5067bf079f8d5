"""Catalog, workload, plan and measurements to one :class:`Comparison`; pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from qwenhost import __version__
from qwenhost.cost.api_lines import api_line, on_sale, price_request, select_prices
from qwenhost.cost.break_even import BreakEven, break_even, break_even_band
from qwenhost.cost.cache_checks import cache_checks, idle_sessions
from qwenhost.cost.comparison import ApiLine, Comparison, CurvePoint, HardwareOption, PlanSummary
from qwenhost.cost.frame import CompareOptions, Frame, levers_of, make_frame
from qwenhost.cost.gpu_hour import interruption_factor, owned_usd_per_gpu_hour
from qwenhost.cost.history import dated_prices, load_points
from qwenhost.cost.quality import baseline_score_id, cost_per_task_rows, quality_rows
from qwenhost.cost.self_host_cost import self_host_cost
from qwenhost.cost.sensitivity import tornado
from qwenhost.cost.statements import assumption_lines
from qwenhost.cost.thinking import thinking_rows
from qwenhost.cost.verdict import verdict_of
from qwenhost.units import DAYS_PER_MONTH

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from qwenhost.cost.scenario import Scenario
    from qwenhost.facts import ApiPrice, Catalog, Workload
    from qwenhost.measurements import Measurements
    from qwenhost.plan import Plan

CURVE_POINTS = 160


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
    baselines, others = select_prices(catalog, options.baselines)
    baseline_id = baselines[0].id
    frame = make_frame(catalog, workload, plan, measurements, options=options, baseline=baselines[0])
    idle = idle_sessions(
        plan, workload, frame.scenario, measurements, requests_per_day=frame.requests_per_day
    )
    moved = levers_of(catalog, frame, idle)
    crossing = break_even_band(
        frame.scenario,
        moved,
        against=baseline_id,
        requests_per_day=frame.requests_per_day,
        draws=options.draws,
        seed=options.seed,
    )
    lines = tuple(_api_lines(frame, baselines, others))
    side = self_host_cost(
        frame.scenario,
        workload,
        requests_per_day=frame.requests_per_day,
        held=frame.held,
        rent=frame.rent,
        demand=frame.demand,
        gpus_per_node=frame.gpus_per_node,
        hardware=plan.inputs.node.description,
        prefill_share=frame.prefill_share,
        prefill_share_source=frame.prefill_share_source,
    )
    attempt = workload.requests_per_session
    simulated = measurements is not None and measurements.server.simulated
    checks = cache_checks(frame.baseline, workload, frame.terms)
    rows = tornado(frame.scenario, moved, requests_per_day=frame.requests_per_day)
    return Comparison(
        generated_at=generated_at,
        qwenhost_version=__version__,
        catalog_digest=catalog.digest,
        as_of=options.as_of.isoformat(),
        workload=workload,
        requests_per_day=frame.requests_per_day,
        requests_per_day_given=options.requests_per_day is not None,
        simulated=simulated,
        predicted=measurements is None,
        verdict=verdict_of(
            side,
            lines,
            crossing,
            rows,
            requests_per_day=frame.requests_per_day,
            given=options.requests_per_day is not None,
            idle=idle,
        ),
        self_host=side,
        api=lines,
        break_even=crossing,
        sensitivity=rows,
        quality=quality_rows(
            catalog,
            success=options.success,
            qwen_usd_per_attempt=side.usd_per_request * attempt,
            baseline_usd_per_attempt=lines[0].usd_per_request * attempt,
            baseline_model=baseline_score_id(frame.baseline.model),
        ),
        costs_per_task=cost_per_task_rows(catalog),
        assumptions=assumption_lines(
            catalog, frame.workload, frame.terms, side, lines[0], given=options_given(options), checks=checks
        ),
        curve=_curve(frame, lines, crossing),
        hardware_options=_hardware_options(catalog, frame),
        plan=_plan_summary(plan),
        measured=measurements,
        cache_checks=checks,
        price_history=dated_prices(
            (price for price in [*baselines, *others] if price.kind == "claude"), workload, frame.terms
        ),
        thinking=thinking_rows(catalog, frame, [*baselines, *_cheapest_host(others, lines)]),
        load_curve=load_points(runs),
        scenario=frame.scenario,
        idle_sessions=idle,
    )


def _cheapest_host(prices: Sequence[ApiPrice], lines: Sequence[ApiLine]) -> list[ApiPrice]:
    hosted = [line for line in lines if line.kind == "hosted_qwen"]
    best = min(hosted, key=lambda line: line.usd_per_request, default=None)
    return [price for price in prices if best is not None and price.id == best.id]


def options_given(options: CompareOptions) -> frozenset[str]:
    """Names of what the user fixed."""
    return frozenset(name for name in CompareOptions.__struct_fields__ if getattr(options, name) is not None)


def _api_lines(frame: Frame, baselines: list[ApiPrice], others: list[ApiPrice]) -> list[ApiLine]:
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


def _curve(frame: Frame, lines: tuple[ApiLine, ...], crossing: BreakEven) -> tuple[CurvePoint, ...]:
    """Both bills over four decades or so around the volumes that matter, evenly on a log axis."""
    held, rent = frame.held.requests_per_s, frame.rent
    marks = [frame.requests_per_day, crossing.requests_per_day or frame.scenario.requests_per_day_per_node]
    start, stop = min(marks) / 30, max(marks) * 10
    gpus = frame.gpus_per_node
    cheap = _with(frame.scenario, rent.low * gpus, held.high / held.value)
    dear = _with(frame.scenario, rent.high * gpus, held.low / held.value)
    points = []
    for i in range(CURVE_POINTS):
        volume = start * math.exp(math.log(stop / start) * i / (CURVE_POINTS - 1))
        points.append(
            CurvePoint(
                requests_per_day=volume,
                self_host=frame.scenario.self_host_usd_per_month(volume),
                self_host_low=cheap.self_host_usd_per_month(volume),
                self_host_high=dear.self_host_usd_per_month(volume),
                api={line.id: line.usd_per_request * volume * DAYS_PER_MONTH for line in lines},
            )
        )
    return tuple(points)


def _with(scenario: Scenario, usd_per_node_hour: float, capacity_factor: float) -> Scenario:
    return msgspec.structs.replace(
        scenario,
        usd_per_node_hour=usd_per_node_hour,
        requests_per_s_per_node=scenario.requests_per_s_per_node * capacity_factor,
    )


def _hardware_options(catalog: Catalog, frame: Frame) -> tuple[HardwareOption, ...]:
    """Every listed price of this GPU, and owning it, cheapest first."""
    gpus = frame.plan.inputs.node.gpus
    gpu = gpus[0].spec if gpus else None
    found = []
    for row in (row for row in catalog.gpu_prices if row.gpu == gpu):
        usd = row.usd_per_gpu_hour * interruption_factor(catalog, row.tier)
        here = _with(frame.scenario, usd * frame.gpus_per_node, 1.0)
        found.append(
            HardwareOption(
                label=row.provider,
                tier=row.tier,
                usd_per_gpu_hour=row.usd_per_gpu_hour,
                usd_per_month=here.self_host_usd_per_month(frame.requests_per_day),
                break_even_requests_per_day=break_even(here).requests_per_day,
                min_gpus=row.min_gpus,
                basis="published",
                source=row.source.where,
                as_of=row.source.as_of.isoformat(),
            )
        )
    owned = catalog.owned_gpus.get(gpu or "")
    if owned is not None:
        cost = owned_usd_per_gpu_hour(catalog, owned, frame.options.own)
        here = _with(frame.scenario, cost.value * frame.gpus_per_node, 1.0)
        found.append(
            HardwareOption(
                label="own hardware",
                tier="owned",
                usd_per_gpu_hour=cost.value,
                usd_per_month=here.self_host_usd_per_month(frame.requests_per_day),
                break_even_requests_per_day=break_even(here).requests_per_day,
                basis="modelled",
                source=f"{cost.source}; {cost.note}",
                as_of=cost.as_of,
            )
        )
    return tuple(sorted(found, key=lambda option: (option.usd_per_gpu_hour, option.label)))


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

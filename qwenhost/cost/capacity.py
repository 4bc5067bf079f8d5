"""What one planned node carries: measured goodput where there is some, else the plan's estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cost.assumptions import assumption
from qwenhost.cost.figures import Figure, FigureBasis
from qwenhost.errors import BadInputError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from qwenhost.facts import Catalog, Slo, Workload
    from qwenhost.measurements import Measurements
    from qwenhost.plan import Plan

MODEL = "Qwen3.5-122B-A10B"
# A measured mean further than this from the workload's is another workload.
SAME_SIZE_TOLERANCE = 0.05


class Capacity(Value, frozen=True, kw_only=True):
    """What one planned node carries within its service level."""

    requests_per_s: Figure
    meets_slo: bool | None
    slo: str
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def capacity(
    catalog: Catalog, workload: Workload, plan: Plan | None, measurements: Measurements | None
) -> Capacity:
    """Requests per second of one node: measured goodput where there is some, else the plan's estimate.

    Raises:
        BadInputError: a void measurement, one without completed requests, or neither source.
    """
    if measurements is not None:
        return _measured_capacity(catalog, workload, plan, measurements)
    if plan is None:
        raise BadInputError(
            "no capacity: neither a plan nor measurements", remedy="Give --plan, --gpus or --measurements."
        )
    estimate = plan.chosen.estimate.requests_per_s
    return Capacity(
        requests_per_s=Figure(
            value=estimate.value, low=estimate.low, high=estimate.high, basis=estimate.basis,
            source=estimate.source or "the plan's speed model",
        ),
        meets_slo=plan.chosen.estimate.meets_slo,
        slo=describe_slo(plan.inputs.slo),
        remarks=("capacity is predicted, not measured: run qwenhost probe and pass --measurements",),
    )  # fmt: skip


def describe_slo(slo: Slo) -> str:
    """``p90: TTFT 1000 ms, TPOT 50 ms``, or ``none``."""
    named = (("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms), ("end to end", slo.e2e_ms))
    limits = [f"{name} {limit:g} ms" for name, limit in named if limit is not None]
    return f"p{slo.percentile:g}: {', '.join(limits)}" if limits else "none"


def _measured_capacity(
    catalog: Catalog, workload: Workload, plan: Plan | None, run: Measurements
) -> Capacity:
    if run.void:
        raise BadInputError(
            f"the measurements are void: {run.void_reason}", remedy="Measure again with: qwenhost probe URL"
        )
    rate = run.goodput.requests_per_s if run.goodput else run.request_per_s
    if rate <= 0:
        raise BadInputError(
            "the measurements hold no request that kept the service level",
            remedy="Measure at a lower load, or relax --slo-ttft-ms and --slo-tpot-ms.",
        )
    remarks = [] if run.goodput else ["measured without a service level: the rate is plain throughput"]
    offered = (
        f"{run.load.concurrency} in flight" if run.load.kind == "closed" else f"{run.load.rate:g} requests/s"
    )
    remarks.append(f"capacity is the rate measured at one load ({offered}); a sweep may find more")
    fit = _size_factor(workload, run)
    basis: FigureBasis = "simulated" if run.server.simulated else "measured"
    if fit is not None:
        remarks.append(
            f"measured at {run.workload.mean_input_tokens:,.0f} tokens in and "
            f"{run.workload.mean_output_tokens:,.0f} out, "
            f"the workload is {workload.input_tokens.mean:,.0f} and {workload.output_tokens.mean:,.0f}: "
            f"the rate is multiplied by {fit:.3g}, the harsher of the two ratios"
        )
        basis = basis if basis == "simulated" else "modelled"
    warnings = _mismatches(plan, run)
    if warnings and not run.server.simulated:
        basis = "assumed"
    low, high = _measured_band(catalog, plan, run)
    value = rate * (fit or 1.0)
    return Capacity(
        requests_per_s=Figure(
            value=value, low=value * low, high=value * high, basis=basis,
            source=f"{'simulated run' if run.server.simulated else 'measured run'} of {run.server.model}",
            as_of=run.started_at.date().isoformat(),
        ),
        meets_slo=None if run.goodput is None else run.goodput.fraction >= run.goodput.slo.percentile / 100,
        slo=describe_slo(run.goodput.slo) if run.goodput else "none",
        remarks=tuple(remarks),
        warnings=warnings,
    )  # fmt: skip


def _mismatches(plan: Plan | None, run: Measurements) -> tuple[str, ...]:
    """Where the run was not of what is priced."""
    found = []
    if MODEL.lower() not in run.server.model.lower():
        found.append(f"The run measured {run.server.model}, not {MODEL}: its speed is not this model's.")
    if plan is not None and run.gpus not in (None, plan.inputs.node.description):
        found.append(f"The run was on {run.gpus}, but {plan.inputs.node.description} is priced.")
    return tuple(found)


def _size_factor(workload: Workload, run: Measurements) -> float | None:
    """How the measured rate shrinks (or grows) on this workload's sizes; None = same sizes."""
    ratios = (
        run.workload.mean_input_tokens / workload.input_tokens.mean,
        run.workload.mean_output_tokens / workload.output_tokens.mean,
    )
    return None if all(abs(r - 1) <= SAME_SIZE_TOLERANCE for r in ratios) else min(ratios)


def _measured_band(catalog: Catalog, plan: Plan | None, run: Measurements) -> tuple[float, float]:
    """Relative band: a simulated run is no surer than the speed model it simulates."""
    if run.server.simulated and plan is not None:
        estimate = plan.chosen.estimate.requests_per_s
        if estimate.value > 0:
            return estimate.low / estimate.value, estimate.high / estimate.value
    spread = assumption(catalog, "measured_capacity_band").value
    return 1 - spread, 1 + spread

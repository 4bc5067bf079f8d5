"""What every row of a comparison shares: the options, the mean request, the node, its rent and its load."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from qwenhost.cost import levers
from qwenhost.cost.api_lines import (
    ApiTerms,
    PricedRequest,
    hit_range_usd,
    price_request,
    reference_tokenizer,
)
from qwenhost.cost.assumptions import assumption
from qwenhost.cost.break_even import DRAWS, SEED
from qwenhost.cost.capacity import Capacity, capacity
from qwenhost.cost.extras import Extras
from qwenhost.cost.figures import Figure
from qwenhost.cost.gpu_hour import Ownership, gpu_rent
from qwenhost.cost.quality import Success
from qwenhost.cost.scenario import Scenario
from qwenhost.cost.self_host_cost import storage_usd_per_node_month
from qwenhost.cost.start_ups import egress_usd_per_request, start_hours_per_node_month
from qwenhost.facts import ApiPrice, Value, Workload
from qwenhost.plan import GpuPriceRef, Plan
from qwenhost.token_counts import TokenCounts

if TYPE_CHECKING:
    from qwenhost.cost.levers import Lever
    from qwenhost.cost.prompt_cache import IdleSessions
    from qwenhost.facts import Assumption, Catalog
    from qwenhost.measurements import Measurements

# An output token's price in input tokens, where no hosted offer lists one.
FALLBACK_OUTPUT_PRICE_RATIO = 5.0


class CompareOptions(Value, frozen=True, kw_only=True):
    """What the user fixed; None = derived or assumed, and said so."""

    as_of: dt.date
    requests_per_day: float | None = None
    baselines: tuple[str, ...] = ()
    cache: str = "auto"
    batch: bool = False
    residency: str | None = None
    extras: Extras = Extras()
    token_ratio: float | None = None
    token_counts: TokenCounts | None = None
    """Measured on the user's own sample; in place of the assumed ratio."""
    output_ratio: float | None = None
    staff_fte: float | None = None
    spare_nodes: int | None = None
    mean_over_peak: float | None = None
    gpu_price: GpuPriceRef | None = None
    """Instead of the plan's own."""
    own: Ownership | None = None
    """Owned hardware in place of rent."""
    success: Success | None = None
    draws: int = DRAWS
    seed: int = SEED


class Frame(Value, frozen=True, kw_only=True):
    """What the rows of a comparison share."""

    options: CompareOptions
    workload: Workload
    plan: Plan
    terms: ApiTerms
    baseline: ApiPrice
    request: PricedRequest
    """The mean request at the baseline."""
    held: Capacity
    rent: Figure
    demand: Figure
    start_hours: Figure
    egress: Figure
    """USD a request."""
    prefill_share: float
    prefill_share_source: str
    scenario: Scenario
    requests_per_day: float

    @property
    def gpus_per_node(self) -> int:
        """GPUs of the planned node."""
        return self.plan.inputs.node.gpu_count


def make_frame(
    catalog: Catalog,
    workload: Workload,
    plan: Plan,
    measurements: Measurements | None,
    *,
    options: CompareOptions,
    baseline: ApiPrice,
) -> Frame:
    """Settle what is shared.

    Raises:
        BadInputError: a price, rent or capacity is missing, or the measurements may not be used.
    """
    terms = _terms(catalog, options)
    request = price_request(baseline, workload, terms)
    held = capacity(catalog, workload, plan, measurements)
    rent = gpu_rent(catalog, plan, options.gpu_price, own=options.own)
    demand = _demand(catalog, workload, options)
    cached = plan.chosen.engine_args.enable_prefix_caching
    share, share_source = _prefill_share(catalog, workload, options.as_of, prefix_caching=cached)
    fte = assumption(catalog, "staff_fte").value if options.staff_fte is None else options.staff_fte
    spare = assumption(catalog, "spare_nodes").value if options.spare_nodes is None else options.spare_nodes
    starts = start_hours_per_node_month(catalog, plan)
    egress = egress_usd_per_request(catalog, workload)
    slower = share + (1 - share) * terms.output_ratio
    scenario = Scenario(
        api_usd_per_request=request.breakdown.total,
        usd_per_node_hour=rent.value * plan.inputs.node.gpu_count,
        storage_usd_per_node_month=storage_usd_per_node_month(catalog, plan),
        staff_usd_per_month=fte * assumption(catalog, "staff_usd_per_fte_year").value / 12,
        requests_per_s_per_node=held.requests_per_s.value / slower,
        mean_over_peak=demand.value,
        spare_nodes=round(spare),
        start_hours_per_node_month=starts.value,
        egress_usd_per_request=egress.value,
    )
    return Frame(
        options=options,
        workload=workload,
        plan=plan,
        terms=terms,
        baseline=baseline,
        request=request,
        held=held,
        rent=rent,
        demand=demand,
        start_hours=starts,
        egress=egress,
        prefill_share=share,
        prefill_share_source=share_source,
        scenario=scenario,
        requests_per_day=options.requests_per_day or scenario.requests_per_day_per_node,
    )


def _terms(catalog: Catalog, options: CompareOptions) -> ApiTerms:
    counts = options.token_counts
    assumed = assumption(catalog, "claude_tokens_per_qwen_token").value
    return ApiTerms(
        as_of=options.as_of,
        cache=options.cache,  # type: ignore[arg-type]  # click has checked the choice
        batch=options.batch,
        residency=options.residency,
        extras=options.extras,
        token_ratio=options.token_ratio or (counts.input_ratio.value if counts else assumed),
        answer_token_ratio=counts.output_ratio.value if counts and counts.output_ratio else None,
        output_ratio=options.output_ratio or assumption(catalog, "qwen_output_per_sonnet_output").value,
        reference_tokenizer=reference_tokenizer(catalog),
    )


def _demand(catalog: Catalog, workload: Workload, options: CompareOptions) -> Figure:
    row = assumption(catalog, "mean_over_peak_coding" if workload.content == "code" else "mean_over_peak")
    if options.mean_over_peak is not None:
        given = options.mean_over_peak
        return Figure(value=given, low=given, high=given, basis="assumed", source="--mean-over-peak")
    if workload.mean_over_peak is not None:
        value, source = workload.mean_over_peak, workload.source
        return Figure(
            value=value, low=min(row.low, value), high=max(row.high, value), basis="published",
            source=source.where, as_of=source.as_of.isoformat(),
        )  # fmt: skip
    return Figure(
        value=row.value, low=row.low, high=row.high, basis="assumed", source=row.source.where,
        as_of=row.source.as_of.isoformat(),
    )  # fmt: skip


def _prefill_share(
    catalog: Catalog, workload: Workload, as_of: dt.date, *, prefix_caching: bool
) -> tuple[float, str]:
    """Share of a node's time that goes into prompts: fresh input against output at market weights.

    An output token weighs as many input tokens as hosted offers of this very model charge for it
    (their median); prompt tokens found in the prefix cache weigh nothing.
    """
    ratios = sorted(
        period.usd_per_mtok.output / period.usd_per_mtok.input
        for price in catalog.api_prices.values()
        if price.kind == "hosted_qwen"
        for period in price.periods
        if (period.since is None or period.since <= as_of) and (period.until is None or as_of <= period.until)
    )
    weight = ratios[len(ratios) // 2] if ratios else FALLBACK_OUTPUT_PRICE_RATIO
    hit = (workload.prefix_hit_unbounded or 0.0) if prefix_caching else 0.0
    fresh = workload.input_tokens.mean * (1 - hit)
    work = fresh + weight * workload.output_tokens.mean
    source = (
        f"split by work: an output token weighs {weight:g} fresh input tokens, "
        + ("the median price ratio of hosted offers of this model" if ratios else "an assumption")
        + ("; prompt tokens in the prefix cache weigh nothing" if hit else "")
    )
    return fresh / work, source


def levers_of(catalog: Catalog, frame: Frame, idle: IdleSessions | None = None) -> list[Lever]:
    """Everything with a range; what the user fixed has none.

    Where the node's cache holds fewer sessions than the published share asks for, its own hits range down to
    the share times held over needed.
    """
    options, rent, held, demand = frame.options, frame.rent, frame.held.requests_per_s, frame.demand
    best_usd, plain_usd = hit_range_usd(frame.baseline, frame.workload, frame.terms)
    found = [
        levers.gpu_price(rent, frame.gpus_per_node),
        levers.capacity(held.value, held.low, held.high, held.basis, held.source),
        levers.api_cache(
            frame.scenario.api_usd_per_request, plain_usd, best_usd, frame.workload.source.where
        ),
    ]
    found += [levers.start_ups(frame.start_hours), levers.egress(frame.egress)]
    hit = frame.workload.prefix_hit_unbounded
    if idle is not None and hit and idle.held < idle.needed:
        low = hit * idle.held / idle.needed
        said = f"{frame.workload.source.where}; low: the sessions the cache holds over those it needs"
        found.append(levers.own_prefix_hits(hit, low, frame.prefill_share, said))
    if options.mean_over_peak is None:
        found.append(levers.demand_shape(demand))
    if options.output_ratio is None:
        row = assumption(catalog, "qwen_output_per_sonnet_output")
        found.append(levers.verbosity(row, frame.prefill_share))
    if options.token_ratio is None:
        row = assumption(catalog, "claude_tokens_per_qwen_token")
        found.append(_tokenizer_lever(row, frame))
    if options.staff_fte is None:
        salary = assumption(catalog, "staff_usd_per_fte_year")
        usd = frame.scenario.staff_usd_per_month
        found.append(levers.staff(assumption(catalog, "staff_fte"), salary, usd))
    if options.spare_nodes is None:
        found.append(levers.spare_nodes(assumption(catalog, "spare_nodes"), frame.scenario.spare_nodes))
    return found


def measured_ratio(counts: TokenCounts) -> Figure:
    """The baseline's tokens per token of Qwen, on the user's own sample."""
    found = counts.input_ratio
    both = {counts.qwen.basis, counts.sonnet.basis}
    how = "95 % bootstrap" if found.interval == "bootstrap" else "range of single requests"
    return Figure(
        value=found.value, low=found.low, high=found.high,
        basis="measured" if both == {"measured"} else "assumed",
        source=f"{counts.sample}: {found.requests:,} requests counted by {counts.qwen.name} and "
        f"{counts.sonnet.name} ({how})",
        as_of=max(counts.qwen.date, counts.sonnet.date).isoformat(),
    )  # fmt: skip


def _tokenizer_lever(row: Assumption, frame: Frame) -> Lever:
    fees = frame.request.breakdown.fees
    if frame.options.token_counts is not None:
        return levers.tokenizer(measured_ratio(frame.options.token_counts), fees_usd_per_request=fees)
    known = frame.baseline.tokenizer
    high = row.high
    source = row.source.where
    if known is not None:
        high = {"prose": known.prose_high, "code": known.code_high, "other": known.other}[
            frame.workload.content
        ]
        source = known.source.where
    assumed = Figure(
        value=row.value, low=row.low, high=max(row.high, high), basis="assumed", source=source
    )  # fmt: skip
    return levers.tokenizer(assumed, fees_usd_per_request=fees)

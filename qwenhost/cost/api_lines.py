"""The API columns: which prices take part, under which caching, and what each bills a month."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Literal

import msgspec

from qwenhost.cost.api_cost import Breakdown, api_cost, period_on
from qwenhost.cost.comparison import ApiLine
from qwenhost.cost.extras import Extras, qwen_image_tokens
from qwenhost.cost.usage import CachePolicy, Usage, prefix_hit, workload_usage
from qwenhost.errors import BadInputError
from qwenhost.facts import TokenizerRatio, Value
from qwenhost.units import DAYS_PER_MONTH, TOKENS_PER_MTOK

if TYPE_CHECKING:
    from qwenhost.facts import ApiPrice, Catalog, Workload

BEYOND_TIERS = "is above the highest published tier: ask for custom limits"
POLICIES: tuple[CachePolicy, ...] = ("none", "5m", "1h")


class ApiTerms(Value, frozen=True, kw_only=True):
    """How the API side is billed."""

    as_of: dt.date
    cache: Literal["auto", "none", "5m", "1h"] = "auto"
    """``auto`` takes the cheapest policy whose hit share is published for the workload."""
    batch: bool = False
    residency: str | None = None
    token_ratio: float = 1.0
    """The API's tokens per token of the workload as published; Claude and others only, not hosted Qwen."""
    answer_token_ratio: float | None = None
    """The same for answers; None = as ``token_ratio``."""
    output_ratio: float = 1.0
    """Qwen's output tokens per output token of the workload; hosted Qwen only."""
    extras: Extras = Extras()
    """Tools, pictures (which the workload's sizes hold in Qwen's tokens) and searches of every request."""
    reference_tokenizer: TokenizerRatio | None = None
    """That of the main baseline; an API with a newer one counts more tokens for the same text."""


class PricedRequest(Value, frozen=True, kw_only=True):
    """The mean request under one policy, and its bill."""

    policy: CachePolicy
    usage: Usage
    breakdown: Breakdown
    remarks: tuple[str, ...] = ()


def price_request(price: ApiPrice, workload: Workload, terms: ApiTerms) -> PricedRequest:
    """The mean request of a workload at one API.

    Raises:
        BadInputError: no price on that day, or no batch or residency price.
    """
    policies = POLICIES if terms.cache == "auto" else (terms.cache,)
    priced = [under_policy(price, workload, terms, policy) for policy in policies]
    best = min(priced, key=lambda p: p.breakdown.total)
    if best.policy != "none":
        return best
    # Say why caching did not help, also where the plain bill was the one taken.
    remarks = dict.fromkeys(remark for request in priced for remark in request.remarks)
    return msgspec.structs.replace(best, remarks=tuple(remarks))


def select_prices(catalog: Catalog, baselines: tuple[str, ...]) -> tuple[list[ApiPrice], list[ApiPrice]]:
    """The baselines, the main one first, and the other prices of the comparison.

    Raises:
        BadInputError: an id the catalog does not have, or no baseline at all.
    """
    marked = [price for price in catalog.api_prices.values() if price.baseline]
    wanted = [find_price(catalog, name) for name in baselines] or marked
    if not wanted:
        raise BadInputError(
            "no API price to compare with", remedy="Add one to your profiles, or --baseline ID."
        )
    wanted = list({price.id: price for price in wanted}.values())
    ids = {price.id for price in wanted}
    rest = [price for price in catalog.api_prices.values() if price.kind != "other" and price.id not in ids]
    return wanted, rest


def find_price(catalog: Catalog, name: str) -> ApiPrice:
    """The price by its id or the API's own model name; ``4-6`` and ``4.6`` are one.

    Raises:
        BadInputError: the catalog does not have it.
    """
    for price in catalog.api_prices.values():
        if name.replace(".", "-") in (price.id.replace(".", "-"), price.model.replace(".", "-")):
            return price
    raise BadInputError(
        f"--baseline {name!r}: no such price", remedy=f"Known: {', '.join(sorted(catalog.api_prices))}."
    )


def api_line(
    price: ApiPrice,
    workload: Workload,
    terms: ApiTerms,
    *,
    is_baseline: bool,
    requests_per_day: float,
    mean_over_peak: float,
    break_even_requests_per_day: float | None,
) -> ApiLine:
    """One column of the comparison."""
    request = price_request(price, workload, terms)
    usage, bill = request.usage, request.breakdown
    usd_per_month = bill.total * requests_per_day * DAYS_PER_MONTH
    tier, tier_remark = _rate_limit(
        price, usage, requests_per_day / mean_over_peak / (24 * 60), usd_per_month=usd_per_month
    )
    period = period_on(price, terms.as_of)
    return ApiLine(
        id=price.id,
        name=price.name,
        kind=price.kind,
        provider=price.provider,
        is_baseline=is_baseline,
        cache_policy=request.policy,
        usage=usage,
        usd_per_request=bill.total,
        usd_per_mtok_input=bill.input / usage.prompt_tokens * TOKENS_PER_MTOK,
        usd_per_mtok_output=bill.output / usage.output_tokens * TOKENS_PER_MTOK,
        usd_per_month=usd_per_month,
        breakdown=bill,
        rate_limit_tier=tier,
        break_even_requests_per_day=break_even_requests_per_day,
        as_of=period.source.as_of.isoformat(),
        source=period.source.where,
        remarks=(*request.remarks, *tier_remark, *price.caveats),
    )


def hit_range_usd(price: ApiPrice, workload: Workload, terms: ApiTerms) -> tuple[float, float]:
    """USD per request with the best published hit share at any lifetime, and without any cache."""
    without = under_policy(price, workload, terms, "none").breakdown.total
    hits = (workload.prefix_hit_5m, workload.prefix_hit_1h, workload.prefix_hit_unbounded)
    best = max((hit for hit in hits if hit is not None), default=0.0)
    ideal = [
        under_policy(price, workload, terms, policy, hit=best).breakdown.total
        for policy in POLICIES
        if best > 0
    ]
    return min([without, *ideal]), without


def under_policy(
    price: ApiPrice, workload: Workload, terms: ApiTerms, policy: CachePolicy, *, hit: float | None = None
) -> PricedRequest:
    """The mean request under one policy, with the published hit share or the one given."""
    rates = period_on(price, terms.as_of).usd_per_mtok
    cache = price.cache if rates.cache_read is not None else None
    same_tokens = price.kind == "hosted_qwen"
    newer = newer_tokenizer(price, workload.content, terms)
    ratio = 1.0 if same_tokens else terms.token_ratio * newer[0]
    answers = (terms.answer_token_ratio or terms.token_ratio) / terms.token_ratio
    # What the API counts by itself is not converted, and takes the place of Qwen's count of the pictures.
    extras = terms.extras
    counted = qwen_image_tokens(extras.images) if price.image is not None and not same_tokens else 0.0
    added = extras.own_tokens(price) / ratio - counted
    usage = workload_usage(workload, policy, cache, added_tokens=added, hit=hit)
    usage = usage.scaled(ratio, output=terms.output_ratio if same_tokens else answers)
    usage = msgspec.structs.replace(usage, web_searches=extras.web_searches)
    batch, residency, sold_remarks = sold_terms(price, terms)
    remarks = [*sold_remarks, *newer_remark(newer), *extras.remarks(price)]
    effective: CachePolicy = policy if usage.cache_read_tokens or usage.cache_write_tokens else "none"
    if effective != policy:
        remarks.append(_no_cache_reason(price, workload, policy))
    bill = api_cost(price, usage, as_of=terms.as_of, batch=batch, residency=residency)
    return PricedRequest(policy=effective, usage=usage, breakdown=bill, remarks=tuple(remarks))


def reference_tokenizer(catalog: Catalog) -> TokenizerRatio | None:
    """The tokenizer of the price marked as baseline."""
    return next((price.tokenizer for price in catalog.api_prices.values() if price.baseline), None)


def newer_tokenizer(price: ApiPrice, content: str, terms: ApiTerms) -> tuple[float, float, float]:
    """(value, low, high): this API's tokens per token of the baseline's tokenizer, same text."""
    own, reference = price.tokenizer, terms.reference_tokenizer
    if own is None or reference is None or own == reference:
        return 1.0, 1.0, 1.0
    if content == "prose":
        return (
            own.prose / reference.prose,
            own.prose_low / reference.prose_low,
            own.prose_high / reference.prose_high,
        )
    if content == "code":
        return (
            own.code / reference.code,
            own.code_low / reference.code_low,
            own.code_high / reference.code_high,
        )
    return own.other / reference.other, 1.0, own.prose_high / reference.prose_high


def newer_remark(newer: tuple[float, float, float]) -> tuple[str, ...]:
    """What the ratio is, where there is one."""
    value, low, high = newer
    if value == 1:
        return ()
    band = f"{value:.2f} times the tokens ({low:.2f} to {high:.2f}, assumed)"
    return (f"billed at {band}: its tokenizer counts more for the same text",)


def sold_terms(price: ApiPrice, terms: ApiTerms) -> tuple[bool, str | None, tuple[str, ...]]:
    """Batch and residency where the API sells them; a remark where it does not."""
    batch, residency = terms.batch, terms.residency
    remarks: list[str] = []
    if batch and price.batch_multiplier is None:
        batch = False
        remarks.append("no batch price is published: billed at list")
    if residency not in (None, "global") and not price.residency_multiplier:
        residency = None
        remarks.append("no residency option is published: billed at list")
    return batch, residency, tuple(remarks)


def on_sale(price: ApiPrice, day: dt.date) -> bool:
    """Whether the API has a price on that day."""
    return any(
        (p.since is None or p.since <= day) and (p.until is None or day <= p.until) for p in price.periods
    )


def _no_cache_reason(price: ApiPrice, workload: Workload, policy: CachePolicy) -> str:
    if price.cache is None:
        return "no prompt-cache price is published: cached tokens are billed as input"
    if prefix_hit(workload, policy) is None:
        return "no cache hit share is published for this workload: billed without cache"
    return f"the prompt is below the minimum cacheable prefix of {price.cache.min_prefix_tokens:,} tokens"


def _rate_limit(
    price: ApiPrice, usage: Usage, peak_per_minute: float, *, usd_per_month: float
) -> tuple[str | None, tuple[str, ...]]:
    """The lowest tier that carries the peak and the bill; cache reads do not count towards its input."""
    if not price.rate_limits:
        return None, ()
    fresh_input = usage.uncached_input_tokens + usage.cache_write_tokens
    for limit in price.rate_limits:
        if (
            peak_per_minute <= limit.requests_per_minute
            and peak_per_minute * fresh_input <= limit.input_tokens_per_minute
            and peak_per_minute * usage.output_tokens <= limit.output_tokens_per_minute
            and usd_per_month <= (limit.spend_cap_usd_per_month or math.inf)
        ):
            return limit.tier, (f"the peak and the bill fit the published tier {limit.tier!r}",)
    need = f"the peak of {peak_per_minute:,.0f} requests a minute, or the bill,"
    return None, (f"{need} {BEYOND_TIERS}",)

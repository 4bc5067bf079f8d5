"""The API side alone: what a workload's mean request, or every request of a file, is billed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from qwenhost.cost.api_cost import Breakdown, UsageTable, period_on, trace_cost
from qwenhost.cost.api_lines import (
    POLICIES,
    ApiTerms,
    newer_remark,
    newer_tokenizer,
    on_sale,
    price_request,
    select_prices,
    sold_terms,
)
from qwenhost.cost.freshness import max_age_days
from qwenhost.cost.prompt_cache import cached_usages
from qwenhost.cost.usage import CACHE_TTL_S, CachePolicy, Usage
from qwenhost.facts import Value
from qwenhost.units import TOKENS_PER_MTOK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.cost.trace import Trace
    from qwenhost.facts import ApiPrice, CacheRules, Catalog, Workload

SCHEMA = "qwenhost.cost/1"
SUMMED = (
    "a usage report adds requests up: a request here is a row of the report, and counts as short prompts "
    "unless the report is grouped by context_window"
)


class QuoteLine(Value, frozen=True, kw_only=True):
    """One API's bill."""

    id: str
    name: str
    cache_policy: str
    """``recorded`` for a usage file priced as it stands."""
    usd_per_request: float
    usd_per_mtok_input: float | None
    """Effective; None without input."""
    usd_per_mtok_output: float | None
    usd_total: float
    """Of all requests."""
    usage: Usage
    """Mean request."""
    breakdown: Breakdown
    """USD per request."""
    as_of: str
    source: str
    remarks: tuple[str, ...]


class Quote(Value, frozen=True, kw_only=True):
    """Bills at every API, the baseline first."""

    schema: str = SCHEMA
    as_of: str
    subject: str
    """The workload's id or the file's name."""
    requests: int
    usd_per_request: float
    """At the baseline."""
    breakdown: Breakdown
    """Of the baseline, USD per request."""
    api: tuple[QuoteLine, ...]


def quote_workload(
    catalog: Catalog, workload: Workload, terms: ApiTerms, *, baselines: tuple[str, ...] = ()
) -> Quote:
    """One mean request of a workload.

    Raises:
        BadInputError: no price on that day, or a term a baseline does not sell.
    """
    limit = max_age_days(catalog, "api_prices")
    lines = []
    for price in _prices(catalog, terms, baselines):
        request = price_request(price, workload, terms)
        said = (*request.remarks, *_aged(price, terms, limit))
        lines.append(_line(price, terms, request.usage, request.breakdown, 1, request.policy, said))
    return _quote(workload.id, terms, 1, lines)


def quote_usage(
    catalog: Catalog,
    trace: Trace,
    name: str,
    terms: ApiTerms,
    *,
    baselines: tuple[str, ...] = (),
) -> Quote:
    """Every request of a file: as recorded, or under a cache.

    Where the file tells time and session (or prefixes), a cache is simulated by the API's own rules, and
    ``auto`` takes the cheapest lifetime; a file that records its cache traffic is billed as recorded.
    Elsewhere another policy only moves the recorded traffic.

    Raises:
        BadInputError: no price on that day, or a term a baseline does not sell.
    """
    tables = _Tables(trace)
    limit = max_age_days(catalog, "api_prices")
    lines = []
    for price in _prices(catalog, terms, baselines):
        batch, residency, remarks = sold_terms(price, terms)
        foreign = price.batch_multiplier is None
        priced = [
            (
                trace_cost(
                    price, table, as_of=terms.as_of, batch=batch or None, residency=residency, plain=foreign
                ),
                label,
            )
            for label, table in tables.under(price, terms)
        ]
        bill, policy = min(priced, key=lambda found: found[0].total.total)
        each = 1 / bill.requests
        newer = newer_tokenizer(price, "other", terms)
        said = (*remarks, *newer_remark(newer), *((SUMMED,) if trace.summed else ()))
        mean = bill.usage.scaled(each * newer[0])
        fees = bill.total.fees * each
        each_bill = msgspec.structs.replace(bill.total.times(each * newer[0]), fees=fees)
        said += _aged(price, terms, limit)
        lines.append(_line(price, terms, mean, each_bill, bill.requests, policy, said))
    return _quote(name, terms, len(trace.usages), lines)


class _Tables:
    """The trace under each cache policy, made once for all prices with the same rules."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.made: dict[tuple[str, CacheRules | None], UsageTable] = {}

    def under(self, price: ApiPrice, terms: ApiTerms) -> list[tuple[str, UsageTable]]:
        """(label, requests) of each policy that comes into question."""
        recorded = terms.cache == "auto" and (self.trace.records_cache or not self.trace.turns)
        if recorded:
            return [("recorded", self._table("recorded", None, lambda: self.trace.usages))]
        policies: tuple[CachePolicy, ...] = POLICIES if terms.cache == "auto" else (terms.cache,)
        return [self._simulated(price, terms, policy) for policy in policies]

    def _simulated(self, price: ApiPrice, terms: ApiTerms, policy: CachePolicy) -> tuple[str, UsageTable]:
        rules, turns = price.cache, self.trace.turns
        sold = rules is not None and period_on(price, terms.as_of).usd_per_mtok.cache_read is not None
        if policy == "none" or not turns:
            return policy, self._table(
                policy, None, lambda: [usage.with_cache(policy) for usage in self.trace.usages]
            )
        if rules is None or not sold or CACHE_TTL_S[policy] not in rules.ttl_s:
            return "none", self._table(
                "none", None, lambda: [usage.with_cache("none") for usage in self.trace.usages]
            )
        return f"{policy} simulated", self._table(
            policy, rules, lambda: list(cached_usages(turns, rules, policy))
        )

    def _table(self, label: str, rules: CacheRules | None, make: Callable[[], list[Usage]]) -> UsageTable:
        key = (label, rules)
        if key not in self.made:
            self.made[key] = UsageTable(make())
        return self.made[key]


def _aged(price: ApiPrice, terms: ApiTerms, limit: int | None) -> tuple[str, ...]:
    seen = period_on(price, terms.as_of).source.as_of
    age = (terms.as_of - seen).days
    if limit is None or age <= limit:
        return ()
    return (f"price seen {age} days ago ({seen}), older than its stated age of {limit}",)


def _prices(catalog: Catalog, terms: ApiTerms, baselines: tuple[str, ...]) -> list[ApiPrice]:
    wanted, others = select_prices(catalog, baselines)
    return wanted + [price for price in others if on_sale(price, terms.as_of)]


def _line(  # noqa: PLR0917 - the line's columns, in order
    price: ApiPrice,
    terms: ApiTerms,
    usage: Usage,
    bill: Breakdown,
    requests: int,
    policy: str,
    remarks: Sequence[str],
) -> QuoteLine:
    period = period_on(price, terms.as_of)
    per_input = bill.input / usage.prompt_tokens * TOKENS_PER_MTOK if usage.prompt_tokens else None
    per_output = bill.output / usage.output_tokens * TOKENS_PER_MTOK if usage.output_tokens else None
    return QuoteLine(
        id=price.id,
        name=price.name,
        cache_policy=policy,
        usd_per_request=bill.total,
        usd_per_mtok_input=per_input,
        usd_per_mtok_output=per_output,
        usd_total=bill.total * requests,
        usage=usage,
        breakdown=bill,
        as_of=period.source.as_of.isoformat(),
        source=period.source.where,
        remarks=(*remarks, *price.caveats),
    )


def _quote(subject: str, terms: ApiTerms, requests: int, lines: list[QuoteLine]) -> Quote:
    return Quote(
        as_of=terms.as_of.isoformat(),
        subject=subject,
        requests=requests,
        usd_per_request=lines[0].usd_per_request,
        breakdown=lines[0].breakdown,
        api=tuple(lines),
    )

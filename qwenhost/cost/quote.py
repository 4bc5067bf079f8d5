"""The API side alone: what a workload's mean request, or every request of a file, is billed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from qwenhost.cost.api_cost import Breakdown, period_on, trace_cost
from qwenhost.cost.api_lines import ApiTerms, on_sale, price_request, select_prices, sold_terms
from qwenhost.cost.usage import Usage
from qwenhost.facts import Value
from qwenhost.units import TOKENS_PER_MTOK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.facts import ApiPrice, Catalog, Workload

SCHEMA = "qwenhost.cost/1"


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
    lines = []
    for price in _prices(catalog, terms, baselines):
        request = price_request(price, workload, terms)
        lines.append(
            _line(price, terms, request.usage, request.breakdown, 1, request.policy, request.remarks)
        )
    return _quote(workload.id, terms, 1, lines)


def quote_usage(
    catalog: Catalog, usages: Sequence[Usage], name: str, terms: ApiTerms, *, baselines: tuple[str, ...] = ()
) -> Quote:
    """Every request of a file, as recorded or with its cache traffic moved to another policy.

    Raises:
        BadInputError: no price on that day, or a term a baseline does not sell.
    """
    rows = usages if terms.cache == "auto" else [usage.with_cache(terms.cache) for usage in usages]
    lines = []
    for price in _prices(catalog, terms, baselines):
        batch, residency, remarks = sold_terms(price, terms)
        own = [_plain(usage) for usage in rows] if price.batch_multiplier is None else rows
        bill = trace_cost(price, own, as_of=terms.as_of, batch=batch or None, residency=residency)
        policy = "recorded" if terms.cache == "auto" else terms.cache
        each = 1 / bill.requests
        lines.append(
            _line(
                price, terms, bill.usage.scaled(each), bill.total.times(each), bill.requests, policy, remarks
            )
        )
    return _quote(name, terms, len(usages), lines)


def _prices(catalog: Catalog, terms: ApiTerms, baselines: tuple[str, ...]) -> list[ApiPrice]:
    wanted, others = select_prices(catalog, baselines)
    return wanted + [price for price in others if on_sale(price, terms.as_of)]


def _plain(usage: Usage) -> Usage:
    """Without the batch flag and region recorded at another API, which this one does not sell."""
    return msgspec.structs.replace(usage, batch=False, inference_geo=None)


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

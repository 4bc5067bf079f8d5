"""What an API bills for a request: dated rates, long context, cache, batch, residency, fees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.cost.usage import Usage
from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.units import TOKENS_PER_MTOK

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    from qwenhost.facts import ApiPrice, ImageRule, RatePeriod, TokenRates


_Class = tuple[bool, bool, str | None]
"""(above the long-context threshold, batch, residency): within one, a bill is linear in tokens."""


class Breakdown(Value, frozen=True, kw_only=True):
    """USD by billing bucket."""

    uncached_input: float = 0.0
    cache_write: float = 0.0
    cache_read: float = 0.0
    output: float = 0.0
    fees: float = 0.0
    """Per-event fees such as web search; no multiplier touches them."""

    @property
    def input(self) -> float:
        """All input buckets."""
        return self.uncached_input + self.cache_write + self.cache_read

    @property
    def tokens(self) -> float:
        """Everything billed by the token."""
        return self.input + self.output

    @property
    def total(self) -> float:
        """Everything."""
        return self.tokens + self.fees

    def times(self, factor: float) -> Breakdown:
        """Every bucket times ``factor``."""
        return Breakdown(**{name: getattr(self, name) * factor for name in Breakdown.__struct_fields__})

    def plus(self, other: Breakdown) -> Breakdown:
        """Bucket by bucket."""
        fields = Breakdown.__struct_fields__
        return Breakdown(**{name: getattr(self, name) + getattr(other, name) for name in fields})


class TraceCost(Value, frozen=True, kw_only=True):
    """The bill of many requests."""

    requests: int
    total: Breakdown
    usage: Usage
    """Summed over the requests."""


def api_cost(
    price: ApiPrice,
    usage: Usage,
    *,
    as_of: dt.date,
    batch: bool | None = None,
    residency: str | None = None,
) -> Breakdown:
    """USD for one request.

    usd = tokens / 10^6 * rate * batch_multiplier * residency_multiplier, by bucket; the whole request
    moves to the long-context rates above their threshold. Fees stay at list. Source: pricing page of
    the API, as dated in the price's profile.

    Args:
        price: the price sheet.
        usage: what the request uses, in this API's tokens.
        as_of: day whose rates apply.
        batch: bill as batch; None = as the usage says.
        residency: e.g. ``us``; None = as the usage says, else global.

    Raises:
        BadInputError: no rates on that day, or no batch or residency price.
    """
    multiplier = _multiplier(
        price,
        batch=usage.batch if batch is None else batch,
        residency=residency or usage.inference_geo,
    )
    length = usage.prompt_tokens if usage.long_context is None else math.inf if usage.long_context else 0.0
    return _bill(price, usage, rates_on(price, as_of, length), multiplier)


class UsageTable:
    """Many requests, summed once for each class of rates: every price then costs a handful of products."""

    def __init__(self, usages: Iterable[Usage]) -> None:
        self.usages = usages if isinstance(usages, list) else list(usages)
        self._sums: dict[float, dict[_Class, list[float]]] = {}

    def classes(self, threshold: float) -> dict[_Class, list[float]]:
        """Sums by (above the long-context threshold, batch, residency)."""
        if threshold not in self._sums:
            self._sums[threshold] = _sum_by_class(self.usages, threshold)
        return self._sums[threshold]


def trace_cost(
    price: ApiPrice,
    usages: Iterable[Usage] | UsageTable,
    *,
    as_of: dt.date,
    batch: bool | None = None,
    residency: str | None = None,
    plain: bool = False,
) -> TraceCost:
    """The bill of every request of a trace.

    A bill is linear in tokens within one rate class, so requests are summed by class (long context,
    batch, residency) and each class is priced once.

    Args:
        price: the price sheet.
        usages: requests; a table shares its sums among prices.
        as_of: day whose rates apply.
        batch: bill all as batch, or none; None = as recorded.
        residency: of all; None = as recorded.
        plain: forget the batch flags and regions recorded at another API.

    Raises:
        BadInputError: as :func:`api_cost`.
    """
    table = usages if isinstance(usages, UsageTable) else UsageTable(usages)
    threshold = period_on(price, as_of).long_context_threshold_tokens or math.inf
    total, everything = Breakdown(), [0.0] * len(_SUMMED)
    for (long, was_batch, geo), sums in table.classes(threshold).items():
        rates = rates_on(price, as_of, math.inf if long else 0)
        recorded = (was_batch and not plain, None if plain else geo)
        multiplier = _multiplier(
            price, batch=recorded[0] if batch is None else batch, residency=residency or recorded[1]
        )
        total = total.plus(_bill(price, _summed(sums), rates, multiplier))
        everything = [a + b for a, b in zip(everything, sums, strict=True)]
    return TraceCost(requests=len(table.usages), total=total, usage=_summed(everything))


def period_on(price: ApiPrice, as_of: dt.date) -> RatePeriod:
    """The rates that hold on a day.

    Raises:
        BadInputError: none do; lists the days that are known.
    """
    for period in price.periods:
        if (period.since is None or period.since <= as_of) and (
            period.until is None or as_of <= period.until
        ):
            return period
    known = "; ".join(f"{p.since or 'ever'} to {p.until or 'today'}" for p in price.periods)
    raise BadInputError(
        f"{price.id}: no price on {as_of.isoformat()}", remedy=f"Choose --as-of within: {known}."
    )


def rates_on(price: ApiPrice, as_of: dt.date, prompt_tokens: float) -> TokenRates:
    """The rates of a request of this length on a day; above the threshold the whole request moves.

    Raises:
        BadInputError: no price on that day.
    """
    period = period_on(price, as_of)
    threshold, long_rates = period.long_context_threshold_tokens, period.long_context_usd_per_mtok
    if threshold is not None and long_rates is not None and prompt_tokens > threshold:
        return long_rates
    return period.usd_per_mtok


def image_tokens(rule: ImageRule, width_px: int, height_px: int) -> int:
    """Tokens of one image: downscaled to the limits, then ceil(w/patch) * ceil(h/patch)."""
    shrink = min(1.0, rule.max_long_edge_px / max(width_px, height_px))

    def tokens(factor: float) -> int:
        across = math.ceil(round(width_px * factor) / rule.patch_px)
        down = math.ceil(round(height_px * factor) / rule.patch_px)
        return across * down

    # The largest scale that keeps the token limit; the count is monotone in the scale.
    low, high = 0.0, shrink
    if tokens(high) <= rule.max_tokens:
        return tokens(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if tokens(middle) <= rule.max_tokens else (low, middle)
    return tokens(low)


def _multiplier(price: ApiPrice, *, batch: bool, residency: str | None) -> float:
    if batch and price.batch_multiplier is None:
        raise BadInputError(
            f"{price.id}: no batch price is published", remedy="Leave --batch out for this model."
        )
    batch_multiplier = price.batch_multiplier if batch and price.batch_multiplier is not None else 1.0
    if residency in (None, "global", "not_available", ""):
        return batch_multiplier
    if residency not in price.residency_multiplier:
        known = ", ".join(sorted(price.residency_multiplier)) or "none"
        raise BadInputError(
            f"{price.id}: no price for residency {residency!r}", remedy=f"Published: {known}."
        )
    return batch_multiplier * price.residency_multiplier[residency]


_SUMMED: Final = (
    "uncached_input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
    "web_searches",
)


def _sum_by_class(usages: list[Usage], threshold: float) -> dict[_Class, list[float]]:
    """One pass; the additions are written out because this is the hot loop of a long trace."""
    classes: dict[_Class, list[float]] = {}
    for use in usages:
        plain, read, out = use.uncached_input_tokens, use.cache_read_tokens, use.output_tokens
        five, hour, searches = use.cache_write_5m_tokens, use.cache_write_1h_tokens, use.web_searches
        long = use.long_context
        if long is None:
            long = plain + five + hour + read > threshold
        key = (long, use.batch, use.inference_geo)
        sums = classes.get(key)
        if sums is None:
            sums = classes[key] = [0.0] * len(_SUMMED)
        sums[0] += plain
        sums[1] += five
        sums[2] += hour
        sums[3] += read
        sums[4] += out
        sums[5] += searches
    return classes


def _summed(sums: Sequence[float]) -> Usage:
    return msgspec.convert(dict(zip(_SUMMED, sums, strict=True)), Usage)


def _bill(price: ApiPrice, usage: Usage, rates: TokenRates, multiplier: float) -> Breakdown:
    per_token = multiplier / TOKENS_PER_MTOK
    write_5m = rates.input if rates.cache_write_5m is None else rates.cache_write_5m
    write_1h = rates.input if rates.cache_write_1h is None else rates.cache_write_1h
    read = rates.input if rates.cache_read is None else rates.cache_read
    written = usage.cache_write_5m_tokens * write_5m + usage.cache_write_1h_tokens * write_1h
    return Breakdown(
        uncached_input=usage.uncached_input_tokens * rates.input * per_token,
        cache_write=written * per_token,
        cache_read=usage.cache_read_tokens * read * per_token,
        output=usage.output_tokens * rates.output * per_token,
        fees=usage.web_searches * price.fees_usd.get("web_search_per_1000", 0.0) / 1000,
    )

"""A run's figures by session turn and by URL, what was repeated, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.measurements import SessionFigures, Spending, UrlFigures, percentiles
from qwenhost.probe import summary
from qwenhost.probe.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.measurements import RequestRecord
    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.totals import SessionTotals


def by_url(
    records: Sequence[RequestRecord],
    by_replica: Mapping[int, Totals],
    urls: Sequence[str],
    window: summary.Window,
) -> tuple[UrlFigures, ...]:
    """One for each of several URLs; empty where there is one."""
    if len(urls) == 1:
        return ()
    found = []
    for number, url in enumerate(urls):
        own = [record for record in records if record.replica == number]
        totals = by_replica.get(number) or Totals()
        times = summary.latencies(own, totals)
        rates = summary.rates(own, window, summary.Scale.of(own, totals))
        found.append(
            UrlFigures(
                url=url, requests=summary.request_counts(totals), output_tokens_per_s=rates.output_tokens,
                request_per_s=rates.requests, ttft_ms=times.ttft_ms, tpot_ms=times.tpot_ms,
                e2e_ms=times.e2e_ms,
            )
        )  # fmt: skip
    return tuple(found)


def of_sessions(
    records: Sequence[RequestRecord], totals: SessionTotals, config: ProbeConfig,
    counters: Mapping[str, float],
) -> SessionFigures | None:  # fmt: skip
    """What sessions add; None where requests have nothing to do with one another."""
    if not totals.requests:
        return None
    turned = [record for record in records if record.session is not None and record.ok]
    later = [record for record in turned if record.turn]
    prompt_tokens, cached = totals.input_tokens, totals.cached_tokens
    return SessionFigures(
        sessions=totals.sessions,
        requests_per_session=totals.requests / totals.sessions,
        think_time_s=config.think_time_s,
        repeated_share=totals.repeated_tokens / prompt_tokens if prompt_tokens else 0.0,
        cached_share=cached / prompt_tokens if prompt_tokens and cached else None,
        prefix_cache_hit_rate=counters.get("prefix_cache_hit_rate"),
        ttft_first_turn_ms=percentiles([r.ttft_ms for r in turned if not r.turn and r.ttft_ms is not None]),
        ttft_later_turns_ms=percentiles([r.ttft_ms for r in later if r.ttft_ms is not None]),
    )


def spending(totals: Totals, config: ProbeConfig, worst_request_usd: float | None) -> Spending | None:
    """What the run cost, by the usage that the API reported; None where nothing is billed."""
    if config.budget is None:
        return None
    prices = config.budget.prices
    return Spending(
        usd=totals.bill.usd(prices, worst_request_usd or 0.0),
        max_usd=config.budget.max_usd,
        source=prices.source,
    )

"""A run's figures by session turn and by URL, what was repeated, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.measurements import (
    RequestRecord,
    SessionFigures,
    Spending,
    UrlFigures,
    percentiles,
)
from qwenhost.probe import summary
from qwenhost.probe.spending import spent_on

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.probe.config import ProbeConfig


def by_url(
    records: Sequence[RequestRecord], urls: Sequence[str], window: summary.Window
) -> tuple[UrlFigures, ...]:
    """One for each of several URLs; empty where there is one."""
    if len(urls) == 1:
        return ()
    found = []
    for number, url in enumerate(urls):
        own = [record for record in records if record.replica == number]
        times, rates = summary.latencies(own), summary.rates(own, window)
        found.append(
            UrlFigures(
                url=url, requests=summary.request_counts(own), output_tokens_per_s=rates.output_tokens,
                request_per_s=rates.requests, ttft_ms=times.ttft_ms, tpot_ms=times.tpot_ms,
                e2e_ms=times.e2e_ms,
            )
        )  # fmt: skip
    return tuple(found)


def of_sessions(
    records: Sequence[RequestRecord], config: ProbeConfig, counters: Mapping[str, float]
) -> SessionFigures | None:
    """What sessions add; None where requests have nothing to do with one another."""
    turned = [record for record in records if record.session is not None and record.ok]
    if not turned:
        return None
    later = [record for record in turned if record.turn]
    prompt_tokens = sum(record.input_tokens for record in turned)
    cached = sum(record.cached_tokens for record in turned)
    return SessionFigures(
        sessions=len({record.session for record in turned}),
        requests_per_session=len(turned) / len({record.session for record in turned}),
        think_time_s=config.think_time_s,
        repeated_share=_repeated_tokens(turned) / prompt_tokens if prompt_tokens else 0.0,
        cached_share=cached / prompt_tokens if prompt_tokens and cached else None,
        prefix_cache_hit_rate=counters.get("prefix_cache_hit_rate"),
        ttft_first_turn_ms=percentiles([r.ttft_ms for r in turned if not r.turn and r.ttft_ms is not None]),
        ttft_later_turns_ms=percentiles([r.ttft_ms for r in later if r.ttft_ms is not None]),
    )


def _repeated_tokens(records: Sequence[RequestRecord]) -> int:
    """Prompt tokens that stood in the prompt of the turn before; its answer, read anew, is not counted."""
    prompts = {(record.session, record.turn): record.input_tokens for record in records}
    return sum(
        min(record.input_tokens, prompts.get((record.session, (record.turn or 0) - 1), 0))
        for record in records
    )


def spending(
    records: Sequence[RequestRecord], config: ProbeConfig, worst_request_usd: float | None
) -> Spending | None:
    """What the run cost, by the usage that the API reported; None where nothing is billed."""
    if config.budget is None:
        return None
    prices = config.budget.prices
    return Spending(
        usd=sum(spent_on(record, prices, worst_request_usd or 0.0) for record in records),
        max_usd=config.budget.max_usd,
        source=prices.source,
    )

"""What changes over time and over load: dated prices of this request, and runs at several loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from qwenhost.cost.api_lines import price_request
from qwenhost.cost.comparison import DatedPrice, LoadPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qwenhost.cost.api_lines import ApiTerms
    from qwenhost.facts import ApiPrice, Workload
    from qwenhost.measurements import Measurements


def dated_prices(prices: Iterable[ApiPrice], workload: Workload, terms: ApiTerms) -> tuple[DatedPrice, ...]:
    """Every period of every price that has a first day, oldest first."""
    found = []
    for price in prices:
        for period in price.periods:
            if period.since is None:
                continue
            then = msgspec.structs.replace(terms, as_of=period.since)
            found.append(
                DatedPrice(
                    id=price.id,
                    name=price.name,
                    since=period.since.isoformat(),
                    until=period.until.isoformat() if period.until else None,
                    usd_per_request=price_request(price, workload, then).breakdown.total,
                    usd_per_mtok_input=period.usd_per_mtok.input,
                    usd_per_mtok_output=period.usd_per_mtok.output,
                    source=period.source.where,
                    as_of=period.source.as_of.isoformat(),
                )
            )
    return tuple(sorted(found, key=lambda row: (row.since, row.id)))


def load_points(runs: Sequence[Measurements]) -> tuple[LoadPoint, ...]:
    """Runs in the order of what they delivered; nothing for fewer than two."""
    if len(runs) < 2:
        return ()
    points = [
        LoadPoint(
            load=f"{run.load.concurrency} in flight" if run.load.kind == "closed" else f"{run.load.rate:g}/s",
            request_per_s=run.request_per_s,
            output_tokens_per_s=run.output_tokens_per_s,
            goodput_requests_per_s=run.goodput.requests_per_s if run.goodput else None,
            ttft_ms=run.ttft_ms,
            tpot_ms=run.tpot_ms,
            started_at=run.started_at.isoformat(),
            simulated=run.server.simulated,
        )
        for run in runs
    ]
    return tuple(sorted(points, key=lambda point: point.request_per_s))


def best_run(runs: Sequence[Measurements]) -> Measurements:
    """The run that carried most within its service level; void runs come last."""
    return max(
        runs,
        key=lambda run: (not run.void, run.goodput.requests_per_s if run.goodput else run.request_per_s),
    )

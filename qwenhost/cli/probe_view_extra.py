"""What some runs have besides: sessions, pictures, tools, several URLs, a bill."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.measurements import Measurements, Percentiles, SessionFigures


def extra_lines(measured: Measurements) -> Iterator[str]:
    """Lines for people."""
    if measured.sessions is not None:
        yield from _sessions(measured.sessions)
    workload = measured.workload
    if workload.image_tokens is not None:
        yield f"Pictures: {workload.image_tokens:,.0f} prompt tokens a request (measured)"
    if workload.tools:
        yield f"Tools: {workload.tools} defined, {workload.tool_calls:,} calls in the answers"
    for one in measured.by_url:
        yield (
            f"  {one.url}: {one.requests.completed:,} of {one.requests.sent:,} completed, "
            f"{one.output_tokens_per_s:,.1f} output tok/s, TTFT {_p50_p99(one.ttft_ms)}, "
            f"TPOT {_p50_p99(one.tpot_ms)}"
        )
    if measured.spending is not None:
        spent = measured.spending
        yield f"Spent: {spent.usd:.4f} USD of {spent.max_usd:g} allowed, by the API's usage ({spent.source})"


def _sessions(figures: SessionFigures) -> Iterator[str]:
    yield (
        f"Sessions: {figures.sessions:,}, {figures.requests_per_session:.1f} requests each; TTFT of first "
        f"turns {_p50_p99(figures.ttft_first_turn_ms)}, of later ones {_p50_p99(figures.ttft_later_turns_ms)}"
    )
    served = [
        f"{share:.1%} {by}"
        for share, by in (
            (figures.cached_share, "by usage"),
            (figures.prefix_cache_hit_rate, "by /metrics"),
        )
        if share is not None
    ]
    yield (
        f"Cache: {figures.repeated_share:.1%} of prompt tokens stood in the turn before; served from the "
        f"cache: {' and '.join(served) or 'the server does not say'}"
    )


def _p50_p99(row: Percentiles) -> str:
    if row.p50 is None or row.p99 is None:
        return "-"
    return f"p50 {row.p50:,.1f} p99 {row.p99:,.1f} ms"

"""A recorded trace as a workload: its sizes, its rhythm, and what a cache would find in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.cost.prompt_cache import simulate_cache
from qwenhost.cost.scenario import SECONDS_PER_DAY
from qwenhost.errors import BadInputError
from qwenhost.facts import CacheRules, Source, TokenStats, Workload

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from qwenhost.cost.prompt_cache import Turn
    from qwenhost.cost.trace import Trace

# Shorter traces say nothing about a day; the peak is that of whole buckets.
MIN_SPAN_S = 600.0
PEAK_PERCENTILE = 0.99
FOREVER = CacheRules(min_prefix_tokens=0, ttl_s=(300, 3600), read_refreshes_ttl=True)


def workload_of_trace(trace: Trace, base: Workload, *, name: str, as_of: dt.date) -> Workload:
    """The trace's own sizes and rhythm; service level and kind of text stay those of ``base``.

    Hit shares are what the trace records, else simulated where it tells sessions or prefixes (no minimum
    prefix); none otherwise. Mean over peak is that of minutes, or of hours in traces of a day or more, the
    peak being their 99th percentile.

    Raises:
        BadInputError: a usage report, whose rows are sums and have no request sizes.
    """
    if trace.summed:
        raise BadInputError(
            f"{name}: a usage report holds sums, and a workload needs the sizes of requests",
            remedy="Price the report with qwenhost cost --usage, or give a file with one row a request.",
        )
    stats = {
        "input_tokens": _stats([usage.prompt_tokens for usage in trace.usages]),
        "output_tokens": _stats([usage.output_tokens for usage in trace.usages]),
    }
    changes: dict[str, Any] = {
        "id": name, "description": f"{len(trace.usages):,} recorded requests of {name}", **stats,
        "prefix_hit_5m": None, "prefix_hit_1h": None, "prefix_hit_unbounded": None,
        "gap_s_p50": None, "gap_s_p95": None, "requests_per_session": 1.0, "image_tokens": 0.0,
        "mean_over_peak": mean_over_peak(trace.times_s), "synthetic": False, "licence": "",
        "source": Source(where=name, as_of=as_of),
    }  # fmt: skip
    if trace.turns:
        changes |= _of_sessions(trace.turns)
    if trace.records_cache:
        prompt = sum(usage.prompt_tokens for usage in trace.usages)
        hit = sum(usage.cache_read_tokens for usage in trace.usages) / prompt
        changes |= {"prefix_hit_5m": hit, "prefix_hit_1h": hit, "prefix_hit_unbounded": hit}
    return msgspec.structs.replace(base, **changes)


def requests_per_day(trace: Trace) -> float | None:
    """Mean daily volume; None where the trace is too short, or tells no times."""
    span_s = _span_s(trace.times_s)
    return None if span_s < MIN_SPAN_S else len(trace.times_s) / span_s * SECONDS_PER_DAY


def mean_over_peak(times_s: Sequence[float]) -> float | None:
    """Mean requests a bucket over the 99th percentile of buckets; None where the trace is too short."""
    span_s = _span_s(times_s)
    if span_s < MIN_SPAN_S:
        return None
    width_s = 3600.0 if span_s >= SECONDS_PER_DAY else 60.0
    first = min(times_s)
    counts = [0] * (int(span_s / width_s) + 1)
    for at in times_s:
        counts[int((at - first) / width_s)] += 1
    whole = counts[:-1] or counts  # the last bucket is cut short
    peak = sorted(whole)[round(PEAK_PERCENTILE * (len(whole) - 1))]
    return min(1.0, sum(whole) / len(whole) / peak) if peak else None


def _of_sessions(turns: Sequence[Turn]) -> Mapping[str, Any]:
    found: dict[str, Any] = {
        "prefix_hit_5m": simulate_cache(turns, FOREVER, "5m").hit,
        "prefix_hit_1h": simulate_cache(turns, FOREVER, "1h").hit,
    }
    found["prefix_hit_unbounded"] = found["prefix_hit_1h"]
    last: dict[object, float] = {}
    gaps: list[float] = []
    for turn in sorted(turns, key=lambda turn: turn.at_s):
        if turn.session in last:
            gaps.append(turn.at_s - last[turn.session])
        last[turn.session] = turn.at_s
    sessions = {turn.session for turn in turns}
    if None not in sessions:
        found["requests_per_session"] = len(turns) / len(sessions)
    if None not in sessions and len(gaps) > 1 and _at(sorted(gaps), 0.5) > 0:
        gaps.sort()
        found |= {"gap_s_p50": _at(gaps, 0.5), "gap_s_p95": _at(gaps, 0.95)}
    return found


def _stats(tokens: list[float]) -> TokenStats:
    tokens.sort()
    mean = sum(tokens) / len(tokens)
    return TokenStats(mean=mean, p50=_at(tokens, 0.5), p90=_at(tokens, 0.9), p99=_at(tokens, 0.99))


def _at(ordered: Sequence[float], q: float) -> float:
    return ordered[round(q * (len(ordered) - 1))]


def _span_s(times_s: Sequence[float]) -> float:
    return max(times_s) - min(times_s) if times_s else 0.0

"""From records to the figures of a run."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.facts import Slo, Value
from qwenhost.measurements import (
    Goodput,
    Lag,
    Percentiles,
    RequestCounts,
    RequestRecord,
    percentile,
    percentiles,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.probe.gaps import GapHistogram

STEADY_AT_LEAST: Final = 1 / 3
"""Rates are taken over the steady part where it covers at least this share of the run."""


class Window(Value, frozen=True, kw_only=True):
    """The part of a run over which rates are taken."""

    start_s: float
    end_s: float
    kind: Literal["steady", "whole"]

    @property
    def duration_s(self) -> float:
        """Its length; never zero."""
        return max(self.end_s - self.start_s, 1e-9)

    def share_of(self, record: RequestRecord) -> float:
        """How much of a request lies inside: by its chunks, by its span where their times were dropped."""
        times = record.token_times_s
        if not times:
            return self._share_of_span(record)
        return (bisect_right(times, self.end_s) - bisect_left(times, self.start_s)) / len(times)

    def _share_of_span(self, record: RequestRecord) -> float:
        first, last = record.first_token_s, record.last_s
        if first is None or last is None:
            return 0.0
        if last <= first:
            return float(self.start_s <= first <= self.end_s)
        return max(0.0, min(last, self.end_s) - max(first, self.start_s)) / (last - first)


class Rates(Value, frozen=True, kw_only=True):
    """Throughput of completed requests, per second."""

    requests: float
    input_tokens: float
    output_tokens: float


def run_duration_s(records: Sequence[RequestRecord]) -> float:
    """First due time to last token; to the last send where no token came."""
    if not records:
        return 0.0
    end = max(record.sent_s if record.last_s is None else record.last_s for record in records)
    return max(0.0, end - min(record.scheduled_s for record in records))


def rate_window(records: Sequence[RequestRecord], *, not_before_s: float = 0.0) -> Window:
    """From the first completion to the last send: before it the pipe fills, after it the run drains.

    Where that is less than a third of the run, the whole run, first due time to last token.

    Args:
        records: of the run.
        not_before_s: when the load was complete, where it was brought up gradually.
    """
    start = min((record.scheduled_s for record in records), default=0.0)
    whole = Window(start_s=start, end_s=start + run_duration_s(records), kind="whole")
    ends = [record.last_s for record in records if record.ok and record.last_s is not None]
    if not ends:
        return whole
    steady = Window(
        start_s=max(min(ends), not_before_s), end_s=max(record.sent_s for record in records), kind="steady"
    )
    return steady if steady.duration_s >= STEADY_AT_LEAST * whole.duration_s else whole


def rates(records: Sequence[RequestRecord], window: Window) -> Rates:
    """Requests and tokens per second in the window.

    A request counts with the share of its chunks that arrived in the window, in requests, input and
    output alike, so that the three stay in proportion.
    """
    shares = [(record, window.share_of(record)) for record in records if record.ok]
    return Rates(
        requests=sum(share for _, share in shares) / window.duration_s,
        input_tokens=sum(share * record.input_tokens for record, share in shares) / window.duration_s,
        output_tokens=sum(share * record.output_tokens for record, share in shares) / window.duration_s,
    )


def goodput_in(records: Sequence[RequestRecord], slo: Slo, window: Window) -> Goodput:
    """Rates of the requests that kept every limit, over the same window as all rates."""
    good = [record for record in records if record.meets(slo)]
    kept = rates(good, window)
    return Goodput(
        slo=slo,
        requests_per_s=kept.requests,
        output_tokens_per_s=kept.output_tokens,
        fraction=len(good) / len(records) if records else 0.0,
    )


def request_counts(records: Sequence[RequestRecord]) -> RequestCounts:
    """How many ended well, and how the others failed."""
    errors = Counter(record.error for record in records if record.error is not None)
    failed = sum(errors.values())
    return RequestCounts(
        sent=len(records),
        completed=len(records) - failed,
        failed=failed,
        by_error={str(kind): count for kind, count in errors.most_common()},
    )


class Latencies(Value, frozen=True, kw_only=True):
    """Distributions over completed requests, in ms."""

    ttft_ms: Percentiles
    first_visible_ms: Percentiles
    tpot_ms: Percentiles
    itl_ms: Percentiles
    e2e_ms: Percentiles
    send_lag_ms: Lag
    tokens_per_chunk: float | None


def latencies(records: Sequence[RequestRecord], dropped: GapHistogram | None = None) -> Latencies:
    """TTFT and end-to-end from due time; TPOT per request; ITL over all gaps of all requests.

    ITL counts gaps between chunks. A chunk may hold several tokens: ``tokens_per_chunk`` says how many.
    Send lag is of all requests, failed ones included. ``dropped`` holds the gaps of records whose token
    times were not kept.
    """
    ok = [record for record in records if record.ok]
    gaps = [(b - a) * 1000 for record in ok for a, b in pairwise(record.token_times_s)]
    chunks = sum(len(record.token_times_s) for record in ok)
    if dropped is not None and dropped.chunks:
        itl, chunks = dropped.with_gaps(gaps).percentiles(), chunks + dropped.chunks
    else:
        itl = percentiles(gaps)
    return Latencies(
        ttft_ms=percentiles([r.ttft_ms for r in ok if r.ttft_ms is not None]),
        first_visible_ms=percentiles(
            [(r.first_visible_s - r.scheduled_s) * 1000 for r in ok if r.first_visible_s is not None]
        ),
        tpot_ms=percentiles([r.tpot_ms for r in ok if r.tpot_ms is not None]),
        itl_ms=itl,
        e2e_ms=percentiles([r.e2e_ms for r in ok if r.e2e_ms is not None]),
        send_lag_ms=_lag([r.send_lag_ms for r in records]),
        tokens_per_chunk=sum(r.output_tokens for r in ok) / chunks if chunks else None,
    )


def _lag(sample: list[float]) -> Lag:
    if not sample:
        return Lag(p50=0.0, p99=0.0, max=0.0)
    ordered = sorted(sample)
    return Lag(p50=percentile(ordered, 50), p99=percentile(ordered, 99), max=ordered[-1])


def mean_of(values: Sequence[float]) -> float:
    """Arithmetic mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0

"""From records to the figures of a run."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.facts import Slo, Value
from qwenhost.measurements import (
    Goodput,
    Lag,
    Percentiles,
    RequestCounts,
    RequestRecord,
    Sampled,
    percentile,
    percentiles,
)
from qwenhost.probe.store import rank_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.probe.gaps import GapHistogram
    from qwenhost.probe.totals import Totals

SAMPLED_FIGURES: Final = (
    "ttft_ms", "first_visible_ms", "tpot_ms", "e2e_ms", "send_lag_ms.p50", "send_lag_ms.p99",
    "goodput", "confidence", "by_url", "sessions.ttft_first_turn_ms", "sessions.ttft_later_turns_ms",
)  # fmt: skip
"""Drawn from a sample where there are more requests than records are held."""

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


class Scale(Value, frozen=True, kw_only=True):
    """By what a sum over a sample is multiplied to be one over all requests; 1 where all are there.

    Each sum has its own ratio of totals, which are exact: what is left to chance is only how much of it
    lies within the window, nearly all in a run long enough to be sampled.
    """

    requests: float = 1.0
    input_tokens: float = 1.0
    output_tokens: float = 1.0

    @classmethod
    def of(cls, records: Sequence[RequestRecord], totals: Totals) -> Scale:
        """From a sample to the totals."""
        ok = [record for record in records if record.ok]

        def ratio(whole: int, part: int) -> float:
            return whole / part if part else 1.0

        return cls(
            requests=ratio(totals.completed, len(ok)),
            input_tokens=ratio(totals.input_tokens, sum(record.input_tokens for record in ok)),
            output_tokens=ratio(totals.output_tokens, sum(record.output_tokens for record in ok)),
        )


_AS_IS: Final = Scale()


def rate_window(totals: Totals, *, not_before_s: float = 0.0) -> Window:
    """From the first completion to the last send: before it the pipe fills, after it the run drains.

    Where that is less than a third of the run, the whole run, first due time to last token.

    Args:
        totals: of the run.
        not_before_s: when the load was complete, where it was brought up gradually.
    """
    start = totals.first_due_s if totals.sent else 0.0
    whole = Window(start_s=start, end_s=start + totals.duration_s, kind="whole")
    if totals.first_completed_s == math.inf:
        return whole
    steady = Window(
        start_s=max(totals.first_completed_s, not_before_s), end_s=totals.last_sent_s, kind="steady"
    )
    return steady if steady.duration_s >= STEADY_AT_LEAST * whole.duration_s else whole


def rates(records: Sequence[RequestRecord], window: Window, scale: Scale = _AS_IS) -> Rates:
    """Requests and tokens per second in the window.

    A request counts with the share of its chunks that arrived in the window, in requests, input and
    output alike, so that the three stay in proportion.
    """
    shares = [(record, window.share_of(record)) for record in records if record.ok]
    return Rates(
        requests=scale.requests * sum(share for _, share in shares) / window.duration_s,
        input_tokens=scale.input_tokens
        * sum(share * record.input_tokens for record, share in shares)
        / window.duration_s,
        output_tokens=scale.output_tokens
        * sum(share * record.output_tokens for record, share in shares)
        / window.duration_s,
    )


def goodput_in(records: Sequence[RequestRecord], slo: Slo, window: Window, scale: Scale = _AS_IS) -> Goodput:
    """Rates of the requests that kept every limit, over the same window as all rates."""
    good = [record for record in records if record.meets(slo)]
    kept = rates(good, window, scale)
    return Goodput(
        slo=slo,
        requests_per_s=kept.requests,
        output_tokens_per_s=kept.output_tokens,
        fraction=len(good) / len(records) if records else 0.0,
    )


def request_counts(totals: Totals) -> RequestCounts:
    """How many ended well, and how the others failed."""
    return RequestCounts(
        sent=totals.sent,
        completed=totals.completed,
        failed=totals.failed,
        by_error=dict(totals.by_error.most_common()),
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


def latencies(
    records: Sequence[RequestRecord], totals: Totals, dropped: GapHistogram | None = None
) -> Latencies:
    """TTFT and end-to-end from due time; TPOT per request; ITL over all gaps of all requests.

    ITL counts gaps between chunks. A chunk may hold several tokens: ``tokens_per_chunk`` says how many.
    Send lag is of all requests, failed ones included.

    Args:
        records: of all requests, or of an even sample.
        totals: of all.
        dropped: gaps of all whose token times are not among ``records``.
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
        send_lag_ms=_lag([r.send_lag_ms for r in records], totals.longest_lag_ms),
        tokens_per_chunk=totals.output_tokens / chunks if chunks else None,
    )


def _lag(sample: list[float], longest_ms: float) -> Lag:
    if not sample:
        return Lag(p50=0.0, p99=0.0, max=0.0)
    ordered = sorted(sample)
    return Lag(p50=percentile(ordered, 50), p99=percentile(ordered, 99), max=longest_ms)


def sampled(records: Sequence[RequestRecord], totals: Totals) -> Sampled | None:
    """Which figures are of a sample, where not all records are there."""
    if len(records) == totals.sent:
        return None
    return Sampled(
        records=len(records),
        of=totals.sent,
        rank_error=rank_error(len(records)) if records else 1.0,
        figures=SAMPLED_FIGURES,
    )

"""A run cut into equal stretches of time, for plots; and its distributions as curves."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from qwenhost.facts import Slo, Value
from qwenhost.measurements import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.measurements import RequestRecord

STRETCHES: Final = 60
_POINTS: Final = 200


class Stretch(Value, frozen=True, kw_only=True):
    """What happened between two instants. Latencies are of the requests that were due in it."""

    start_s: float
    end_s: float
    sent: int
    failed: int
    in_flight: float
    """Mean number of requests between due time and last token."""
    output_tokens_per_s: float
    """By the arrival of chunks."""
    ttft_ms_p50: float | None
    ttft_ms_p99: float | None
    tpot_ms_p50: float | None
    kept_slo: float | None
    """Share of those due in it; None without an SLO or a request."""


def timeline(
    records: Sequence[RequestRecord], slo: Slo | None, stretches: int = STRETCHES, *, each_for: float = 1.0
) -> list[Stretch]:
    """The run from first due time to last token in equal stretches; empty without records.

    Args:
        records: of the run, or an even sample.
        slo: to judge by.
        stretches: how many.
        each_for: requests that a record stands for.
    """
    kept = [record for record in records if record.error != "interrupted"]
    if not kept:
        return []
    begin = min(record.scheduled_s for record in kept)
    end = max(max(record.last_s or record.sent_s, record.scheduled_s) for record in kept)
    width = max((end - begin) / stretches, 1e-3)
    edges = [begin + i * width for i in range(1, stretches)]
    by_due: list[list[RequestRecord]] = [[] for _ in range(stretches)]
    tokens, busy = [0.0] * stretches, [0.0] * stretches
    for record in kept:
        by_due[min(stretches - 1, int((record.scheduled_s - begin) / width))].append(record)
        _add_presence(busy, record, begin, width)
        _add_tokens(tokens, record, edges, begin, width)
    return [
        _stretch(of, begin + i * width, width, tokens[i], busy[i], slo, each_for)
        for i, of in enumerate(by_due)
    ]


def _stretch(  # noqa: PLR0917 - what was counted of one stretch
    records: Sequence[RequestRecord], start_s: float, width: float, tokens: float, busy_s: float,
    slo: Slo | None, each_for: float,
) -> Stretch:  # fmt: skip
    ok = [record for record in records if record.ok]
    ttft = sorted(record.ttft_ms for record in ok if record.ttft_ms is not None)
    tpot = sorted(record.tpot_ms for record in ok if record.tpot_ms is not None)
    judged = slo is not None and records
    return Stretch(
        start_s=start_s,
        end_s=start_s + width,
        sent=round(len(records) * each_for),
        failed=round((len(records) - len(ok)) * each_for),
        in_flight=busy_s / width * each_for,
        output_tokens_per_s=tokens / width * each_for,
        ttft_ms_p50=percentile(ttft, 50) if ttft else None,
        ttft_ms_p99=percentile(ttft, 99) if ttft else None,
        tpot_ms_p50=percentile(tpot, 50) if tpot else None,
        kept_slo=sum(r.meets(slo) for r in records) / len(records) if judged and slo else None,
    )


def _add_presence(busy: list[float], record: RequestRecord, begin: float, width: float) -> None:
    start, end = record.scheduled_s - begin, (record.last_s or record.sent_s) - begin
    for i in range(int(start / width), min(len(busy) - 1, int(end / width)) + 1):
        busy[i] += max(0.0, min(end, (i + 1) * width) - max(start, i * width))


def _add_tokens(
    tokens: list[float], record: RequestRecord, edges: Sequence[float], begin: float, width: float
) -> None:
    """Spread a request's tokens over its chunks; evenly where their times were not kept.

    Chunks are placed by the edges between stretches alone, so that rounding loses none.
    """
    first, last = record.first_token_s, record.last_s
    if first is None or last is None:
        return
    times = record.token_times_s
    low, high = bisect_right(edges, first), bisect_right(edges, last)
    for i in range(low, high + 1):
        start, end = begin + i * width, begin + (i + 1) * width
        if times:
            stop = len(times) if i == high else bisect_left(times, edges[i])
            share = (stop - (0 if i == low else bisect_left(times, edges[i - 1]))) / len(times)
        else:
            share = 1.0 if last <= first else max(0.0, min(last, end) - max(first, start)) / (last - first)
        tokens[i] += share * record.output_tokens


def cumulative(sample: Sequence[float]) -> list[tuple[float, float]]:
    """(value, share of the sample that is at most it), at most some two hundred points, ascending."""
    ordered = sorted(sample)
    if not ordered:
        return []
    picked = {round(i * (len(ordered) - 1) / _POINTS) for i in range(_POINTS + 1)}
    return [(ordered[i], bisect_right(ordered, ordered[i]) / len(ordered)) for i in sorted(picked)]

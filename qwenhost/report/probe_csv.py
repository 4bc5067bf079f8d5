"""A probe's requests, and the loads of a sweep, as CSV with raw numbers."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qwenhost.facts import Slo
    from qwenhost.measurements import RequestRecord
    from qwenhost.probe.bench import Point
    from qwenhost.probe.sweep import Sweep

_OF_RECORD: Final = (
    "index", "scheduled_s", "sent_s", "send_lag_ms", "ttft_ms", "tpot_ms", "e2e_ms", "first_visible_s",
    "last_s", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "tool_calls", "session",
    "turn", "replica", "http_status", "error",
)  # fmt: skip
_PERCENTILES: Final = ("mean", "p50", "p90", "p95", "p99")


def requests_csv(records: Iterable[RequestRecord], slo: Slo | None) -> str:
    """A row for each request, in the order of their due times; what is not known is empty."""
    rows = [
        [getattr(record, name) for name in _OF_RECORD] + ([] if slo is None else [int(record.meets(slo))])
        for record in sorted(records, key=lambda record: (record.scheduled_s, record.index))
    ]
    return _csv([*_OF_RECORD, *(["kept_slo"] if slo is not None else [])], rows)


def loads_csv(swept: Sweep) -> str:
    """A row for each load tried, ascending."""
    latencies = [f"{kind}_{q}" for kind in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms") for q in _PERCENTILES]
    head = [swept.axis, "verdict", "void", "judged", "kept_slo", "share_low", "share_high", "sent", "failed"]
    head += ["request_per_s", "output_tokens_per_s", "total_tokens_per_s", *latencies]
    return _csv(head, [_load(point, latencies) for point in swept.points])


def _load(point: Point, latencies: Sequence[str]) -> list[Any]:
    measured = point.measurements
    row: list[Any] = [point.at, point.said, int(measured.void), point.judged, point.kept_slo]
    row += [point.share_low, point.share_high, measured.requests.sent, measured.requests.failed]
    row += [measured.request_per_s, measured.output_tokens_per_s, measured.total_tokens_per_s]
    for name in latencies:
        kind, _, quantile = name.rpartition("_")
        row.append(getattr(getattr(measured, kind), quantile))
    return row


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()

"""Plots over time and over load: prices since launch, latency against delivered rate."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from qwenhost.report import words
from qwenhost.report.plots import css_of, cut, without_model
from qwenhost.report.svg import Canvas, Scale, bottom_axis, spread_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost import Comparison
    from qwenhost.cost.comparison import DatedPrice, LoadPoint

NARROW: Final = 420
SERIES: Final = (
    ("first token p50", "ttft_ms", "p50", "curve base"),
    ("first token p90", "ttft_ms", "p90", "curve other"),
    ("per token p50", "tpot_ms", "p50", "curve self"),
    ("per token p90", "tpot_ms", "p90", "curve hosted"),
)


def price_timeline(comparison: Comparison, width: int) -> str:
    """This request's price at each dated API, a step where a price changed."""
    rows = comparison.price_history
    narrow = width < NARROW
    height, left, right = (230 if narrow else 250), 56, 92 if narrow else 150
    canvas = Canvas(width, height)
    name = f"timeline-{width}"
    if not rows:
        canvas.text((0, 20), "No dated price is known.", "tick")
        return canvas.markup(name, "Prices over time", "No dated price is known.")
    today = _day(comparison.as_of)
    first = min(_day(row.since) for row in rows)
    x = Scale(first, max(today, first + 1), left, width - right)
    usd = [row.usd_per_request for row in rows]
    y = Scale(0, max(usd) * 1.15, height - 40, 14)
    for tick in y.ticks(6):
        canvas.line((left, y(tick)), (width - right, y(tick)), "grid")
        canvas.text((left - 7, y(tick) + 4), words.usd(tick), "tick", "end")
    _months(canvas, x, height - 40, every=2 if narrow else 1)
    ids = dict.fromkeys(row.id for row in rows)
    css = {line.id: css_of(line) for line in comparison.api}
    ends = []
    for i in ids:
        own = [row for row in rows if row.id == i]
        path = _steps(own, x, y, today)
        tip = "; ".join(f"{row.since}: {words.usd(row.usd_per_request)} a request" for row in own)
        canvas.path(path, f"curve {css.get(i, 'other')}", tip=f"{own[0].name}: {tip}")
        label = cut(without_model(own[0].name).removeprefix("Claude "), 12 if narrow else 18)
        ends.append((label, css.get(i, "other"), path[-1][1]))
    places = spread_labels([at for _, _, at in ends], 16, 14, height - 44)
    for (label, colour, _), at in zip(ends, places, strict=True):
        canvas.text((width - right + 8, at + 4), label, f"label {colour}")
    said = "; ".join(f"{row.name} from {row.since} {words.usd(row.usd_per_request)}" for row in rows)
    return canvas.markup(name, "What this request cost over time", said)


def latency_against_load(comparison: Comparison, width: int) -> str:
    """Percentiles of every run against the rate it delivered."""
    points = comparison.load_curve
    narrow = width < NARROW
    height, left, right = (280 if narrow else 320), 60, 110 if narrow else 150
    values = [value for p in points for _, kind, q, _ in SERIES if (value := _at(p, kind, q))]
    limits = [
        (label, limit)
        for label, limit in (
            ("limit, first token", comparison.workload.slo.ttft_ms),
            ("limit, per token", comparison.workload.slo.tpot_ms),
        )
        if limit
    ]
    every = values + [limit for _, limit in limits]
    x = Scale(0, max(p.request_per_s for p in points) * 1.02, left, width - right)
    y = Scale(min(every) / 1.4, max(every) * 1.4, height - 46, 12, log=True)
    canvas = Canvas(width, height)
    for tick in y.ticks(5):
        canvas.line((left, y(tick)), (width - right, y(tick)), "grid")
        canvas.text((left - 7, y(tick) + 4), words.milliseconds(tick), "tick", "end")
    bottom_axis(canvas, x, height - 46, top=12, words=words.short, wanted=4 if narrow else 6)
    canvas.text(((left + width - right) / 2, height - 8), "requests/s delivered", "axis", "middle")
    for label, limit in limits:
        canvas.line((left, y(limit)), (width - right, y(limit)), "limit")
        canvas.text((left + 4, y(limit) - 5), f"{label} {words.milliseconds(limit)}", "tick warn")
    ends = []
    for label, kind, q, css in SERIES:
        path = [(x(p.request_per_s), y(value)) for p in points if (value := _at(p, kind, q))]
        if path:
            canvas.path(path, css, tip=label)
            ends.append((label, css.removeprefix("curve "), path[-1][1]))
    places = spread_labels([at for _, _, at in ends], 16, 14, height - 50)
    for (label, css, _), at in zip(ends, places, strict=True):
        canvas.text((width - right + 8, at + 4), label, f"label {css}")
    said = "; ".join(f"{p.request_per_s:.3g} requests/s: {p.load}" for p in points)
    return canvas.markup(f"load-{width}", "Latency against load", said)


def _at(point: LoadPoint, kind: str, q: str) -> float | None:
    value: float | None = getattr(getattr(point, kind), q)
    return value


def _day(text: str) -> int:
    return dt.date.fromisoformat(text).toordinal()


def _steps(rows: Sequence[DatedPrice], x: Scale, y: Scale, today: int) -> list[tuple[float, float]]:
    """Each price from its first day to its last, or to today."""
    path: list[tuple[float, float]] = []
    for row in rows:
        end = min(_day(row.until) + 1, today) if row.until else today
        path += [
            (x.clamp(_day(row.since)), y(row.usd_per_request)),
            (x.clamp(end), y(row.usd_per_request)),
        ]
    return path


def _months(canvas: Canvas, x: Scale, bottom: float, *, every: int) -> None:
    first, last = dt.date.fromordinal(int(x.low)), dt.date.fromordinal(int(x.high))
    months = range(first.year * 12 + first.month, last.year * 12 + last.month)
    step = max(every, (len(months) + 5) // 6 * every)
    for number in list(months)[::step]:
        day = dt.date(number // 12, number % 12 + 1, 1)
        canvas.line((x(day.toordinal()), 14), (x(day.toordinal()), bottom), "grid")
        canvas.text((x(day.toordinal()), bottom + 17), f"{day:%Y-%m}", "tick", "middle")

"""Plots of a probe's run and of a sweep, at any width."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.probe.timeline import cumulative
from qwenhost.report import words
from qwenhost.report.svg import Canvas, Scale, bottom_axis, spread_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.facts import Slo
    from qwenhost.measurements import RequestRecord
    from qwenhost.probe.sweep import Sweep
    from qwenhost.probe.timeline import Stretch

NARROW: Final = 420
_GAPS_DRAWN: Final = 200_000


class Line(NamedTuple):
    """A curve in the data's own units."""

    label: str
    css: str
    points: Sequence[tuple[float, float]]


def latency_over_time(run: tuple[Sequence[Stretch], Slo | None], width: int) -> str:
    """TTFT p50 and p99 and TPOT p50 of the requests due in each stretch."""
    stretches, slo = run
    lines = [
        _series("first token p50", "self", stretches, lambda s: s.ttft_ms_p50),
        _series("first token p99", "base", stretches, lambda s: s.ttft_ms_p99),
        _series("per token p50", "hosted", stretches, lambda s: s.tpot_ms_p50),
    ]
    end = stretches[-1].end_s
    return _plot(
        ("time-latency", "Latency over time"), width, lines, x=Scale(stretches[0].start_s, end, 0, 1),
        x_label="seconds since the start, by due time", say_y=words.milliseconds, log_y=True,
        limits=_limits(slo),
    )  # fmt: skip


def load_over_time(run: tuple[Sequence[Stretch], Slo | None], width: int) -> str:
    """Output tokens per second."""
    stretches, _ = run
    line = _series("tokens/s", "self", stretches, lambda s: s.output_tokens_per_s)
    scale = Scale(stretches[0].start_s, stretches[-1].end_s, 0, 1)
    return _plot(
        ("time-tokens", "Output tokens per second over time"), width, [line], x=scale,
        x_label="seconds since the start", say_y=words.short,
    )  # fmt: skip


def requests_over_time(run: tuple[Sequence[Stretch], Slo | None], width: int) -> str:
    """Requests in flight, and failures per stretch."""
    stretches, _ = run
    lines = [
        _series("in flight", "self", stretches, lambda s: s.in_flight),
        _series("failed", "base", stretches, lambda s: float(s.failed)),
    ]
    scale = Scale(stretches[0].start_s, stretches[-1].end_s, 0, 1)
    return _plot(
        ("time-flight", "Requests in flight and failures over time"), width, lines, x=scale,
        x_label="seconds since the start", say_y=words.short,
    )  # fmt: skip


def distributions(run: tuple[Sequence[RequestRecord], Slo | None], width: int) -> str:
    """Share of requests (of gaps, for those between chunks) at or below each latency."""
    records, slo = run
    ok = [record for record in records if record.ok]
    gaps: list[float] = []
    for record in ok:
        gaps += [(b - a) * 1000 for a, b in pairwise(record.token_times_s)]
        if len(gaps) > _GAPS_DRAWN:
            break
    samples = (
        ("first token", "self", [v for r in ok if (v := r.ttft_ms) is not None]),
        ("per token", "hosted", [v for r in ok if (v := r.tpot_ms) is not None]),
        ("between chunks", "other", gaps),
        ("end to end", "base", [v for r in ok if (v := r.e2e_ms) is not None]),
    )
    lines = [Line(label, css, cumulative(sample)) for label, css, sample in samples if sample]
    values = [max(x, 0.05) for line in lines for x, _ in line.points] or [1.0]
    scale = Scale(min(values) / 1.2, max(values) * 1.2, 0, 1, log=True)
    return _plot(
        ("shares", "Distributions"), width, lines, x=scale, x_label="milliseconds, logarithmic",
        say_y=words.percent, say_x=words.milliseconds, top=1.0, upright=_limits(slo), legend=True,
    )  # fmt: skip


def latency_against_load(sweep: Sweep, width: int) -> str:
    """Percentiles at each load tried, void runs left out."""
    used = [point for point in sweep.points if not point.measurements.void] or list(sweep.points)
    curves = (
        ("first token p50", "self", "ttft_ms", "p50"), ("first token p99", "base", "ttft_ms", "p99"),
        ("per token p50", "hosted", "tpot_ms", "p50"), ("per token p99", "other", "tpot_ms", "p99"),
    )  # fmt: skip
    lines = []
    for label, css, kind, quantile in curves:
        path = [
            (p.at, value)
            for p in used
            if (value := getattr(getattr(p.measurements, kind), quantile)) is not None
        ]
        lines.append(Line(label, css, path))
    unit = "requests in flight" if sweep.axis == "concurrency" else "requests/s offered"
    return _plot(
        ("load", "Latency against load"), width, lines, x=Scale(0, max(p.at for p in used) * 1.03, 0, 1),
        x_label=unit, say_y=words.milliseconds, log_y=True, limits=_limits(sweep.slo), dots=True,
    )  # fmt: skip


def tokens_against_load(sweep: Sweep, width: int) -> str:
    """Output tokens per second at each load."""
    used = [point for point in sweep.points if not point.measurements.void] or list(sweep.points)
    line = Line("tokens/s", "self", [(p.at, p.measurements.output_tokens_per_s) for p in used])
    unit = "requests in flight" if sweep.axis == "concurrency" else "requests/s offered"
    return _plot(
        ("load-tokens", "Output tokens per second against load"), width, [line],
        x=Scale(0, max(p.at for p in used) * 1.03, 0, 1), x_label=unit, say_y=words.short, dots=True,
    )  # fmt: skip


def _series(
    label: str, css: str, stretches: Sequence[Stretch], value: Callable[[Stretch], float | None]
) -> Line:
    known = [((s.start_s + s.end_s) / 2, found) for s in stretches if (found := value(s)) is not None]
    return Line(label, css, known)


def _limits(slo: Slo | None) -> list[tuple[str, float]]:
    if slo is None:
        return []
    pairs = (("TTFT limit", slo.ttft_ms), ("TPOT limit", slo.tpot_ms))
    return [(label, limit) for label, limit in pairs if limit]


def _plot(
    name: tuple[str, str], width: int, lines: Sequence[Line], *, x: Scale, x_label: str,
    say_y: Callable[[float], str], say_x: Callable[[float], str] = words.short, log_y: bool = False,
    limits: Sequence[tuple[str, float]] = (), upright: Sequence[tuple[str, float]] = (),
    top: float | None = None, dots: bool = False, legend: bool = False,
) -> str:  # fmt: skip
    """Curves on a grid; limits lie across, ``upright`` ones stand."""
    narrow = width < NARROW
    height, left = (250, 54) if narrow else (290, 62)
    right = 12 if legend else 112 if narrow else 124
    drawn = [line for line in lines if line.points]
    rows = -(-(len(drawn) + bool(upright)) // (2 if narrow else 5)) if legend else 0
    bottom, head = height - 46, 16 + 18 * rows if legend else 14
    canvas = Canvas(width, height)
    x = Scale(x.low, x.high, left, width - right, log=x.log)
    values = [value for line in lines for _, value in line.points] + [limit for _, limit in limits]
    positive = [value for value in values if value > 0] or [1.0]
    if log_y:
        y = Scale(min(positive) / 1.3, max(positive) * 1.3, bottom, head, log=True)
    else:
        y = Scale(0, top or max(positive) * 1.1, bottom, head)
    for tick in y.ticks(5):
        canvas.line((left, y(tick)), (width - right, y(tick)), "grid")
        canvas.text((left - 7, y(tick) + 4), say_y(tick), "tick", "end")
    bottom_axis(canvas, x, bottom, top=head, words=say_x, wanted=4 if narrow else 7)
    canvas.text(((left + width - right) / 2, height - 8), x_label, "axis", "middle")
    for _, limit in limits:
        canvas.line((left, y(limit)), (width - right, y(limit)), "limit")
    for _, limit in upright:
        canvas.line((x.clamp(limit), head), (x.clamp(limit), bottom), "limit")
    for line in drawn:
        path = [(x.clamp(at), y.clamp(value)) for at, value in line.points]
        canvas.path(path, f"curve {line.css}", tip=line.label)
        for (at, height_at), (load, value) in zip(path, line.points, strict=True):
            if dots or len(path) == 1:
                canvas.dot((at, height_at), 3, f"dot {line.css}", tip=f"{say_x(load)}: {say_y(value)}")
    labels = [(line.label, f"label {line.css}", y.clamp(line.points[-1][1])) for line in drawn]
    if legend:
        _legend(canvas, [*labels, *([("limits", "label warn", 0.0)] if upright else [])], left)
    else:
        labels += [(_said(label, limit), "tick warn", y(limit)) for label, limit in limits]
        _label(canvas, labels, y, width - right)
    said = "; ".join(f"{line.label} {say_y(line.points[-1][1])} at the end" for line in drawn)
    return canvas.markup(f"{name[0]}-{width}", name[1], said or "nothing to draw")


def _said(label: str, limit: float) -> str:
    return f"{label} {words.milliseconds(limit)}"


def _legend(canvas: Canvas, labels: Sequence[tuple[str, str, float]], left: float) -> None:
    """Above, where curves end together."""
    in_row = 2 if canvas.width < NARROW else 5
    for index, (text, css, _) in enumerate(labels):
        row, column = divmod(index, in_row)
        canvas.text((left + column * (canvas.width - 12 - left) / in_row, 16 + 18 * row), text, css)


def _label(canvas: Canvas, labels: Sequence[tuple[str, str, float]], y: Scale, right: float) -> None:
    """Beside the ends of curves and limits, moved apart where they meet."""
    lowest, highest = min(y.start, y.end) + 4, max(y.start, y.end) - 2
    places = spread_labels([height for _, _, height in labels], 16, lowest, highest)
    for (text, css, _), height in zip(labels, places, strict=True):
        canvas.text((right + 8, height + 4), text, css)

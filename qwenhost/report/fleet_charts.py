"""A fleet's plots at any width: demand, replicas, latency, service level, money; one replica's curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.report import words
from qwenhost.report.svg import Canvas, Scale, bottom_axis, spread_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.simulate.fleet_rate import RatePoint, RateSearch
    from qwenhost.simulate.fleet_result import FleetRun

NARROW: Final = 420
HOUR_S: Final = 3600.0
COLOURS: Final = ("self", "base", "hosted", "other")
CURVES: Final = (
    ("TTFT p50", "self", "ttft_ms", "p50"),
    ("TTFT p90", "base", "ttft_ms", "p90"),
    ("TPOT p50", "hosted", "tpot_ms", "p50"),
    ("TPOT p90", "other", "tpot_ms", "p90"),
)


class Series(NamedTuple):
    """A line over time: None leaves a gap."""

    label: str
    css: str
    values: tuple[float | None, ...]


def demand_and_replicas(run: FleetRun, width: int) -> str:
    """Requests per second above, replicas below, on one clock."""
    height, left, right = (330, 46, 78) if width < NARROW else (380, 56, 120)
    canvas = Canvas(width, height)
    x = _clock(run, left, width - right)
    split = height * 0.46
    rates = Series("requests/s", "base", tuple(w.request_per_s for w in run.windows))
    _panel(canvas, run, x, (split, 26), [rates], f"{words.count(run.request_per_s)} requests/s on average")
    lines = []
    for index, pool in enumerate(run.pools):
        name = pool.name if len(run.pools) > 1 else ""
        css = COLOURS[(2 * index) % len(COLOURS)]
        lines.append(Series(f"{name} rented".strip(), css, tuple(w.replicas[pool.name] for w in run.windows)))
        ready = tuple(w.ready[pool.name] for w in run.windows)
        lines.append(Series(f"{name} ready".strip(), "other" if len(run.pools) == 1 else css, ready))
    _panel(canvas, run, x, (height - 42, split + 34), lines, "replicas, mean of each stretch", steps=True)
    _time_axis(canvas, x, height - 42, narrow=width < NARROW)
    return canvas.markup(
        f"replicas-{width}", "Replicas against demand",
        "; ".join(
            f"{p.name}: {p.replicas_min} to {p.replicas_max}, mean {p.replicas_mean:.2f}" for p in run.pools
        ),
    )  # fmt: skip


def latency_over_time(run: FleetRun, width: int) -> str:
    """Time to first token and queueing, logarithmic, with the limit."""
    height, left, right = (250, 52, 84) if width < NARROW else (280, 60, 120)
    canvas = Canvas(width, height)
    x = _clock(run, left, width - right)
    series = [
        Series("TTFT p50", "self", tuple(w.ttft_ms_p50 for w in run.windows)),
        Series("TTFT p90", "base", tuple(w.ttft_ms_p90 for w in run.windows)),
        Series("queue p90", "other", tuple(w.queue_ms_p90 for w in run.windows)),
        Series("TPOT p90", "hosted", tuple(w.tpot_ms_p90 for w in run.windows)),
    ]
    limits = []
    if run.slo is not None:
        pairs = (("TTFT limit", run.slo.ttft_ms), ("TPOT limit", run.slo.tpot_ms))
        limits = [(label, limit) for label, limit in pairs if limit]
    known = [v for s in series for v in s.values if v] + [limit for _, limit in limits] or [1.0]
    y = Scale(max(min(known), 1.0) / 1.4, max(known) * 1.4, height - 42, 14, log=True)
    _grid(canvas, y, (left, width - right), words.milliseconds)
    _time_axis(canvas, x, height - 42, narrow=width < NARROW)
    for label, limit in limits:
        canvas.line((left, y(limit)), (width - right, y(limit)), "limit")
        canvas.text((left + 4, y(limit) - 5), f"{label} {words.milliseconds(limit)}", "tick warn")
    _lines(canvas, run, x, y, series, tip=words.milliseconds)
    said = f"first token p90 over the run {words.milliseconds(run.ttft_ms.p90)}"
    return canvas.markup(f"fleet-latency-{width}", "Latency over time", said)


def attainment_over_time(run: FleetRun, width: int) -> str:
    """Share of each stretch's requests that kept the service level."""
    height, left, right = (190, 46, 78) if width < NARROW else (210, 56, 120)
    canvas = Canvas(width, height)
    x = _clock(run, left, width - right)
    shares = [w.kept_slo for w in run.windows if w.kept_slo is not None] or [1.0]
    required = run.slo.percentile / 100 if run.slo is not None else None
    low = min([*shares, required or 1.0])
    floor = 0.0 if low < 0.5 else 0.5 if low < 0.8 else 0.8
    y = Scale(floor, 1.0, height - 42, 14)
    _grid(canvas, y, (left, width - right), lambda share: f"{share:.0%}")
    _time_axis(canvas, x, height - 42, narrow=width < NARROW)
    if required is not None:
        canvas.line((left, y(required)), (width - right, y(required)), "limit")
        canvas.text((left + 4, y(required) + 15), f"required {required:.0%} of all", "tick warn")
    kept = Series("kept", "self", tuple(w.kept_slo for w in run.windows))
    _lines(canvas, run, x, y, [kept], tip=words.percent, steps=True)
    said = f"{run.kept_slo:.2%} of all requests kept the service level"
    return canvas.markup(f"attainment-{width}", "Service level over time", said)


def cost_bars(run: FleetRun, width: int) -> str:
    """USD a day of the fleet and of APIs for the same requests."""
    rows = [("this fleet", run.usd_per_day or 0.0, "self")]
    main, rest = run.api[:1], sorted(run.api[1:], key=lambda bill: bill.usd)
    rows += [(bill.name, bill.usd_per_day, "base") for bill in main]
    rows += [(bill.name, bill.usd_per_day, "other") for bill in rest[:4]]
    narrow = width < NARROW
    label_width, row = (0, 46) if narrow else (220, 34)
    canvas = Canvas(width, row * len(rows) + 8)
    x = Scale(0, max(value for _, value, _ in rows) or 1.0, label_width, width - 96)
    for index, (name, value, css) in enumerate(rows):
        top = index * row + (20 if narrow else 6)
        at = (0.0, top - 6) if narrow else (label_width - 10.0, top + 16)
        canvas.text(at, _cut(name, 34), f"name {css}", "start" if narrow else "end")
        colour = {"self": "nodes", "base": "uncached_input", "other": "cache_read"}[css]
        canvas.rect(
            (x(0), top), (x(value) - x(0), 22), f"part {colour}", tip=f"{name}: {words.usd(value)} a day"
        )
        canvas.text((x(value) + 7, top + 16), words.usd(value), "value")
    return canvas.markup(
        f"fleet-cost-{width}",
        "Cost a day",
        "; ".join(f"{name} {words.usd(value)}" for name, value, _ in rows),
    )


def cost_over_time(run: FleetRun, width: int) -> str:
    """USD per hour of the fleet and of the main API, logarithmic."""
    height, left, right = (210, 52, 84) if width < NARROW else (240, 60, 150)
    canvas = Canvas(width, height)
    x = _clock(run, left, width - right)
    hours = run.window_s / HOUR_S
    series = [
        Series("this fleet", "self", tuple(None if w.usd is None else w.usd / hours for w in run.windows))
    ]
    if run.api:
        api = tuple(None if w.api_usd is None else w.api_usd / hours for w in run.windows)
        series.append(Series(_cut(run.api[0].name, 18), "base", api))
    known = [v for s in series for v in s.values if v] or [1.0]
    y = Scale(min(known) / 1.4, max(known) * 1.4, height - 42, 14, log=True)
    _grid(canvas, y, (left, width - right), words.short_usd)
    _time_axis(canvas, x, height - 42, narrow=width < NARROW)
    _lines(canvas, run, x, y, series, tip=words.usd, steps=True)
    said = f"the fleet pays {words.usd(run.usd_per_day)} a day"
    return canvas.markup(f"fleet-hourly-{width}", "Cost per hour over time", said)


def latency_against_rate(found: RateSearch, width: int) -> str:
    """One replica: latency at each rate tried, with the limits."""
    points = found.points
    narrow = width < NARROW
    height, left, right = (270, 54, 84) if narrow else (310, 60, 130)
    canvas = Canvas(width, height)
    limits = [
        (label, limit)
        for label, limit in (
            ("TTFT limit", found.slo.ttft_ms),
            ("TPOT limit", found.slo.tpot_ms),
        )
        if limit
    ]
    curves = [
        (label, css, [(p.rate, v) for p in points if (v := getattr(getattr(p, kind), quantile))])
        for label, css, kind, quantile in CURVES
    ]
    known = [v for _, _, curve in curves for _, v in curve] + [limit for _, limit in limits]
    x = Scale(0, points[-1].rate * 1.02, left, width - right)
    y = Scale(min(known) / 1.4, max(known) * 1.4, height - 46, 12, log=True)
    _grid(canvas, y, (left, width - right), words.milliseconds)
    bottom_axis(canvas, x, height - 46, top=12, words=words.short, wanted=4 if narrow else 7)
    canvas.text(
        ((left + width - right) / 2, height - 8), "requests/s offered to one replica", "axis", "middle"
    )
    for label, limit in limits:
        canvas.line((left, y(limit)), (width - right, y(limit)), "limit")
        canvas.text((left + 4, y(limit) - 5), f"{label} {words.milliseconds(limit)}", "tick warn")
    if found.found_rate is not None:
        at = x(found.found_rate)
        canvas.line((at, 12), (at, height - 46), "volume")
        canvas.text((at - 5, 24), f"{found.found_rate:.3g}/s", "marker", "end")
    ends = []
    for label, css, curve in curves:
        path = [(x(rate), y(value)) for rate, value in curve]
        if path:
            canvas.path(path, f"curve {css}", tip=label)
            ends.append((label, css, path[-1][1]))
    _end_labels(canvas, width - right, ends, (14, height - 50))
    said = "; ".join(_point_words(point) for point in points)
    return canvas.markup(f"rate-{width}-{abs(hash(said)) % 9999}", "Latency against load", said)


def _point_words(point: RatePoint) -> str:
    return f"{point.rate:.3g} requests/s: {point.kept_slo:.0%} kept"


def _panel(  # noqa: PLR0917 - a drawing's parts
    canvas: Canvas, run: FleetRun, x: Scale, edges: tuple[float, float], series: Sequence[Series], title: str,
    *, steps: bool = False,
) -> None:  # fmt: skip
    bottom, top = edges
    most = max([v for s in series for v in s.values if v is not None] or [1.0]) or 1.0
    y = Scale(0, most * 1.12, bottom, top)
    _grid(canvas, y, (x.start, x.end), words.short, wanted=4)
    canvas.text((x.start, top - 10), title, "axis")
    _lines(canvas, run, x, y, series, tip=words.count, steps=steps)


def _lines(
    canvas: Canvas, run: FleetRun, x: Scale, y: Scale, series: Sequence[Series],
    *, tip: Callable[[float | None], str], steps: bool = False,
) -> None:  # fmt: skip
    ends = []
    for line in series:
        path: list[tuple[float, float]] = []
        for window, value in zip(run.windows, line.values, strict=True):
            if value is None:
                continue
            end = min(window.start_s + run.window_s, run.duration_s)
            height = y.clamp(value)
            if steps:
                path += [(x(window.start_s / HOUR_S), height), (x(end / HOUR_S), height)]
            else:
                path.append((x((window.start_s + end) / 2 / HOUR_S), height))
        if path:
            known = [value for value in line.values if value is not None]
            canvas.path(
                path, f"curve {line.css}", tip=f"{line.label}: {tip(min(known))} to {tip(max(known))}"
            )
            ends.append((line.label, line.css, path[-1][1]))
    _end_labels(canvas, x.end, ends, (min(y.start, y.end) + 4, max(y.start, y.end) - 2))


def _end_labels(
    canvas: Canvas, right: float, ends: Sequence[tuple[str, str, float]], within: tuple[float, float]
) -> None:
    places = spread_labels([at for _, _, at in ends], 16, *within)
    room = int((canvas.width - right - 8) / 6.6)
    for (label, css, _), at in zip(ends, places, strict=True):
        canvas.text((right + 8, at + 4), _cut(label, room), f"label {css}")


def _clock(run: FleetRun, start: float, end: float) -> Scale:
    return Scale(0, run.duration_s / HOUR_S, start, end)


def _grid(
    canvas: Canvas, y: Scale, edges: tuple[float, float], say: Callable[[float], str], *, wanted: int = 5
) -> None:
    for tick in y.ticks(wanted):
        canvas.line((edges[0], y(tick)), (edges[1], y(tick)), "grid")
        canvas.text((edges[0] - 7, y(tick) + 4), say(tick), "tick", "end")


def _time_axis(canvas: Canvas, x: Scale, bottom: float, *, narrow: bool) -> None:
    """Hours of the day, days beyond two of them."""
    hours = x.high
    steps = (1 / 60, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96, 168)
    step = next((s for s in steps if hours / s <= (5 if narrow else 9)), 168)
    at = 0.0
    while at <= hours + 1e-9:
        canvas.line((x(at), bottom), (x(at), bottom + 4), "grid")
        canvas.text((x(at), bottom + 18), _moment(at, step), "tick", "middle")
        at += step


def _moment(hours: float, step: float) -> str:
    day, hour = divmod(hours, 24)
    if step >= 24:
        return f"day {int(day) + 1}"
    minutes = round(hour % 1 * 60)
    return f"{int(hour):02d}:{minutes:02d}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(1, length - 1)] + "…"

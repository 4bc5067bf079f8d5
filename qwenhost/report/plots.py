"""The money plots, each at any width: cost against volume, cost of a request, tornado."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.report import words
from qwenhost.report.svg import Anchor, Canvas, Scale, bottom_axis, spread_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost import ApiLine, Comparison
    from qwenhost.cost.sensitivity import SensitivityRow

NARROW: Final = 420
ROW: Final = 34
BUCKETS: Final = (
    ("uncached_input", "input"),
    ("cache_write", "cache write"),
    ("cache_read", "cache read"),
    ("output", "output"),
    ("fees", "fees"),
)


def cost_curve(comparison: Comparison, width: int) -> str:
    """Both bills against volume, both axes logarithmic, the break-even with its band marked."""
    narrow = width < NARROW
    height = 330 if narrow else 400
    left, right, top, bottom = 50, 84 if narrow else 150, 30, height - 48
    points = comparison.curve
    lines = curve_lines(comparison)
    bills = [p.self_host_low for p in points] + [p.self_host_high for p in points]
    bills += [p.api[line.id] for p in points for line in lines[:1]]
    volumes = (points[0].requests_per_day, points[-1].requests_per_day)
    x = Scale(*volumes, left, width - right, log=True)
    # Below a third of the cheapest node nothing is decided; cutting there keeps the crossing large.
    y = Scale(max(min(bills), min(p.self_host_low for p in points) / 30), max(bills), bottom, top, log=True)
    canvas = Canvas(width, height)
    for tick in y.ticks(5 if narrow else 6):
        canvas.line((left, y(tick)), (width - right, y(tick)), "grid")
        canvas.text((left - 7, y(tick) + 4), words.short_usd(tick), "tick", "end")
    bottom_axis(canvas, x, bottom, top=top, words=words.short, wanted=4 if narrow else 6)
    canvas.text(((left + width - right) / 2, height - 8), "requests a day", "axis", "middle")
    canvas.text((left, top - 14), "USD a month", "axis")
    _mark_break_even(canvas, comparison, x, (top, bottom))
    band = [(x(p.requests_per_day), y.clamp(p.self_host_high)) for p in points]
    band += [(x(p.requests_per_day), y.clamp(p.self_host_low)) for p in reversed(points)]
    canvas.path(band, "band self", closed=True, tip="Self-hosting: GPU price and node capacity at both ends")
    for line in reversed(lines):
        inside = [p for p in points if y.low <= p.api[line.id] <= y.high]
        path = [(x(p.requests_per_day), y(p.api[line.id])) for p in inside]
        if path:
            canvas.path(
                path, f"curve {css_of(line)}", tip=f"{line.name}: {words.usd(line.usd_per_request)} a request"
            )
    canvas.path(_stairs(comparison, x, y), "curve self", tip="Self-hosting, nodes in whole steps")
    _end_labels(canvas, comparison, lines, x, y, narrow=narrow)
    _mark_volume(canvas, comparison, x, (top, bottom))
    return canvas.markup(f"curve-{width}", "Monthly cost against volume", _describe_curve(comparison))


def curve_lines(comparison: Comparison) -> list[ApiLine]:
    """The APIs worth a curve: the baselines asked for, the cheapest other Claude and the cheapest host."""
    others = [line for line in comparison.api[1:] if line.kind == "claude"]
    cheapest = min(others, key=lambda line: line.usd_per_request, default=None)
    picked = [comparison.baseline, cheapest, comparison.cheapest_hosted]
    return list({line.id: line for line in picked if line is not None}.values())


def request_bars(comparison: Comparison, width: int) -> str:
    """USD per request by what it pays for, self-hosting and every API."""
    rows = bar_rows(comparison)
    narrow = width < NARROW
    label_width, value_width = (0, 66) if narrow else (178, 84)
    row = 46 if narrow else ROW
    canvas = Canvas(width, row * len(rows) + 8)
    top = max(sum(value for _, value, _ in parts) for _, _, parts in rows)
    x = Scale(0, top, label_width, width - value_width)
    for i, (name, css, parts) in enumerate(rows):
        y = i * row + (20 if narrow else 6)
        at = (0.0, y - 6) if narrow else (label_width - 10.0, y + 16)
        canvas.text(at, name, f"name {css}", "start" if narrow else "end")
        spent = 0.0
        for label, value, part_css in parts:
            tip = f"{name}, {label}: {words.usd(value)} a request"
            if value > 0:
                canvas.rect((x(spent), y), (x(spent + value) - x(spent), 22), f"part {part_css}", tip=tip)
            spent += value
        canvas.text((x(spent) + 7, y + 16), words.usd(spent), "value")
    first, last = rows[0], rows[-1]
    return canvas.markup(
        f"bars-{width}",
        "Cost of one request by what it pays for",
        f"Horizontal bars for {len(rows)} offers from {first[0]} to {last[0]}; the table below has each.",
    )


def bar_rows(comparison: Comparison) -> list[tuple[str, str, list[tuple[str, float, str]]]]:
    """(name, colour, parts) for the self-hosted side, the Claude models and the three cheapest hosts."""
    side = comparison.self_host
    share = side.usd_per_request / side.usd_per_month if side.usd_per_month else 0.0
    own = [
        ("nodes", side.monthly.nodes * share, "nodes"),
        (
            "storage, start-ups, egress",
            (side.monthly.storage + side.monthly.start_ups + side.monthly.egress) * share,
            "storage",
        ),
        ("staff", side.monthly.staff * share, "staff"),
    ]
    hosted = [line for line in comparison.api if line.kind == "hosted_qwen"]
    hosted.sort(key=lambda line: line.usd_per_request)
    others = [line for line in comparison.api if line.kind != "hosted_qwen"]
    rows = [("Self-hosted", "self", own)]
    rows += [
        (
            brief_name(line),
            css_of(line),
            [(label, getattr(line.breakdown, key), key) for key, label in BUCKETS],
        )
        for line in [*others, *hosted[:3]]
    ]
    return rows


def tornado(comparison: Comparison, width: int) -> str:
    """What each input alone does to the break-even (log), or to the saving where there is none."""
    by_volume = comparison.break_even.requests_per_day is not None
    rows = moving_rows(comparison)
    narrow = width < NARROW
    label_width, row = (0, 58) if narrow else (236, 44)
    height = row * len(rows) + 52
    canvas = Canvas(width, height)
    if not rows:
        canvas.text((0, 20), "No input has a range.", "tick")
        return canvas.markup(f"tornado-{width}", "What moves the break-even", "No input has a range.")
    ends = [end for row_ in rows for end in _ends(row_, by_volume=by_volume) if end is not None]
    centre = comparison.break_even.requests_per_day if by_volume else _saving(comparison)
    assert centre is not None  # noqa: S101 - by_volume says so
    x = _tornado_scale([*ends, centre], label_width + 16, width - 24, log=by_volume)
    bottom = row * len(rows) + 12
    bottom_axis(
        canvas,
        x,
        bottom,
        top=4,
        words=words.short if by_volume else words.short_usd,
        wanted=4 if narrow else 6,
    )
    for i, item in enumerate(rows):
        y = i * row + (26 if narrow else 12)
        _tornado_row(canvas, item, x, y, (label_width, centre), by_volume=by_volume, narrow=narrow)
    canvas.line((x(centre), 0), (x(centre), bottom), "centre")
    axis = "break-even, requests a day" if by_volume else "saved a month by self-hosting"
    canvas.text(((label_width + width) / 2, height - 6), axis, "axis", "middle")
    names = ", ".join(row_.name for row_ in rows[:3])
    return canvas.markup(
        f"tornado-{width}",
        "What moves the break-even",
        f"Widest first: {names}. The table below has every figure.",
    )


def moving_rows(comparison: Comparison) -> list[SensitivityRow]:
    """Rows that move what the plot shows."""
    if comparison.break_even.requests_per_day is not None:
        return [row for row in comparison.sensitivity if row.break_even_spread > 1.0005]
    return [row for row in comparison.sensitivity if abs(row.saving_at_high - row.saving_at_low) > 0.5]


def css_of(line: ApiLine) -> str:
    """Colour class of an API."""
    if line.is_baseline:
        return "base"
    return "hosted" if line.kind == "hosted_qwen" else "other"


def short_name(line: ApiLine) -> str:
    """``Sonnet 4.6``, ``OpenRouter``: what fits beside a line."""
    return cut(line.name.rpartition(" on ")[2].removeprefix("Claude "), 12)


def brief_name(line: ApiLine) -> str:
    """``Qwen on Novita``: the long model name cut, and what stands in brackets."""
    return cut(without_model(line.name).partition(" (")[0], 24)


def without_model(name: str) -> str:
    """``Qwen on Novita (EU)``: the long model name cut."""
    return name.replace("Qwen3.5-122B-A10B on ", "Qwen on ")


def cut(name: str, length: int) -> str:
    """At most this many characters, the last an ellipsis where some are lost."""
    return name if len(name) <= length else name[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _stairs(comparison: Comparison, x: Scale, y: Scale) -> list[tuple[float, float]]:
    """The self-hosting bill with vertical risers where a node is added."""
    path: list[tuple[float, float]] = []
    for point in comparison.curve:
        at = (x(point.requests_per_day), y.clamp(point.self_host))
        if path and abs(path[-1][1] - at[1]) > 0.01:
            path.append((at[0], path[-1][1]))
        path.append(at)
    return path


def _mark_break_even(canvas: Canvas, comparison: Comparison, x: Scale, span: tuple[float, float]) -> None:
    crossing = comparison.break_even
    top, bottom = span
    if crossing.requests_per_day is None:
        return
    if crossing.low is not None:
        left, right = x.clamp(crossing.low), x.clamp(crossing.high or x.high)
        tip = f"90 % band: {words.band(crossing.low, crossing.high)} requests a day"
        canvas.rect((left, top), (right - left, bottom - top), "zone", tip=tip)
    at = x.clamp(crossing.requests_per_day)
    canvas.line((at, top), (at, bottom), "mark")
    anchor: Anchor = "end" if at > (x.start + x.end) / 2 else "start"
    shift = -6 if anchor == "end" else 6
    canvas.text((at + shift, bottom - 26), "break-even", "marker", anchor)
    canvas.text((at + shift, bottom - 10), words.count(crossing.requests_per_day), "marker strong", anchor)


def _mark_volume(canvas: Canvas, comparison: Comparison, x: Scale, span: tuple[float, float]) -> None:
    at = x.clamp(comparison.requests_per_day)
    label = "your volume" if comparison.requests_per_day_given else "one node, full"
    canvas.line((at, span[0]), (at, span[1]), "volume")
    canvas.text((at, span[0] - 3), label, "tick", "middle")


def _end_labels(
    canvas: Canvas, comparison: Comparison, lines: Sequence[ApiLine], x: Scale, y: Scale, *, narrow: bool
) -> None:
    last = comparison.curve[-1]
    labels = [("Self-host", "self", y.clamp(last.self_host))]
    labels += [
        (short_name(line) if narrow else brief_name(line), css_of(line),
         y.clamp(last.api[line.id]))
        for line in lines
    ]  # fmt: skip
    places = spread_labels([at for _, _, at in labels], 16, y.end + 4, y.start)
    for (name, css, _), at in zip(labels, places, strict=True):
        canvas.text((x.end + 8, at + 4), name, f"label {css}")


def _describe_curve(comparison: Comparison) -> str:
    crossing = comparison.break_even
    if crossing.requests_per_day is None:
        return f"The self-hosting stairs stay above {comparison.baseline.name}: {crossing.reason}."
    return (
        f"The self-hosting stairs and the line of {comparison.baseline.name} cross at "
        f"{words.count(crossing.requests_per_day)} requests a day, 90 % band "
        f"{words.band(crossing.low, crossing.high)}."
    )


def _ends(row: SensitivityRow, *, by_volume: bool) -> tuple[float | None, float | None]:
    if by_volume:
        return row.break_even_at_low, row.break_even_at_high
    return row.saving_at_low, row.saving_at_high


def _saving(comparison: Comparison) -> float:
    return comparison.baseline.usd_per_month - comparison.self_host.usd_per_month


def _tornado_scale(values: Sequence[float], start: float, end: float, *, log: bool) -> Scale:
    low, high = min(values), max(values)
    if log:
        pad = max((high / low) ** 0.06, 1.05)
        return Scale(low / pad, high * pad, start, end, log=True)
    pad = (high - low or abs(high) or 1.0) * 0.06
    return Scale(low - pad, high + pad, start, end)


def _tornado_row(
    canvas: Canvas, row: SensitivityRow, x: Scale, y: float, frame: tuple[float, float], *, by_volume: bool,
    narrow: bool,
) -> None:  # fmt: skip
    label_width, centre = frame
    low, high = _ends(row, by_volume=by_volume)
    values = words.span(row.low, row.high, row.unit)
    if narrow:
        canvas.text((0, y - 8), f"{row.name}, {values}", "name")
    else:
        canvas.text((label_width - 6, y + 9), row.name, "name", "end")
        canvas.text((label_width - 6, y + 24), values, "tick", "end")
    for end, value, css in ((low, row.low, "low"), (high, row.high, "high")):
        at = x.end + 12 if end is None else x(end)
        a, b = sorted((x(centre), at))
        result = "no break-even" if end is None else (words.count(end) if by_volume else words.usd(end))
        tip = f"{row.name} {words.quantity(value, row.unit)}: {result}"
        canvas.rect((a, y), (b - a, 18), f"swing {css}", tip=tip)
        if end is None:
            canvas.text((x.end + 14, y + 14), "→", "value")

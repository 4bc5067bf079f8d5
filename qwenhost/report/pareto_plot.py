"""The front drawn: every combination under every load a dot, the front as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.report import words
from qwenhost.report.svg import Canvas, Scale, bottom_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.planner.pareto import ParetoPoint

NARROW: Final = 420
BIN: Final = 4.0
# Classes of report.css that tell colours apart on both themes; dots of a checkpoint share one.
COLOURS: Final = ("hosted", "base", "other", "self")


def legend(front: Sequence[ParetoPoint]) -> list[tuple[str, str]]:
    """(class, checkpoint) in the order of first use."""
    return [(css, name) for name, css in _colours(front).items()]


def per_gpu_against_per_user(points: Sequence[ParetoPoint], width: int) -> str:
    """Throughput against interactivity, as InferenceX draws it; up and to the right is better."""
    return _scatter(points, width, _PER_GPU)


def cost_against_per_user(points: Sequence[ParetoPoint], width: int) -> str:
    """What a million output tokens cost at that interactivity; down and to the right is better."""
    return _scatter(points, width, _COST)


class _Axis(NamedTuple):
    """What stands upright."""

    name: str
    title: str
    value: Callable[[ParetoPoint], float]
    tick: Callable[[float], str]


_PER_GPU: Final = _Axis(
    "front", "output tokens/s per GPU", lambda point: point.output_tokens_per_s_per_gpu, words.short
)
_COST: Final = _Axis(
    "cost", "USD per million output tokens", lambda point: point.usd_per_mtok_output or 0.0, words.short_usd
)


def _scatter(points: Sequence[ParetoPoint], width: int, axis: _Axis) -> str:
    narrow = width < NARROW
    height = 320 if narrow else 420
    left, right, top, bottom = 54, 14, 34, height - 48
    xs = [point.output_tokens_per_s_per_user for point in points]
    ys = [axis.value(point) for point in points]
    x = Scale(min(xs) * 0.95, max(xs) * 1.05, left, width - right, log=True)
    y = Scale(min(ys) * 0.9, max(ys) * 1.1, bottom, top, log=True)
    canvas = Canvas(width, height)
    for level in y.ticks(5 if narrow else 7):
        canvas.line((left, y(level)), (width - right, y(level)), "grid")
        canvas.text((left - 7, y(level) + 4), axis.tick(level), "tick", "end")
    bottom_axis(canvas, x, bottom, top=top, words=words.short, wanted=4 if narrow else 7)
    canvas.text(((left + width - right) / 2, height - 8), "output tokens/s per user", "axis", "middle")
    canvas.text((left, top - 16), axis.title, "axis")
    front = [point for point in points if point.on_front or point.chosen]
    colours = _colours(front)

    def at(point: ParetoPoint) -> tuple[float, float]:
        return x(point.output_tokens_per_s_per_user), y(axis.value(point))

    beaten = [at(point) for point in points if not point.on_front and not point.chosen]
    # Thousands, and many meet: one dot for each few pixels keeps the file small.
    for place in {(round(px / BIN) * BIN, round(py / BIN) * BIN): None for px, py in beaten}:
        canvas.dot(place, 1.6, "beaten")
    canvas.path([at(point) for point in front if point.on_front], "curve front")
    for point in front:
        canvas.dot(at(point), 4.5, f"dot {colours[point.checkpoint]}", tip=_tip(point))
    for point in front:
        if point.chosen:
            canvas.dot(at(point), 9, "choice", tip=_tip(point))
            where = at(point)
            canvas.text((where[0] + 10, where[1] + 22), "the plan's choice", "label")
    return canvas.markup(f"{axis.name}-{width}", f"{axis.title} against tokens/s per user", _described(front))


def _colours(front: Sequence[ParetoPoint]) -> dict[str, str]:
    names = list(dict.fromkeys(point.checkpoint for point in front))
    return {name: COLOURS[min(i, len(COLOURS) - 1)] for i, name in enumerate(names)}


def _tip(point: ParetoPoint) -> str:
    rates = f"{point.output_tokens_per_s_per_user:,.1f} tokens/s per user"
    text = (
        f"{point.label}, {point.concurrency:,} in flight: {rates}, "
        f"{point.output_tokens_per_s_per_gpu:,.0f} per GPU"
    )
    price = point.usd_per_mtok_output
    return text if price is None else f"{text}, {words.usd(price)} per million output tokens"


def _described(front: Sequence[ParetoPoint]) -> str:
    slow, fast = front[0], front[-1]
    return f"{len(front)} points, from {_tip(slow)} to {_tip(fast)}."

"""Just enough SVG: escaped shapes on a canvas, and scales with round ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value; a log scale clamps values that have no logarithm to its low end."""
        low, high = self._f(self.low), self._f(self.high)
        at = self._f(max(value, self.low * 1e-3) if self.log else value)
        return self.start + (at - low) / ((high - low) or 1.0) * (self.end - self.start)

    def clamp(self, value: float) -> float:
        """Pixel of a value, held within the axis."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, wanted: int = 6) -> list[float]:
        """Round values within the scale."""
        return _log_ticks(self.low, self.high, wanted) if self.log else _ticks(self.low, self.high, wanted)

    def _f(self, value: float) -> float:
        return math.log10(value) if self.log else value


@dataclass(slots=True)
class Canvas:
    """Shapes in drawing order."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def line(self, a: tuple[float, float], b: tuple[float, float], css: str) -> None:
        """A straight line."""
        self.parts.append(
            f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" class="{css}"/>'
        )

    def path(
        self, points: Sequence[tuple[float, float]], css: str, *, closed: bool = False, tip: str = ""
    ) -> None:
        """A line through points, or an area."""
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if closed else "")
        self.parts.append(f'<path d="{d}" class="{css}">{_tip(tip)}</path>')

    def rect(self, at: tuple[float, float], size: tuple[float, float], css: str, *, tip: str = "") -> None:
        """A rectangle; at least a hair wide so that it can be seen."""
        width = max(size[0], 0.5)
        self.parts.append(
            f'<rect x="{at[0]:.1f}" y="{at[1]:.1f}" width="{width:.1f}" height="{size[1]:.1f}" '
            f'class="{css}">{_tip(tip)}</rect>'
        )

    def dot(self, at: tuple[float, float], radius: float, css: str, *, tip: str = "") -> None:
        """A circle."""
        self.parts.append(
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:g}" class="{css}">{_tip(tip)}</circle>'
        )

    def text(self, at: tuple[float, float], words: str, css: str = "", anchor: Anchor = "start") -> None:
        """A line of text."""
        place = f'x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} class="{css}">{escape(words)}</text>')

    def markup(self, name: str, title: str, description: str) -> str:
        """The drawing, named and described for those who cannot see it."""
        width, height = f"{self.width:g}", f"{self.height:g}"
        return (
            f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-labelledby="{name}-t {name}-d">'
            f'<title id="{name}-t">{escape(title)}</title>'
            f'<desc id="{name}-d">{escape(description)}</desc>{"".join(self.parts)}</svg>'
        )


def bottom_axis(
    canvas: Canvas, scale: Scale, y: float, *, top: float, words: Callable[[float], str], wanted: int
) -> None:
    """Grid lines from ``top`` to ``y`` and a tick label below each."""
    for tick in scale.ticks(wanted):
        x = scale(tick)
        canvas.line((x, top), (x, y), "grid")
        canvas.text((x, y + 17), words(tick), "tick", "middle")


def spread_labels(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones (in the same order), at least ``gap`` apart and within low..high."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(wanted[i], low), high) for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    overflow = placed[-1] - high if placed else 0.0
    if overflow > 0:
        placed[-1] -= overflow
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - gap)
    result = [0.0] * len(wanted)
    for position, i in zip(placed, order, strict=True):
        result[i] = position
    return result


def _tip(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    rough = (high - low) / max(wanted, 1)
    if rough <= 0:
        return [low]
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, wanted: int) -> list[float]:
    if high / low < 8:
        return _ticks(low, high, wanted)  # too short for 1-2-5
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(found) <= wanted:
            return found
    every = math.ceil(len(found) / max(wanted, 1))
    return found[::every]

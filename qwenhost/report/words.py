"""Numbers as people read them."""

from __future__ import annotations

import math
from typing import Final

from qwenhost.units import format_usd

DASH: Final = "\N{EN DASH}"
TIMES: Final = "\N{MULTIPLICATION SIGN}"
_SHORT: Final = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def usd(value: float | None) -> str:
    """Dollars, or a dash for None; never in powers of ten."""
    if value is None:
        return DASH
    if value and abs(value) < 0.01:
        sign = "-" if value < 0 else ""
        return f"{sign}${abs(value):.{2 - math.floor(math.log10(abs(value)))}f}"
    return format_usd(value)


def solved(usd_per_solved: float | None, share: float | None) -> str:
    """``$0.0316``, and how many tasks that solves where attempts are capped."""
    capped = share is not None and share < 1
    return f"{usd(usd_per_solved)} ({share:.0%} solved)" if capped else usd(usd_per_solved)


def count(value: float | None, digits: int = 3) -> str:
    """This many significant digits with thousands separators, or a dash for None."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def short(value: float) -> str:
    """``1.2M``, ``85k``, ``300``: for axis ticks."""
    for size, letter in _SHORT:
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def short_usd(value: float) -> str:
    """``$1.2M``: for axis ticks."""
    return f"-${short(-value)}" if value < 0 else f"${short(value)}"


def milliseconds(value: float | None) -> str:
    """``420 ms``, ``4.80 s``, or a dash for None."""
    if value is None:
        return DASH
    return f"{_three_digits(value)} ms" if abs(value) < 999.5 else f"{_three_digits(value / 1000)} s"


def percent(share: float | None, digits: int = 0) -> str:
    """A share as a percentage, or a dash for None."""
    return DASH if share is None else f"{share:.{digits}%}"


def band(low: float | None, high: float | None) -> str:
    """``72,600 to 156,000``; an open end is ``none``."""
    if low is None and high is None:
        return "none"
    return f"{count(low) if low is not None else 'none'} to {count(high) if high is not None else 'none'}"


def quantity(value: float, unit: str) -> str:
    """A lever's value with its unit: ``$3.99/GPU/h``, ``50%``, ``28.2 requests/s``."""
    if unit.startswith("USD"):
        return usd(value) + unit.removeprefix("USD")
    if unit == "share":
        return percent(value)
    if unit == "ratio":
        return f"{_three_digits(value)}{TIMES}"
    number = f"{value:,.0f}" if value == round(value) else count(value)
    return f"{number} {unit}".strip()


def span(low: float, high: float, unit: str) -> str:
    """A range with its unit said once where it follows the number: ``21.2 to 38.1 requests/s``."""
    if unit.startswith("USD"):
        return f"{usd(low)} to {usd(high)}{unit.removeprefix('USD')}"
    first, last = quantity(low, unit), quantity(high, unit)
    return f"{first.removesuffix(unit).strip() or first} to {last}"


def _three_digits(value: float) -> str:
    """``0.5``, ``4.8``, ``1,500``: never a power of ten for what is large."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"

"""A stretch of steps whose times lie on a straight line."""

from __future__ import annotations


def stretch_seconds(first: float, slope: float, steps: int) -> float:
    """Seconds of ``steps`` steps, the first taking ``first`` and each ``slope`` more than the one before."""
    return steps * first + slope * steps * (steps - 1) / 2


def steps_until(first: float, slope: float, most: int, limit_s: float) -> int:
    """Fewest steps that last at least ``limit_s``, given that ``most`` steps do."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if stretch_seconds(first, slope, middle) >= limit_s:
            high = middle
        else:
            low = middle + 1
    return low

"""A number on the page: value, band, basis, source and date together."""

from __future__ import annotations

from typing import Literal

from qwenhost.facts import Value

FigureBasis = Literal["measured", "modelled", "assumed", "simulated", "published"]
"""``published`` is a price sheet or a score list; ``simulated`` never counts as a measurement."""


class Figure(Value, frozen=True, kw_only=True):
    """A number with its band and where it comes from; ``low == high`` where it has no band."""

    value: float
    low: float
    high: float
    basis: FigureBasis
    source: str
    as_of: str = ""
    note: str = ""


def ratio(part: float, whole: float) -> float | None:
    """``part / whole``; None where there is no whole."""
    return part / whole if whole else None

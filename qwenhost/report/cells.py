"""Cells of a table: words, the basis of a figure, the footnote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwenhost.report import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost.figures import Figure
    from qwenhost.report.sources import Sources


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its words, the basis of a figure, the footnote."""

    text: str
    tag: str = ""
    ref: int | None = None
    css: str = ""


@dataclass(frozen=True, slots=True)
class TableView:
    """Header, rows, caption; the first cell of a row is its header, numbers stand right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: Sequence[int] = ()
    """Columns beside the first that hold words."""


def figure_cell(figure: Figure, unit: str, sources: Sources) -> Cell:
    """A figure with its band, basis and source."""
    span = ""
    if figure.low != figure.high:
        span = f" ({words.span(figure.low, figure.high, unit)})"
    text = words.quantity(figure.value, unit) + span
    return Cell(text, figure.basis, sources.ref(figure.source, figure.as_of))

"""Scales, ticks and labels."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.report import words
from qwenhost.report.svg import Canvas, Scale, spread_labels


def test_log_scale_puts_equal_ratios_at_equal_distances() -> None:
    """1, 10 and 100 lie at 0, 50 and 100."""
    scale = Scale(1, 100, 0, 100, log=True)
    assert [scale(v) for v in (1, 10, 100)] == pytest.approx([0, 50, 100])


@given(st.floats(1e-3, 1e9), st.floats(1.01, 1e7), st.booleans(), st.integers(2, 8))
def test_ticks_are_few_rising_and_within(low: float, factor: float, log: bool, wanted: int) -> None:
    """At most a handful more than wanted, each inside the axis."""
    high = low * factor
    ticks = Scale(low, high, 0, 100, log=log).ticks(wanted)
    assert ticks == sorted(set(ticks))
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in ticks)
    assert len(ticks) <= wanted + 2


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8))
def test_labels_do_not_overlap_and_stay_inside(wanted: list[float]) -> None:
    """Sixteen pixels apart within 0 to 300."""
    placed = spread_labels(wanted, 16, 0, 300)
    ordered = sorted(placed)
    assert all(b - a >= 16 - 1e-6 for a, b in itertools.pairwise(ordered))
    assert ordered[0] >= -1e-6
    assert ordered[-1] <= 300 + 1e-6


def test_text_and_tips_are_escaped() -> None:
    """Angle brackets arrive as entities."""
    canvas = Canvas(10, 10)
    canvas.text((0, 0), "<b>")
    canvas.dot((0, 0), 1, "dot", tip="<i>")
    drawn = canvas.markup("x", "<t>", "<d>")
    assert "<b>" not in drawn
    assert "<i>" not in drawn
    assert "&lt;t&gt;" in drawn


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0000786, "$0.0000786"), (0.00663, "$0.00663"), (12.5, "$12.50"), (84_759.0, "$84,759"), (0.0, "$0")],
)
def test_dollars_are_never_written_in_powers_of_ten(value: float, text: str) -> None:
    """Small prices keep three digits."""
    assert words.usd(value) == text


@pytest.mark.parametrize(
    ("low", "high", "unit", "text"),
    [
        (21.16, 38.08, "requests/s", "21.2 to 38.1 requests/s"),
        (0, 2, "nodes", "0 to 2 nodes"),
        (2.79, 7.912, "USD/GPU/h", "$2.79 to $7.91/GPU/h"),
        (0.28, 0.7, "share", "28% to 70%"),
        (1.0, 1.2, "ratio", f"1{words.TIMES} to 1.2{words.TIMES}"),
    ],
)
def test_a_range_says_its_unit_once(low: float, high: float, unit: str, text: str) -> None:
    """As people write ranges."""
    assert words.span(low, high, unit) == text

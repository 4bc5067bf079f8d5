"""Numbers as people read them: every formatter at its edges, and never wrong by more than its last digit."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.report import words
from qwenhost.report.cells import Cell, TableView
from qwenhost.report.plots import cut, without_model
from qwenhost.report.svg import Canvas, Scale, bottom_axis


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "$0"),
        (0.01, "$0.0100"),
        (0.0099, "$0.00990"),
        (0.00012345, "$0.000123"),
        (1.5e-7, "$0.000000150"),
        (0.5, "$0.5000"),
        (1, "$1.00"),
        (999.994, "$999.99"),
        (1000, "$1,000"),
        (1234567.8, "$1,234,568"),
        (-0.005, "-$0.00500"),
        (-3.99, "-$3.99"),
    ],
)
def test_dollars(value: float | None, text: str) -> None:
    """Three digits under a cent, never a power of ten."""
    assert words.usd(value) == text


@given(st.floats(1e-12, 1e12))
def test_no_dollar_figure_is_in_powers_of_ten_or_far_off(value: float) -> None:
    text = words.usd(value)
    assert "e" not in text
    assert float(text.replace("$", "").replace(",", "")) == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (None, 3, "\N{EN DASH}"),
        (0, 3, "0"),
        (1, 3, "1.00"),
        (72_649, 3, "72,600"),
        (72_650.1, 3, "72,700"),
        (999_999, 3, "1,000,000"),
        (0.012345, 3, "0.0123"),
        (12.345, 2, "12"),
        (-1234, 2, "-1,200"),
    ],
)
def test_counts_have_so_many_digits(value: float | None, digits: int, text: str) -> None:
    assert words.count(value, digits) == text


@given(st.floats(1e-6, 1e12), st.integers(2, 6))
def test_a_count_is_right_to_its_digits(value: float, digits: int) -> None:
    shown = float(words.count(value, digits).replace(",", ""))
    assert shown == pytest.approx(value, rel=0.5001 * 10 ** (1 - digits))


@pytest.mark.parametrize(
    ("value", "text", "dollars"),
    [
        (0, "0", "$0"),
        (300, "300", "$300"),
        (1000, "1k", "$1k"),
        (85_000, "85k", "$85k"),
        (1_200_000, "1.2M", "$1.2M"),
        (2e9, "2B", "$2B"),
        (-1500, "-1.5k", "-$1.5k"),
        (0.25, "0.25", "$0.25"),
    ],
)
def test_ticks_are_short(value: float, text: str, dollars: str) -> None:
    assert words.short(value) == text
    assert words.short_usd(value) == dollars


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.5, "0.5 ms"),
        (420, "420 ms"),
        (0, "0 ms"),
        (-5, "-5 ms"),  # a difference
        (999.4, "999 ms"),
        (999.5, "1 s"),  # three digits of it are a thousand
        (1000, "1 s"),
        (-4800, "-4.8 s"),
        (4800, "4.8 s"),
        (999_499, "999 s"),
        (999_500, "1,000 s"),  # not 1e+03 s
        (1_500_000, "1,500 s"),
    ],
)
def test_latencies(value: float | None, text: str) -> None:
    assert words.milliseconds(value) == text


@given(st.floats(0.01, 1e9))
def test_a_latency_is_right_to_three_digits_and_never_a_power_of_ten(value: float) -> None:
    number, unit = words.milliseconds(value).split()
    assert re.fullmatch(r"[\d,]+(\.\d+)?", number)
    shown = float(number.replace(",", "")) * (1000 if unit == "s" else 1)
    assert shown == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (1.234, "1.23"), (999.4, "999"), (1234.0, "1,234"), (2e6, "2,000,000")]
)
def test_ratios(value: float, text: str) -> None:
    assert words.quantity(value, "ratio") == f"{text}{words.TIMES}"


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(None, 0, "\N{EN DASH}"), (0.5, 0, "50%"), (0.916, 1, "91.6%"), (1, 0, "100%"), (0.004, 0, "0%")],
)
def test_shares(share: float | None, digits: int, text: str) -> None:
    assert words.percent(share, digits) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (None, None, "none"),
        (72_600, 156_000, "72,600 to 156,000"),
        (72_600, None, "72,600 to none"),
        (None, 5, "none to 5.00"),
    ],
)
def test_a_band_may_be_open(low: float | None, high: float | None, text: str) -> None:
    """No break-even at one end is said, not drawn as a number."""
    assert words.band(low, high) == text


@pytest.mark.parametrize(
    ("low", "high", "unit", "one", "both"),
    [
        (3.99, 6.5, "USD/GPU/h", "$3.99/GPU/h", "$3.99 to $6.50/GPU/h"),
        (0.5, 0.75, "share", "50%", "50% to 75%"),
        (1.0, 1.25, "ratio", f"1{words.TIMES}", f"1{words.TIMES} to 1.25{words.TIMES}"),
        (21.2, 38.1, "requests/s", "21.2 requests/s", "21.2 to 38.1 requests/s"),
        (3, 5, "years", "3 years", "3 to 5 years"),
        (1000, 2000, "", "1,000", "1,000 to 2,000"),
    ],
)  # fmt: skip
def test_quantities_carry_their_unit_once(low: float, high: float, unit: str, one: str, both: str) -> None:
    assert words.quantity(low, unit) == one
    assert words.span(low, high, unit) == both


@pytest.mark.parametrize(
    ("usd", "share", "text"),
    [
        (0.0316, None, "$0.0316"),
        (0.0316, 1.0, "$0.0316"),
        (0.0316, 0.72, "$0.0316 (72% solved)"),
        (None, None, "\N{EN DASH}"),
    ],
)
def test_a_solved_task_says_how_many_are_not(usd: float | None, share: float | None, text: str) -> None:
    assert words.solved(usd, share) == text


@given(st.text(max_size=60), st.integers(1, 30))
def test_a_cut_name_fits_and_shows_that_it_is_cut(name: str, length: int) -> None:
    short = cut(name, length)
    assert len(short) <= max(length, 1)
    assert short == name if len(name) <= length else short.endswith("\N{HORIZONTAL ELLIPSIS}")


def test_the_long_models_name_is_cut_once() -> None:
    assert without_model("Qwen3.5-122B-A10B on Novita (EU)") == "Qwen on Novita (EU)"
    assert without_model("Claude Sonnet 4.6") == "Claude Sonnet 4.6"


@given(
    st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.floats(0, 500), st.floats(1, 500), st.floats(0, 1)
)  # fmt: skip
def test_a_linear_scale_is_a_line(low: float, span: float, start: float, width: float, share: float) -> None:
    """Ends at the ends, and a share of the way at that share."""
    scale = Scale(low, low + span, start, start + width)
    slack = 1e-3 * width + 1e-9
    assert scale(low) == pytest.approx(start, abs=slack)
    assert scale(low + span) == pytest.approx(start + width, abs=slack)
    assert scale(low + share * span) == pytest.approx(start + share * width, abs=slack)


@given(st.floats(-1e9, 1e9), st.booleans())
def test_clamped_values_stay_on_the_axis(value: float, log: bool) -> None:
    """Downwards too: pixels of a vertical axis fall as values rise."""
    at = Scale(1, 1000, 300, 20, log=log).clamp(value)
    assert 20 - 1e-9 <= at <= 300 + 1e-9


@pytest.mark.parametrize("value", [0.0, -5.0, 1e-300])
def test_a_log_scale_has_a_place_for_what_has_no_logarithm(value: float) -> None:
    """Below its low end, finite, the same for all of them."""
    scale = Scale(1, 100, 0, 100, log=True)
    assert scale(value) == pytest.approx(scale(1e-3))
    assert scale(value) < 0


def test_a_scale_without_width_puts_all_at_its_start() -> None:
    scale = Scale(5, 5, 10, 90)
    assert scale(5) == 10
    assert scale.ticks() == [5]


@pytest.mark.parametrize(
    ("low", "high", "log", "wanted", "ticks"),
    [
        (0, 10, False, 5, [0, 2, 4, 6, 8, 10]),
        (0, 1, False, 4, [0, 0.5, 1.0]),
        (3, 97, False, 4, [50]),
        (-50, 50, False, 5, [-40, -20, 0, 20, 40]),
        (1, 100, True, 7, [1, 2, 5, 10, 20, 50, 100]),
        (1, 100, True, 5, [1, 3, 10, 30, 100]),
        (1, 1e6, True, 7, [1, 10, 100, 1e3, 1e4, 1e5, 1e6]),
        (2, 8, True, 6, [2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, wanted: int, ticks: list[float]) -> None:
    """Ones, twos and fives; on a short log axis too."""
    assert Scale(low, high, 0, 1, log=log).ticks(wanted) == pytest.approx(ticks)


def drawn(canvas: Canvas) -> str:
    return canvas.markup("n", "Title", "What it shows")


def test_every_shape_is_escaped() -> None:
    """A model's name comes from outside: it may hold anything."""
    canvas = Canvas(100, 50)
    evil = '<script>alert("x")</script>&'
    canvas.text((1, 2), evil)
    canvas.dot((1, 2), 3, "a", tip=evil)
    canvas.rect((1, 2), (0, 4), "a", tip=evil)
    canvas.path([(0, 0), (1, 1)], "a", tip=evil)
    svg = canvas.markup("n", evil, evil)
    assert "<script" not in svg
    assert svg.count("&lt;script&gt;") == 6
    assert not re.search(r"&(?!lt;|gt;|quot;|amp;|#x27;)", svg)


def test_a_drawing_is_named_for_those_who_cannot_see_it() -> None:
    svg = drawn(Canvas(100, 50))
    assert 'role="img" aria-labelledby="n-t n-d"' in svg
    assert '<title id="n-t">Title</title><desc id="n-d">What it shows</desc>' in svg
    assert 'viewBox="0 0 100 50"' in svg


def test_a_rectangle_of_nothing_can_be_seen() -> None:
    canvas = Canvas(10, 10)
    canvas.rect((0, 0), (0.0, 5), "a")
    assert 'width="0.5"' in drawn(canvas)


def test_an_area_is_closed_and_a_line_is_not() -> None:
    canvas = Canvas(10, 10)
    canvas.path([(0, 0), (1, 2.25)], "a")
    canvas.path([(0, 0), (1, 2)], "b", closed=True)
    assert '<path d="M0.0 0.0L1.0 2.2" class="a">' in drawn(canvas)
    assert '<path d="M0.0 0.0L1.0 2.0Z" class="b">' in drawn(canvas)


def test_an_axis_has_a_line_and_a_label_for_each_tick() -> None:
    canvas = Canvas(200, 100)
    bottom_axis(canvas, Scale(0, 10, 0, 200), 80, top=5, words=words.short, wanted=5)
    svg = drawn(canvas)
    assert svg.count('class="grid"') == svg.count('class="tick"') == 6
    assert re.findall(r'class="tick">([^<]+)<', svg) == ["0", "2", "4", "6", "8", "10"]
    assert 'x1="40.0" y1="5.0" x2="40.0" y2="80.0"' in svg


def test_cells_are_values() -> None:
    """Equal by what they say."""
    assert Cell("a") == Cell("a")
    assert Cell("a", tag="measured") != Cell("a")
    view = TableView("c", ("h",), ((Cell("a"),),))
    assert view.text_columns == ()

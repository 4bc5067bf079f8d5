"""Figures for people never lie by more than their last digit."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost import units
from qwenhost.errors import (
    BadInputError,
    InfeasibleError,
    QwenhostError,
    UnavailableError,
)
from qwenhost.units import format_bytes, format_seconds, format_usd

BINARY = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@given(st.integers(-(2**50), 2**50))
def test_bytes_read_back_to_within_their_last_digit(n_bytes: int) -> None:
    """One decimal of the unit, and none of whole bytes."""
    number, unit = format_bytes(n_bytes).split(" ")
    step = BINARY[unit]
    assert abs(float(number.replace(",", "")) * step - n_bytes) <= (0.05 * step + 1e-6 if step > 1 else 0)


@given(st.floats(0, 1e9))
def test_dollars_read_back_to_three_digits(usd: float) -> None:
    shown = float(format_usd(usd).removeprefix("$").replace(",", ""))
    assert shown == pytest.approx(usd, rel=0.006, abs=1e-300)


@given(st.floats(-1e9, -1e-3))
def test_a_loss_shows_as_one(usd: float) -> None:
    assert "-" in format_usd(usd)


@given(st.floats(0, 10**7))
def test_durations_read_back(seconds: float) -> None:
    """To half of the smaller unit shown, plus rounding up to the next minute."""
    text = format_seconds(seconds)
    parts = [(float(n), u) for n, u in re.findall(r"([\d.]+) (ms|s|min|h)", text)]
    size = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
    back = sum(number * size[unit] for number, unit in parts)
    smallest = size[parts[-1][1]]
    assert abs(back - seconds) <= max(smallest, 0.05)
    assert len(parts) <= 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.94, "59.9 s"), (60, "1 min 00 s"), (3599.4, "59 min 59 s"), (3600, "1 h 00 min"), (0, "0 ms")],
)
def test_durations_at_the_edges(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_month_is_a_twelfth_of_a_year() -> None:
    """As clouds bill it: 8,760 h / 12."""
    assert units.HOURS_PER_MONTH * 12 == 8760
    assert units.DAYS_PER_MONTH * 24 == units.HOURS_PER_MONTH
    assert units.GB < units.GIB
    assert units.TB == 1000 * units.GB == 10**6 * units.MB == 10**9 * units.KB
    assert 2**10 * units.MIB == units.GIB == 2**20 * units.KIB


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (QwenhostError, 1),
        (BadInputError, 2),
        (InfeasibleError, 3),
        (UnavailableError, 4),
    ],
)
def test_exit_codes_are_a_contract(kind: type[QwenhostError], code: int) -> None:
    """Scripts test for them."""
    error = kind("what", remedy="do")
    assert (error.exit_code, error.message, error.remedy, str(error)) == (code, "what", "do", "what")
    assert error.kind.isidentifier()

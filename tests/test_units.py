"""Figures as people read them."""

from __future__ import annotations

import pytest

from qwenhost.units import GIB, format_bytes, format_gib, format_seconds, format_usd, gib


def test_gib_is_binary() -> None:
    """2^36 bytes are 64 GiB."""
    assert gib(68719476736) == 64.0
    assert format_gib(68719476736) == "64.00 GiB"
    assert format_gib(1536 * GIB, digits=0) == "1,536 GiB"


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (1572864, "1.5 MiB"),
        (-2147483648, "-2.0 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_bytes_take_the_largest_unit_that_keeps_one(n_bytes: int, text: str) -> None:
    """Also below zero, where a cache does not fit."""
    assert format_bytes(n_bytes) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (5825, "$5,825"),
        (3.99, "$3.99"),
        (0.0788, "$0.0788"),
        (0.00123, "$0.00123"),
        (0, "$0"),
    ],
)
def test_dollars_have_the_decimals_their_size_needs(usd: float, text: str) -> None:
    """Whole dollars from a thousand, significant digits under a cent."""
    assert format_usd(usd) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.85, "850 ms"), (12.3, "12.3 s"), (245, "4 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    """Two units at the most."""
    assert format_seconds(seconds) == text

"""Our bills against two independent price engines, to the micro-dollar."""

from __future__ import annotations

import datetime as dt
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwenhost.cost import Usage, api_cost
from qwenhost.profiles import load_catalog

DRAWS, SEED = 2_000, 7
MICRO_USD = 1e-6
SONNET = load_catalog().api_prices["claude-sonnet-4.6"]
NOW, EARLY = dt.date(2026, 11, 23), dt.date(2026, 3, 1)


def drawn(draws: int) -> list[dict[str, Any]]:
    """Usages of every kind: plain, cached, long, batch, in the US."""
    generator = random.Random(SEED)  # noqa: S311 - test data

    def tokens(most: int) -> int:
        return generator.randint(1, most) if generator.random() < 0.7 else 0

    return [
        {
            "plain": tokens(300_000), "write_5m": tokens(60_000), "write_1h": tokens(60_000),
            "read": tokens(400_000), "output": tokens(64_000), "batch": generator.random() < 0.2,
            "geo": "us" if generator.random() < 0.2 else None,
        }
        for _ in range(draws)
    ]  # fmt: skip


def ours(row: dict[str, Any], day: dt.date) -> float:
    """Our bill of a drawn row."""
    usage = Usage(
        uncached_input_tokens=row["plain"],
        cache_write_5m_tokens=row["write_5m"],
        cache_write_1h_tokens=row["write_1h"],
        cache_read_tokens=row["read"],
        output_tokens=row["output"],
        batch=row["batch"],
        inference_geo=row["geo"],
    )
    return api_cost(SONNET, usage, as_of=day).total


def theirs(rows: list[dict[str, Any]], day: dt.date) -> dict[str, list[float | None]]:
    """Both engines' bills, from a process of their own."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("price_engines.py")],
        input=json.dumps({"rows": rows, "day": f"{day}T12:00:00+00:00"}),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The draws."""
    return drawn(DRAWS)


@pytest.fixture(scope="module")
def bills(rows: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Today's bills of the draws."""
    return theirs(rows, NOW)


def test_genai_prices_agrees_on_every_standard_request(
    rows: list[dict[str, Any]], bills: dict[str, list[float | None]]
) -> None:
    """Input, output, both cache writes and reads; batch and residency it does not model."""
    pairs = [(ours(row, NOW), usd) for row, usd in zip(rows, bills["genai"], strict=True) if usd is not None]
    assert len(pairs) > 1000
    assert max(abs(a - b) for a, b in pairs) < MICRO_USD


def test_litellm_agrees_on_standard_and_us_requests(
    rows: list[dict[str, Any]], bills: dict[str, list[float | None]]
) -> None:
    """All buckets, the US surcharge included."""
    pairs = [
        (ours(row, NOW), usd) for row, usd in zip(rows, bills["litellm"], strict=True) if not row["batch"]
    ]
    assert len(pairs) > 1400
    assert max(abs(a - (b or 0)) for a, b in pairs) < MICRO_USD


def test_litellm_agrees_on_batches_but_for_two_things_it_leaves_out(
    rows: list[dict[str, Any]], bills: dict[str, list[float | None]]
) -> None:
    """It bills a batch's 1-hour writes at the 5-minute rate (1.875 in place of 3.00) and no residency."""
    pairs = [(row, usd) for row, usd in zip(rows, bills["litellm"], strict=True) if row["batch"]]
    assert len(pairs) > 300
    for row, usd in pairs:
        everywhere = ours({**row, "geo": None}, NOW)
        assert everywhere - row["write_1h"] * (3.00 - 1.875) / 1e6 == pytest.approx(usd, abs=MICRO_USD)


def test_genai_prices_agrees_on_the_long_context_rates_of_early_2026(rows: list[dict[str, Any]]) -> None:
    """Until 2026-03-12 a request of more than 200,000 prompt tokens moved to 6 and 22.50."""
    found = theirs(rows[:400], EARLY)["genai"]
    pairs = [(ours(row, EARLY), usd) for row, usd in zip(rows[:400], found, strict=True) if usd is not None]
    assert max(abs(a - b) for a, b in pairs) < MICRO_USD

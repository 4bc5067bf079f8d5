"""The stamping selector and the measure of its own lateness."""

from __future__ import annotations

import asyncio

import pytest

from qwenhost.probe import clock
from qwenhost.probe.clock import TurnStats, new_runner, now


def test_lag_is_the_wait_of_an_arrival_at_a_random_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 10 s one turn of 1 s: 10 % of arrivals fall into it, 1 % wait longer than 0.9 s.

    P(wait > x) = (1 - x) / 10 is 1 % at x = 0.9 and 5 % at x = 0.5. Bins are a quarter of an octave.
    """
    stats = TurnStats()
    stats.add(1.0, 0.0)
    monkeypatch.setattr(clock, "now", lambda: stats.started + 10)
    lag = stats.summary()
    assert lag.p99_ms == pytest.approx(900, rel=0.01)
    assert lag.p95_ms == pytest.approx(500, rel=0.01)
    assert lag.max_ms == 1000
    assert lag.busy_share == pytest.approx(0.1)


def test_a_sleep_that_nothing_ends_counts_as_lag_but_not_as_work() -> None:
    """Half a second deaf, no time busy."""
    stats = TurnStats()
    stats.add(0.0, 0.5)
    assert stats.summary().max_ms == 500
    assert stats.summary().busy_share == 0


def test_memory_of_turns_is_constant() -> None:
    """A million turns of a thousand lengths make some dozen bins."""
    stats = TurnStats()
    for i in range(100_000):
        stats.add((i % 1000 + 1) * 1e-4, 0.0)
    assert len(stats._bins) < 60


def test_the_stamp_is_not_later_than_the_handler() -> None:
    """Inside a callback the stamp lies before the clock, and in the same turn."""

    async def look() -> tuple[float, float]:
        await asyncio.sleep(0.01)
        return selector.stamp, now()

    runner, selector = new_runner()
    with runner:
        stamp, clock_now = runner.run(look())
    assert stamp <= clock_now


def test_under_load_arrivals_are_read_in_batches() -> None:
    """Above 2000 events a second the selector batches, below it does not."""
    _, selector = new_runner()
    selector.stamp = selector._counting_since + 0.1
    selector.arrivals = 201
    selector._count(0)
    assert selector._batching
    selector.stamp += 0.1
    selector._count(199)
    assert not selector._batching
    selector.close()

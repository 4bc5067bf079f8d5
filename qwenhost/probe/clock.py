"""One clock for the whole run, read once per turn of the event loop.

An event loop that serves hundreds of streams handles what one ``select`` reported one after the
other. A time stamp taken when a stream's turn comes is late by the work done for the streams before
it; a stamp taken when ``select`` returns is not. The selector also knows how long each turn took, and
thus how late a stamp can be: anything that arrives during a turn waits for the next ``select``.
"""

from __future__ import annotations

import asyncio
import math
import select
import selectors
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

now = time.monotonic
"""CLOCK_MONOTONIC in seconds, the clock of asyncio's timers; comparable between processes of one machine."""

_SHORT_TURN_S = 0.0002  # Shorter turns cannot make a stamp noticeably late; they are only summed.
_BINS_PER_OCTAVE = 4
_MAX_SELECT_FD = 1024  # FD_SETSIZE
_SCHEDSTAT = Path("/proc/thread-self/schedstat")
_BATCH_ABOVE_PER_S = 2000
_BATCH_S = 0.0005


class TurnStats:
    """How long the loop was busy between two ``select`` calls, in constant memory."""

    def __init__(self) -> None:
        self.started = now()
        self.turns = 0
        self.busy_s = 0.0
        self.longest_s = 0.0
        self._cpu_wait_started = _cpu_waits()
        self._bins: dict[int, list[float]] = {}

    def add(self, busy_s: float, slept_s: float) -> None:
        """Count one turn: work, then a sleep that no arrival could end."""
        self.turns += 1
        self.busy_s += busy_s
        deaf_s = busy_s + slept_s
        if deaf_s > _SHORT_TURN_S:
            self.longest_s = max(self.longest_s, deaf_s)
            entry = self._bins.setdefault(round(math.log2(deaf_s) * _BINS_PER_OCTAVE), [0.0, 0.0])
            entry[0] += 1
            entry[1] += deaf_s

    def summary(self) -> LoopLag:
        """The delay that an arrival at a random instant of the run met before it was stamped.

        An arrival during a turn of length L waits for the rest of it, uniform in 0..L; one while the
        loop sleeps waits for nothing. So P(delay > x) = sum(max(0, L - x)) / duration.
        """
        duration = max(now() - self.started, 1e-9)
        waited_s, waits = (b - a for a, b in zip(self._cpu_wait_started, _cpu_waits(), strict=True))
        turns = [(total / count, count) for count, total in self._bins.values()]

        def share_later_than(x: float) -> float:
            return sum(max(0.0, length - x) * count for length, count in turns) / duration

        def exceeded_by(share: float) -> float:
            low, high = 0.0, self.longest_s * 1.2
            for _ in range(40):
                middle = (low + high) / 2
                low, high = (middle, high) if share_later_than(middle) > share else (low, middle)
            return high

        return LoopLag(
            p95_ms=exceeded_by(0.05) * 1000,
            p99_ms=exceeded_by(0.01) * 1000,
            max_ms=self.longest_s * 1000,
            busy_share=min(1.0, self.busy_s / duration),
            cpu_wait_share=waited_s / duration,
            cpu_wait_ms=waited_s / max(waits, 1) * 1000,
        )


class LoopLag(msgspec.Struct, frozen=True, kw_only=True):
    """How late the client's own time stamps can be, and how busy it was."""

    p95_ms: float
    p99_ms: float
    max_ms: float
    busy_share: float
    """Wall time not spent waiting for something to do."""
    cpu_wait_share: float = 0.0
    """Time in which this thread could have run, but other processes had the cores; 0 where unknown."""
    cpu_wait_ms: float = 0.0
    """Mean length of these waits, over all times the thread got a core."""

    def as_mapping(self) -> Mapping[str, float]:
        """Under the names used in ``Measurements.client``."""
        return {
            "loop_lag_p95_ms": self.p95_ms,
            "loop_lag_p99_ms": self.p99_ms,
            "loop_lag_max_ms": self.max_ms,
            "loop_busy_share": self.busy_share,
            "cpu_wait_share": self.cpu_wait_share,
            "cpu_wait_ms": self.cpu_wait_ms,
        }


def _cpu_waits() -> tuple[float, int]:
    """Seconds that this thread has waited for a core so far, and how often it got one (schedstat)."""
    try:
        _, waited_ns, slices = _SCHEDSTAT.read_text().split()
        return int(waited_ns) / 1e9, int(slices)
    except (OSError, ValueError):
        return 0.0, 0


class StampingSelector(selectors.DefaultSelector):  # type: ignore[misc,unused-ignore]
    """A selector that notes when it returned, waits to the microsecond, and batches under load.

    ``epoll_wait`` counts in whole milliseconds, so asyncio's timers fire up to a millisecond late;
    ``select`` on the epoll descriptor itself waits to the microsecond.

    Going to sleep and being woken costs tens of microseconds of CPU in a virtual machine, far more
    than reading a token. Above ``_BATCH_ABOVE_PER_S`` events a second the selector therefore sleeps
    for ``_BATCH_S`` and then takes all that arrived. Below, it wakes for each. Timers are never late
    for it. The delay counts as loop lag.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stamp = now()
        """When what is being handled was found to have arrived."""
        self.turns = TurnStats()
        self._turn_began = self.stamp
        self._precise = self.fileno() < _MAX_SELECT_FD
        self._waiter = select.poll()
        self._waiter.register(self.fileno(), select.POLLIN)
        self._batching = False
        self.arrivals = 0
        """Events since the last decision; readers of nested descriptors add theirs."""
        self._counting_since = self.stamp
        self.drains: list[Callable[[], None]] = []
        """Called after every wait, before asyncio's own descriptors are asked."""

    def begin(self) -> None:
        """Forget the turns so far, this one included."""
        self.turns = TurnStats()
        self._turn_began = self.turns.started

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait like the base class; afterwards ``stamp`` is the time of return."""
        entered = now()
        slept = 0.0
        if timeout is not None and timeout <= 0:
            pass
        elif self._batching:
            slept = _BATCH_S if timeout is None else min(timeout, _BATCH_S)
            time.sleep(slept)
        elif self._precise:
            select.select([self.fileno()], [], [], timeout)
        else:
            self._wait(timeout)
        self.turns.add(entered - self._turn_began, slept)
        self.stamp = self._turn_began = now()
        for drain in self.drains:
            drain()
        ready = super().select(0)
        if ready:
            self.stamp = now()
        self._count(len(ready))
        return ready

    def _wait(self, timeout: float | None) -> None:
        """Where the descriptor is too high for ``select``: to the millisecond."""
        self._waiter.poll(None if timeout is None else math.ceil(timeout * 1000))

    def _count(self, events: int) -> None:
        """Decide, twenty times a second, whether to batch."""
        self.arrivals += events
        elapsed = self.stamp - self._counting_since
        if elapsed >= 0.05:
            self._batching = self.arrivals > _BATCH_ABOVE_PER_S * elapsed
            self.arrivals, self._counting_since = 0, self.stamp


def new_runner() -> tuple[asyncio.Runner, StampingSelector]:
    """A runner of coroutines whose event loop waits on a stamping selector."""
    selector = StampingSelector()
    return asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)), selector

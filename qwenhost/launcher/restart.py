"""When to start a failed engine again."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from qwenhost.facts import Value

if TYPE_CHECKING:
    import random


class RestartPolicy(Value, frozen=True, kw_only=True):
    """Exponential backoff with jitter and a ceiling, and an end.

    The n-th restart within the window waits ``initial_s * factor**(n - 1)``, at most ``ceiling_s``,
    times a random factor within ``1 ± jitter``.
    """

    initial_s: float = 1.0
    factor: float = 2.0
    ceiling_s: float = 60.0
    jitter: float = 0.2
    max_restarts: int = 5
    """Restarts within ``window_s`` before the service is given up."""
    window_s: float = 900.0
    max_first_starts: int = 3
    """Attempts, the first included, as long as the service has never been ready."""

    def delay_s(self, nth: int, rng: random.Random) -> float:
        """Seconds before the ``nth`` restart of the window, from 1."""
        exponential = self.initial_s * self.factor ** (nth - 1)
        return min(self.ceiling_s, exponential) * rng.uniform(1 - self.jitter, 1 + self.jitter)


class RestartHistory:
    """The restarts of the recent past."""

    def __init__(self, policy: RestartPolicy, rng: random.Random) -> None:
        self.policy = policy
        self._rng = rng
        self._times: deque[float] = deque()

    def next_delay_s(self, now: float) -> float | None:
        """Seconds to wait before a restart at time ``now`` (s, monotonic); None = no more."""
        while self._times and now - self._times[0] > self.policy.window_s:
            self._times.popleft()
        if len(self._times) >= self.policy.max_restarts:
            return None
        self._times.append(now)
        return self.policy.delay_s(len(self._times), self._rng)

"""What a loop waits for at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_WAIT_S: Final = 3600.0


class Deadlines:
    """Named points in time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: dict[str, float] = {}

    def set(self, name: str, seconds: float) -> None:
        """So many seconds from now."""
        self._at[name] = self._clock() + seconds

    def clear(self, *names: str) -> None:
        """Forget these."""
        for name in names:
            self._at.pop(name, None)

    def wait_s(self) -> float:
        """Seconds to the next one."""
        return max(0.0, min(self._at.values(), default=self._clock() + IDLE_WAIT_S) - self._clock())

    def take_due(self) -> list[str]:
        """Names that are due, removed."""
        due = [name for name, at in self._at.items() if at <= self._clock()]
        self.clear(*due)
        return due

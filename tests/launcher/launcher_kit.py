"""What the launcher's tests share: short limits, and everything a supervisor said."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qwenhost.launcher.health import Limits
from qwenhost.launcher.restart import RestartPolicy

if TYPE_CHECKING:
    from qwenhost.launcher.events import ServiceEvent

STAND_IN = Path(__file__).parent / "stand_in.py"
QUICK = Limits(
    ready_s=10.0,
    pulse_every_s=0.1,
    pulse_timeout_s=1.0,
    stall_s=0.4,
    drain_s=1.0,
    term_repeat_s=0.5,
    kill_s=1.5,
)
RESTLESS = RestartPolicy(initial_s=0.05, jitter=0.0, max_restarts=3)


@dataclass
class Story:
    """Everything a supervisor said."""

    events: list[ServiceEvent] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """Without the phases of a start."""
        return [e.kind for e in self.events if e.kind not in ("phase", "progress")]

    def wait_for(self, kind: str, times: int = 1, *, within_s: float = 15.0) -> ServiceEvent:
        """The ``times``-th event of a kind."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found = [e for e in self.events if e.kind == kind]
            if len(found) >= times:
                return found[times - 1]
            time.sleep(0.02)
        raise AssertionError(f"no {kind!r} within {within_s} s: {[(e.kind, e.message) for e in self.events]}")

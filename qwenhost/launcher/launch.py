"""What a supervisor is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qwenhost.launcher.health import Limits
from qwenhost.launcher.restart import RestartPolicy

if TYPE_CHECKING:
    from qwenhost.launcher.command import EngineCommand
    from qwenhost.launcher.starts import Starts


@dataclass(frozen=True)
class FallbackCommand:
    """One of the plan's fallbacks, as a command."""

    trigger: str
    change: str
    command: EngineCommand


@dataclass(frozen=True)
class Launch:
    """What a supervisor is given to run."""

    command: EngineCommand
    api_key: str | None = field(default=None, repr=False)
    fallbacks: tuple[FallbackCommand, ...] = ()
    limits: Limits = field(default_factory=Limits)
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    metrics: MetricsAddress | None = None
    starts: Starts | None = None
    """Earlier starts on this machine; None = nothing is expected of this one, and it is not remembered."""


@dataclass(frozen=True)
class MetricsAddress:
    """Where the supervisor answers ``/metrics``."""

    host: str
    port: int
    key_file: str | None = None
    """Of those who may ask, beside the service's own key."""

    @property
    def url(self) -> str:
        """For people."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

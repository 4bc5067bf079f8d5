"""What a supervisor tells those who watch it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwenhost.facts import Value


class ServiceEvent(Value, frozen=True, kw_only=True):
    """A change in the life of a service.

    Kinds: start, expected, phase, progress, ready, deviation, unhealthy, failure, fallback, restart,
    stopping, stopped, failed.
    """

    kind: str
    message: str
    """For people."""
    at: str
    """ISO 8601, UTC."""
    elapsed_s: float
    """Since the engine's start."""
    service: str
    data: Mapping[str, Any] = {}

"""What a supervisor writes down and tells: the state file, and an event for each change."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.launcher.events import ServiceEvent
from qwenhost.launcher.state import ServiceState

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.launcher.failures import Failure
    from qwenhost.launcher.launch import Launch
    from qwenhost.launcher.state import ServiceHome


class Record:
    """The state of one service; used by the supervisor's loop alone, read from anywhere.

    Args:
        launch: what is run.
        home: where ``state.json`` goes.
        on_event: told of every change.
        clock: seconds.
    """

    def __init__(
        self,
        launch: Launch,
        home: ServiceHome,
        *,
        on_event: Callable[[ServiceEvent], None],
        clock: Callable[[], float],
    ) -> None:
        self._home = home
        self._on_event = on_event
        self._clock = clock
        self._started = clock()
        command = launch.command
        self.state = ServiceState(
            name=home.name,
            status="starting",
            engine=command.engine,
            target=command.target,
            base_url=command.base_url,
            model=command.model,
            label=command.label,
            api_key_required=launch.api_key is not None,
            ssl_certfile=command.ssl_certfile,
            supervisor_pid=os.getpid(),
            started_at=now(),
            updated_at=now(),
            argv=command.argv,
        )

    @property
    def elapsed_s(self) -> float:
        """Since the engine's start."""
        return self._clock() - self._started

    def engine_starts(self) -> None:
        """From here on time is counted."""
        self._started = self._clock()

    def update(self, *, quiet: bool = False, **changes: Any) -> None:
        """Change the state and, unless it is a mere count of shards, write it down."""
        self.state = msgspec.structs.replace(self.state, updated_at=now(), **changes)
        if not quiet:
            self._home.write_state(self.state)

    def count_failure(self, failure: Failure) -> None:
        """One more of its kind; written with the next change."""
        counts = dict(self.state.failure_counts)
        counts[failure.kind] = counts.get(failure.kind, 0) + 1
        self.update(quiet=True, failure_counts=counts)

    def emit(self, kind: str, message: str, **data: Any) -> None:
        """Tell of a change."""
        self._on_event(
            ServiceEvent(
                kind=kind,
                message=message,
                at=now(),
                elapsed_s=self.elapsed_s,
                service=self._home.name,
                data=data,
            )
        )


def now() -> str:
    """ISO 8601, UTC, to the millisecond."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")

"""What a supervisor writes down and tells: the state file, and an event for each change."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.launcher.events import ServiceEvent
from qwenhost.launcher.phases import Phase
from qwenhost.launcher.state import Expected, ServiceState
from qwenhost.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.launcher.failures import Failure
    from qwenhost.launcher.launch import Launch
    from qwenhost.launcher.phases import StartProgress
    from qwenhost.launcher.starts import Expectation
    from qwenhost.launcher.state import Deviation, ServiceHome


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
        self._expected: Expectation | None = None
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

    def engine_starts(self, expected: Expectation | None = None) -> None:
        """From here on time is counted, and held against what was expected."""
        self._started = self._clock()
        self._expected = expected
        said = expected and Expected(
            ready_s=round(expected.ready_s, 1),
            low_s=round(expected.low_s, 1),
            high_s=round(expected.high_s, 1),
            basis=expected.basis,
            source=expected.source,
        )
        self.update(quiet=True, expected=said)

    def tell_expected(self) -> None:
        """An event where something is expected."""
        if self._expected is not None:
            begins_s = dict(self._expected.begins_s)
            self.emit("expected", self._expected.sentence, begins_s=begins_s, basis=self._expected.basis)

    def advance(self, progress: StartProgress, *, moved: bool) -> None:
        """The start came further: into another phase, or by a count within one."""
        self.update(
            phase=progress.phase.value, progress=progress.label, figures=progress.figures, quiet=not moved
        )
        data: dict[str, Any] = {"phase": progress.phase.value}
        message = progress.label
        if self._expected is not None and progress.phase is not Phase.READY:
            until_s = self._expected.end_of(progress.phase)
            data |= {
                "expected_end_s": round(until_s, 1),
                "expected_ready_s": round(self._expected.ready_s, 1),
            }
            message += f" (until about {format_seconds(until_s)}, {self._expected.basis})"
        self.emit("phase" if moved else "progress", message, **data)

    def became_ready(self, model: str, found: tuple[Deviation, ...]) -> float:
        """Written and told; the seconds it took."""
        ready_s = round(self.elapsed_s, 3)
        self.update(
            status="ready",
            phase=Phase.READY.value,
            progress=Phase.READY.label,
            ready_at=now(),
            ready_s=ready_s,
            model=model,
            deviations=found,
        )
        against = ""
        if self._expected is not None:
            against = f", {format_seconds(self._expected.ready_s)} expected ({self._expected.basis})"
        self.emit("ready", f"ready after {ready_s:.0f} s{against}", base_url=self.state.base_url, model=model)
        return ready_s

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

"""One start of the engine: its process, those who watch it, and what it has said so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwenhost.launcher.failures import FailureScanner
from qwenhost.launcher.health import Endpoint, HealthMonitor, Liveness
from qwenhost.launcher.phases import Phase, StartProgress, split_line
from qwenhost.launcher.process import EngineProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qwenhost.launcher.command import EngineCommand
    from qwenhost.launcher.failures import Failure
    from qwenhost.launcher.health import Limits, Pulse
    from qwenhost.launcher.process import RotatingLog


class Attempt:
    """An engine from its start to its end; used by the supervisor's loop alone.

    Args:
        command: what to run.
        api_key: of the supervisor, handed to the engine in its environment.
        environ: the environment to pass on.
        limits: of its health.
        log: where its output goes.
        clock: seconds.
        put: takes the events of process and monitor, from their threads.
    """

    def __init__(
        self,
        command: EngineCommand,
        *,
        api_key: str | None,
        environ: Mapping[str, str],
        limits: Limits,
        log: RotatingLog,
        clock: Callable[[], float],
        put: Callable[[Any], None],
    ) -> None:
        self.command = command
        self.progress = StartProgress()
        self.verdict: Failure | None = None
        """Why it is being ended, or could not be started; None while nothing is wrong."""
        self.exit_code: int | None = None
        self.begins_s: dict[str, float] = {}
        """When each phase began, in seconds from the start."""
        self._clock, self._started = clock, clock()
        self._scanner = FailureScanner()
        self._liveness = Liveness(limits, clock)
        self.process = EngineProcess(command.argv, command.environment(environ, api_key=api_key), log, put)
        endpoint = Endpoint(command.base_url, api_key, ssl_certfile=command.ssl_certfile)
        self._monitor = HealthMonitor(endpoint, limits, put)

    def read(self, text: str, *, starting: bool) -> StartProgress | None:
        """Take a line of the log into account; the progress if it is news."""
        line = split_line(text)
        self._scanner.feed(line, self.progress.phase)
        if not starting:
            return None
        progress = self.progress.after(line)
        if progress is self.progress:
            return None
        if progress.phase is not self.progress.phase:
            self._begins(progress.phase)
        self.progress = progress
        return progress

    def became_ready(self) -> None:
        """What the start logged does not explain a later death."""
        self._begins(Phase.READY)
        self._scanner = FailureScanner()

    def judge(self, pulse: Pulse) -> str | None:
        """As :meth:`Liveness.judge`."""
        return self._liveness.judge(pulse)

    def explanation(self) -> Failure:
        """What was decided about the engine, unless its log knows why the first completion failed."""
        if self.verdict is None or (self.verdict.kind == "not_serving" and self._scanner.found):
            return self._scanner.failure(self.exit_code)
        return self.verdict

    def close(self) -> None:
        """Watch it no more."""
        self._monitor.stop()

    def _begins(self, phase: Phase) -> None:
        self.begins_s[phase.value] = round(self._clock() - self._started, 3)

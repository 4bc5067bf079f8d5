"""Keeps one engine running: starting -> ready -> draining -> stopped, with backoff and failed.

One loop owns all mutable state. Signal handlers, the log reader, the process watcher and the health
monitor only put events into a queue; every wait of the loop has a deadline.
"""

from __future__ import annotations

import os
import queue
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwenhost.launcher import failures
from qwenhost.launcher.attempt import Attempt
from qwenhost.launcher.deadlines import Deadlines
from qwenhost.launcher.decision import decide
from qwenhost.launcher.deviation import describe, deviations
from qwenhost.launcher.health import BecameReady, NotServing, Pulse
from qwenhost.launcher.phases import Phase
from qwenhost.launcher.process import Exited, Gone, Line, RotatingLog, Spawned, SpawnFailed
from qwenhost.launcher.record import Record, now
from qwenhost.launcher.restart import RestartHistory
from qwenhost.launcher.state import ACTIVE, Change

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qwenhost.launcher.events import ServiceEvent
    from qwenhost.launcher.failures import Failure
    from qwenhost.launcher.launch import FallbackCommand, Launch
    from qwenhost.launcher.state import ServiceHome, ServiceState, Status


@dataclass(frozen=True)
class _StopRequest:
    force: bool


class Supervisor:
    """Runs a :class:`Launch` until it is stopped or given up.

    Args:
        launch: what to run.
        home: the service's folder, locked by the caller.
        on_event: told of every change, on the loop's thread.
        environ: the environment to pass on.
        beat: called by the loop itself, so that a watchdog sees a loop that hangs.
        beat_every_s: None = never.
    """

    def __init__(
        self,
        launch: Launch,
        home: ServiceHome,
        *,
        on_event: Callable[[ServiceEvent], None] = lambda _: None,
        environ: Mapping[str, str] | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        beat: Callable[[], None] = lambda: None,
        beat_every_s: float | None = None,
    ) -> None:
        self._launch = launch
        self._environ = os.environ if environ is None else environ
        self._clock = clock
        self._queue: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._deadlines = Deadlines(clock)
        self._history = RestartHistory(launch.policy, rng or random.Random())  # noqa: S311 - jitter
        self._command = launch.command
        self._unused = list(launch.fallbacks)
        self._generation = 0
        self._attempt: Attempt | None = None
        self._last: Attempt | None = None
        self._stopping = False
        self._was_ready = False
        self._beat, self._beat_every_s = beat, beat_every_s
        self._log = RotatingLog(home.log_file)
        self._record = Record(launch, home, on_event=on_event, clock=clock)

    # ------------------------------------------------------------------ from any thread

    def request_stop(self, *, force: bool = False) -> None:
        """Drain and stop; a second request, or ``force``, kills. Safe in signal handlers and threads."""
        self._queue.put((-1, _StopRequest(force)))

    @property
    def state(self) -> ServiceState:
        """The last state; a frozen value."""
        return self._record.state

    @property
    def was_ready(self) -> bool:
        """Whether the service was ever ready."""
        return self._was_ready

    # ------------------------------------------------------------------ the loop

    def run(self) -> ServiceState:
        """Until the service is stopped or failed; always leaves no process behind."""
        try:
            self._on_deadline("beat")
            self._start_engine()
            while self._record.state.status in ACTIVE:
                self._step()
        finally:
            self._abandon()
        return self._record.state

    def _step(self) -> None:
        try:
            generation, event = self._queue.get(timeout=self._deadlines.wait_s())
        except queue.Empty:
            pass
        else:
            # Events of an engine that has been replaced are of no interest.
            if generation in (-1, self._generation):
                self._handle(event)
        for name in self._deadlines.take_due():
            self._on_deadline(name)

    def _handle(self, event: Any) -> None:
        match event:
            case _StopRequest():
                self._on_stop(force=event.force)
            case _ if self._attempt is not None:
                self._on_engine(event, self._attempt)

    def _on_engine(self, event: Any, attempt: Attempt) -> None:
        match event:
            case Line():
                self._on_line(event.text, attempt)
            case Spawned():
                self._record.update(engine_pid=event.pid)
            case SpawnFailed():
                attempt.verdict = failures.not_executable(event.message)
            case Exited():
                attempt.exit_code = event.code
            case Gone():
                self._on_gone(attempt)
            case BecameReady():
                self._on_ready(event.model, attempt)
            case NotServing():
                self._end_engine(failures.not_serving(event.detail))
            case Pulse():
                self._on_pulse(event, attempt)

    def _on_deadline(self, name: str) -> None:
        match name:
            case "ready" if self._attempt is not None:
                self._end_engine(failures.not_ready(self._launch.limits.ready_s, self._attempt.progress))
            case "terminate":
                self._terminate()
            case "kill":
                self._kill()
            case "restart":
                self._start_engine()
            case "beat" if self._beat_every_s:
                self._beat()
                self._deadlines.set("beat", self._beat_every_s)

    # ------------------------------------------------------------------ starting

    def _start_engine(self) -> None:
        self._generation += 1
        generation = self._generation
        command, starts = self._command, self._launch.starts
        self._record.engine_starts(starts.expected(command) if starts else None)
        self._record.update(
            status="starting",
            phase=Phase.SPAWN.value,
            progress=Phase.SPAWN.label,
            engine_pid=None,
            ready_at=None,
            argv=command.argv,
            label=command.label,
        )
        self._record.emit("start", f"starting {command.label}")
        self._record.tell_expected()
        self._attempt = self._last = Attempt(
            command,
            api_key=self._launch.api_key,
            environ=self._environ,
            limits=self._launch.limits,
            log=self._log,
            clock=self._clock,
            put=lambda event: self._queue.put((generation, event)),
        )
        self._deadlines.set("ready", self._launch.limits.ready_s)

    def _on_line(self, text: str, attempt: Attempt) -> None:
        before = attempt.progress.phase
        progress = attempt.read(text, starting=self._record.state.status == "starting")
        if progress is not None:
            self._record.advance(progress, moved=progress.phase is not before)

    def _on_ready(self, model: str, attempt: Attempt) -> None:
        if self._record.state.status != "starting" or self._stopping or attempt.verdict:
            return
        self._deadlines.clear("ready")
        self._was_ready = True
        attempt.became_ready()
        found = deviations(attempt.progress.figures, self._command.candidate)
        ready_s = self._record.became_ready(model, found)
        for deviation in found:
            self._record.emit(
                "deviation", describe(deviation), name=deviation.name, relative=deviation.relative
            )
        if self._launch.starts is not None:
            begins_s = {**attempt.begins_s, Phase.READY.value: ready_s}
            self._launch.starts.remember(self._command, begins_s, at=now())

    def _on_pulse(self, pulse: Pulse, attempt: Attempt) -> None:
        if self._record.state.status != "ready" or attempt.verdict:
            return
        match attempt.judge(pulse):
            case "unhealthy":
                self._end_engine(failures.unhealthy(pulse.detail))
            case "hung":
                self._end_engine(failures.hung(self._launch.limits.stall_s))

    # ------------------------------------------------------------------ ending

    def _end_engine(self, why: Failure) -> None:
        """End an engine that is of no use any more; what follows is decided once it is gone."""
        if self._attempt is None or self._attempt.verdict or self._stopping:
            return
        self._attempt.verdict = why
        self._record.emit("unhealthy", why.message, failure=why.kind)
        # A hung or half-dead engine does not listen to SIGTERM for long.
        self._deadlines.set("kill", self._launch.limits.term_repeat_s)
        self._attempt.process.terminate()

    def _on_stop(self, *, force: bool) -> None:
        forced = force or self._stopping
        if self._attempt is None:  # between two starts
            self._stopping = True
            self._finish("stopped", self._record.state.failure)
            return
        if forced:
            self._stopping = True
            self._record.emit("stopping", "killing the engine")
            self._kill()
            return
        self._stopping = True
        was_ready = self._record.state.status == "ready"
        self._record.update(status="draining")
        self._record.emit("stopping", "draining: waiting for requests in flight" if was_ready else "stopping")
        limits = self._launch.limits
        self._deadlines.clear("ready", "restart")
        drain_s = limits.drain_s if was_ready else 0.0
        self._deadlines.set("terminate", drain_s + limits.term_repeat_s)
        self._deadlines.set("kill", drain_s + limits.kill_s)
        self._attempt.process.terminate()

    def _terminate(self) -> None:
        if self._attempt is not None:
            self._attempt.process.terminate()
            self._deadlines.set("terminate", self._launch.limits.term_repeat_s)

    def _kill(self) -> None:
        if self._attempt is not None:
            self._attempt.process.kill()
            self._deadlines.set("kill", 1.0)

    def _on_gone(self, attempt: Attempt) -> None:
        """The engine has ended, asked or not."""
        self._close_engine()
        if self._stopping:
            self._finish("stopped", self._record.state.failure)
            return
        failure = attempt.explanation()
        self._record.emit("failure", failure.message, failure=failure.kind, remedy=failure.remedy)
        self._record.count_failure(failure)
        state = self._record.state
        decision = decide(
            failure,
            was_ready=self._was_ready,
            restarts=state.restarts,
            used=len(state.fallbacks),
            unused=self._unused,
            history=self._history,
            now=self._clock(),
        )
        if decision.fallback is not None:
            self._apply(decision.fallback, failure)
        elif decision.restart_after_s is None:
            self._finish("failed", failure)
        else:
            self._back_off(decision.restart_after_s, failure)

    def _back_off(self, delay_s: float, failure: Failure) -> None:
        restarts = self._record.state.restarts + 1
        self._record.update(status="backoff", engine_pid=None, failure=failure, restarts=restarts)
        self._record.emit("restart", f"starting again in {delay_s:.1f} s", delay_s=delay_s)
        self._deadlines.set("restart", delay_s)

    def _apply(self, fallback: FallbackCommand, failure: Failure) -> None:
        self._unused.remove(fallback)
        self._command = fallback.command
        change = Change(
            trigger=fallback.trigger, change=fallback.change, cause=failure.cause or failure.kind, at=now()
        )
        self._record.update(fallbacks=(*self._record.state.fallbacks, change), failure=failure)
        self._record.emit("fallback", f"falling back: {fallback.change}", trigger=fallback.trigger)
        self._start_engine()

    def _finish(self, status: Status, failure: Failure | None) -> None:
        self._record.update(status=status, failure=failure, engine_pid=None, phase=status, progress=status)
        self._record.emit(status, status)

    def _close_engine(self) -> None:
        if self._attempt is not None:
            self._attempt.close()
        self._attempt = None
        self._deadlines.clear("ready", "terminate", "kill", "restart")

    def _abandon(self) -> None:
        """On the way out, whatever the reason: no process stays."""
        if self._attempt is not None:
            attempt = self._attempt
            attempt.process.kill()
            deadline = self._clock() + self._launch.limits.kill_s
            while attempt is self._attempt and self._clock() < deadline:
                try:
                    generation, event = self._queue.get(timeout=1.0)
                except queue.Empty:
                    continue
                if generation == self._generation and isinstance(event, Gone):
                    self._close_engine()
        if self._record.state.status in ACTIVE:
            self._finish("failed", self._last.explanation() if self._last else None)
        self._log.close()

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
from qwenhost.launcher.deadlines import Deadlines
from qwenhost.launcher.decision import decide
from qwenhost.launcher.deviation import describe, deviations
from qwenhost.launcher.failures import Failure, FailureScanner
from qwenhost.launcher.health import BecameReady, Endpoint, HealthMonitor, Liveness, NotServing, Pulse
from qwenhost.launcher.phases import Phase, StartProgress, split_line
from qwenhost.launcher.process import EngineProcess, Exited, Gone, Line, RotatingLog, Spawned, SpawnFailed
from qwenhost.launcher.record import Record, now
from qwenhost.launcher.restart import RestartHistory
from qwenhost.launcher.state import ACTIVE, Change

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qwenhost.launcher.events import ServiceEvent
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
        self._process: EngineProcess | None = None
        self._monitor: HealthMonitor | None = None
        self._stopping = False
        self._was_ready = False
        self._beat, self._beat_every_s = beat, beat_every_s
        self._verdict: Failure | None = None
        self._exit_code: int | None = None
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
            case Line():
                self._on_line(event.text)
            case Spawned():
                self._record.update(engine_pid=event.pid)
            case SpawnFailed():
                self._verdict = Failure(
                    kind="not_executable",
                    cause=event.message,
                    remedy="Name vLLM's program with --vllm-bin.",
                    bad_input=True,
                )
            case Exited():
                self._exit_code = event.code
            case Gone():
                self._on_gone()
            case BecameReady():
                self._on_ready(event.model)
            case NotServing():
                self._end_engine(failures.not_serving(event.detail))
            case Pulse():
                self._on_pulse(event)
            case _StopRequest():
                self._on_stop(force=event.force)

    def _on_deadline(self, name: str) -> None:
        match name:
            case "ready":
                self._end_engine(failures.not_ready(self._launch.limits.ready_s, self._progress))
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
        self._progress = StartProgress()
        self._scanner = FailureScanner()
        self._verdict, self._exit_code = None, None
        self._record.engine_starts()
        self._record.update(
            status="starting",
            phase=Phase.SPAWN.value,
            progress=Phase.SPAWN.label,
            engine_pid=None,
            ready_at=None,
            argv=self._command.argv,
            label=self._command.label,
        )
        self._record.emit("start", f"starting {self._command.label}")
        limits = self._launch.limits
        self._process = EngineProcess(
            self._command.argv,
            self._command.environment(self._environ, api_key=self._launch.api_key),
            self._log,
            lambda event: self._queue.put((generation, event)),
        )
        self._monitor = HealthMonitor(
            Endpoint(self._command.base_url, self._launch.api_key, ssl_certfile=self._command.ssl_certfile),
            limits,
            lambda event: self._queue.put((generation, event)),
        )
        self._liveness = Liveness(limits, self._clock)
        self._deadlines.set("ready", limits.ready_s)

    def _on_line(self, text: str) -> None:
        line = split_line(text)
        self._scanner.feed(line, self._progress.phase)
        if self._record.state.status != "starting":
            return
        progress = self._progress.after(line)
        if progress is not self._progress:
            moved = progress.phase is not self._progress.phase
            self._progress = progress
            self._record.update(
                phase=progress.phase.value,
                progress=progress.label,
                figures=progress.figures,
                quiet=not moved,
            )
            self._record.emit("phase" if moved else "progress", progress.label, phase=progress.phase.value)

    def _on_ready(self, model: str) -> None:
        if self._record.state.status != "starting" or self._stopping or self._verdict:
            return
        self._deadlines.clear("ready")
        self._was_ready = True
        self._scanner = FailureScanner()  # what the start logged does not explain a later death
        ready_s = self._record.elapsed_s
        found = deviations(self._progress.figures, self._command.candidate)
        self._record.update(
            status="ready",
            phase=Phase.READY.value,
            progress=Phase.READY.label,
            ready_at=now(),
            ready_s=round(ready_s, 3),
            model=model,
            deviations=found,
        )
        self._record.emit(
            "ready", f"ready after {ready_s:.0f} s", base_url=self._record.state.base_url, model=model
        )
        for deviation in found:
            self._record.emit(
                "deviation", describe(deviation), name=deviation.name, relative=deviation.relative
            )

    def _on_pulse(self, pulse: Pulse) -> None:
        if self._record.state.status != "ready" or self._verdict:
            return
        match self._liveness.judge(pulse):
            case "unhealthy":
                self._end_engine(failures.unhealthy(pulse.detail))
            case "hung":
                self._end_engine(failures.hung(self._launch.limits.stall_s))

    # ------------------------------------------------------------------ ending

    def _end_engine(self, why: Failure) -> None:
        """End an engine that is of no use any more; what follows is decided once it is gone."""
        if self._verdict or self._stopping or self._process is None:
            return
        self._verdict = why
        self._record.emit("unhealthy", why.message, failure=why.kind)
        # A hung or half-dead engine does not listen to SIGTERM for long.
        self._deadlines.set("kill", self._launch.limits.term_repeat_s)
        self._process.terminate()

    def _on_stop(self, *, force: bool) -> None:
        forced = force or self._stopping
        if self._process is None:  # between two starts
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
        self._process.terminate()

    def _terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._deadlines.set("terminate", self._launch.limits.term_repeat_s)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._deadlines.set("kill", 1.0)

    def _on_gone(self) -> None:
        """The engine has ended, asked or not."""
        self._close_engine()
        if self._stopping:
            self._finish("stopped", self._record.state.failure)
            return
        failure = self._explanation()
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

    def _explanation(self) -> Failure:
        """What was decided about the engine, unless its log knows why the first completion failed."""
        if self._verdict is None or (self._verdict.kind == "not_serving" and self._scanner.found):
            return self._scanner.failure(self._exit_code)
        return self._verdict

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
        if self._monitor is not None:
            self._monitor.stop()
        self._process = self._monitor = None
        self._deadlines.clear("ready", "terminate", "kill", "restart")

    def _abandon(self) -> None:
        """On the way out, whatever the reason: no process stays."""
        if self._process is not None:
            process = self._process
            process.kill()
            deadline = self._clock() + self._launch.limits.kill_s
            while process is self._process and self._clock() < deadline:
                try:
                    generation, event = self._queue.get(timeout=1.0)
                except queue.Empty:
                    continue
                if generation == self._generation and isinstance(event, Gone):
                    self._close_engine()
        if self._record.state.status in ACTIVE:
            self._finish("failed", self._explanation())
        self._log.close()

"""Keeps one engine running: starting -> ready -> draining -> stopped, with backoff and failed.

One loop owns all mutable state. Signal handlers, the log reader, the process watcher and the health
monitor only put events into a queue; every wait of the loop has a deadline.
"""

from __future__ import annotations

import datetime as dt
import os
import queue
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.launcher import failures
from qwenhost.launcher.deadlines import Deadlines
from qwenhost.launcher.deviation import describe, deviations
from qwenhost.launcher.events import ServiceEvent
from qwenhost.launcher.failures import Failure, FailureScanner
from qwenhost.launcher.health import BecameReady, Endpoint, HealthMonitor, Liveness, NotServing, Pulse
from qwenhost.launcher.phases import Phase, StartProgress, split_line
from qwenhost.launcher.process import EngineProcess, Exited, Gone, Line, RotatingLog, Spawned, SpawnFailed
from qwenhost.launcher.restart import RestartHistory
from qwenhost.launcher.state import ACTIVE, Change, ServiceHome, ServiceState, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qwenhost.launcher.launch import FallbackCommand, Launch

MAX_FALLBACKS: Final = 3


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
    ) -> None:
        self._launch = launch
        self._home = home
        self._on_event = on_event
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
        self._verdict: Failure | None = None
        self._exit_code: int | None = None
        self._log = RotatingLog(home.log_file)
        self._state = self._first_state()

    # ------------------------------------------------------------------ from any thread

    def request_stop(self, *, force: bool = False) -> None:
        """Drain and stop; a second request, or ``force``, kills. Safe in signal handlers and threads."""
        self._queue.put((-1, _StopRequest(force)))

    @property
    def state(self) -> ServiceState:
        """The last state; a frozen value."""
        return self._state

    @property
    def was_ready(self) -> bool:
        """Whether the service was ever ready."""
        return self._was_ready

    # ------------------------------------------------------------------ the loop

    def run(self) -> ServiceState:
        """Until the service is stopped or failed; always leaves no process behind."""
        try:
            self._start_engine()
            while self._state.status in ACTIVE:
                self._step()
        finally:
            self._abandon()
        return self._state

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
                self._update(engine_pid=event.pid)
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

    # ------------------------------------------------------------------ starting

    def _start_engine(self) -> None:
        self._generation += 1
        generation = self._generation
        self._progress = StartProgress()
        self._scanner = FailureScanner()
        self._verdict, self._exit_code = None, None
        self._started = self._clock()
        self._update(
            status="starting",
            phase=Phase.SPAWN.value,
            progress=Phase.SPAWN.label,
            engine_pid=None,
            ready_at=None,
            argv=self._command.argv,
            label=self._command.label,
        )
        self._emit("start", f"starting {self._command.label}")
        limits = self._launch.limits
        self._process = EngineProcess(
            self._command.argv,
            self._command.environment(self._environ, api_key=self._launch.api_key),
            self._log,
            lambda event: self._queue.put((generation, event)),
        )
        self._monitor = HealthMonitor(
            Endpoint(self._command.base_url, self._launch.api_key),
            limits,
            lambda event: self._queue.put((generation, event)),
        )
        self._liveness = Liveness(limits, self._clock)
        self._deadlines.set("ready", limits.ready_s)

    def _on_line(self, text: str) -> None:
        line = split_line(text)
        self._scanner.feed(line, self._progress.phase)
        if self._state.status != "starting":
            return
        progress = self._progress.after(line)
        if progress is not self._progress:
            moved = progress.phase is not self._progress.phase
            self._progress = progress
            self._update(
                phase=progress.phase.value,
                progress=progress.label,
                figures=progress.figures,
                quiet=not moved,
            )
            self._emit("phase" if moved else "progress", progress.label, phase=progress.phase.value)

    def _on_ready(self, model: str) -> None:
        if self._state.status != "starting" or self._stopping or self._verdict:
            return
        self._deadlines.clear("ready")
        self._was_ready = True
        self._scanner = FailureScanner()  # what the start logged does not explain a later death
        ready_s = self._clock() - self._started
        found = deviations(self._progress.figures, self._command.candidate)
        self._update(
            status="ready",
            phase=Phase.READY.value,
            progress=Phase.READY.label,
            ready_at=_now(),
            ready_s=round(ready_s, 3),
            model=model,
            deviations=found,
        )
        self._emit("ready", f"ready after {ready_s:.0f} s", base_url=self._state.base_url, model=model)
        for deviation in found:
            self._emit("deviation", describe(deviation), name=deviation.name, relative=deviation.relative)

    def _on_pulse(self, pulse: Pulse) -> None:
        if self._state.status != "ready" or self._verdict:
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
        self._emit("unhealthy", why.message, failure=why.kind)
        # A hung or half-dead engine does not listen to SIGTERM for long.
        self._deadlines.set("kill", self._launch.limits.term_repeat_s)
        self._process.terminate()

    def _on_stop(self, *, force: bool) -> None:
        forced = force or self._stopping
        if self._process is None:  # between two starts
            self._stopping = True
            self._finish("stopped", self._state.failure)
            return
        if forced:
            self._stopping = True
            self._emit("stopping", "killing the engine")
            self._kill()
            return
        self._stopping = True
        was_ready = self._state.status == "ready"
        self._update(status="draining")
        self._emit("stopping", "draining: waiting for requests in flight" if was_ready else "stopping")
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
            self._finish("stopped", self._state.failure)
            return
        failure = self._explanation()
        self._emit("failure", failure.message, failure=failure.kind, remedy=failure.remedy)
        if (fallback := self._fallback_for(failure)) is not None:
            self._apply(fallback, failure)
            return
        delay_s = self._restart_delay_s(failure)
        if delay_s is None:
            self._finish("failed", failure)
            return
        self._update(status="backoff", engine_pid=None, failure=failure, restarts=self._state.restarts + 1)
        self._emit("restart", f"starting again in {delay_s:.1f} s", delay_s=delay_s)
        self._deadlines.set("restart", delay_s)

    def _explanation(self) -> Failure:
        """What was decided about the engine, unless its log knows why the first completion failed."""
        if self._verdict is None or (self._verdict.kind == "not_serving" and self._scanner.found):
            return self._scanner.failure(self._exit_code)
        return self._verdict

    def _restart_delay_s(self, failure: Failure) -> float | None:
        """None where another start would fail alike, or where there were enough."""
        if not self._was_ready:
            attempts = self._state.restarts + 1
            if not failure.transient or attempts >= self._launch.policy.max_first_starts:
                return None
        return self._history.next_delay_s(self._clock())

    def _fallback_for(self, failure: Failure) -> FallbackCommand | None:
        """The plan's first unused answer to this failure; a start that once worked is not changed."""
        used = len(self._state.fallbacks)
        if failure.trigger is None or self._was_ready or used >= MAX_FALLBACKS:
            return None
        return next((f for f in self._unused if f.trigger == failure.trigger), None)

    def _apply(self, fallback: FallbackCommand, failure: Failure) -> None:
        self._unused.remove(fallback)
        self._command = fallback.command
        change = Change(
            trigger=fallback.trigger, change=fallback.change, cause=failure.cause or failure.kind, at=_now()
        )
        self._update(fallbacks=(*self._state.fallbacks, change), failure=failure)
        self._emit("fallback", f"falling back: {fallback.change}", trigger=fallback.trigger)
        self._start_engine()

    def _finish(self, status: Status, failure: Failure | None) -> None:
        self._update(status=status, failure=failure, engine_pid=None, phase=status, progress=status)
        self._emit(status, status)

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
        if self._state.status in ACTIVE:
            self._finish("failed", self._explanation())
        self._log.close()
        self._home.key_file.unlink(missing_ok=True)

    # ------------------------------------------------------------------ telling

    def _first_state(self) -> ServiceState:
        command = self._command
        return ServiceState(
            name=self._home.name,
            status="starting",
            engine=command.engine,
            target=command.target,
            base_url=command.base_url,
            model=command.model,
            label=command.label,
            api_key_required=self._launch.api_key is not None,
            supervisor_pid=os.getpid(),
            started_at=_now(),
            updated_at=_now(),
            argv=command.argv,
        )

    def _update(self, *, quiet: bool = False, **changes: Any) -> None:
        """Change the state and, unless it is a mere count of shards, write it down."""
        self._state = msgspec.structs.replace(self._state, updated_at=_now(), **changes)
        if not quiet:
            self._home.write_state(self._state)

    def _emit(self, kind: str, message: str, **data: Any) -> None:
        elapsed_s = self._clock() - self._started if hasattr(self, "_started") else 0.0
        self._on_event(
            ServiceEvent(
                kind=kind, message=message, at=_now(), elapsed_s=elapsed_s, service=self._home.name, data=data
            )
        )


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")

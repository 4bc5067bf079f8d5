"""A service as its users see it: run here, run in the background, run around a block of code, stop."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qwenhost.errors import QwenhostError, UnavailableError
from qwenhost.launcher.access import is_loopback
from qwenhost.launcher.engine_side.qwenhost_key_guard import KeyRing
from qwenhost.launcher.health import Endpoint
from qwenhost.launcher.metrics import MetricsServer, merged_text
from qwenhost.launcher.notify import Notifier
from qwenhost.launcher.state import ACTIVE, ServiceHome, ServiceState, current_state, state_root
from qwenhost.launcher.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from qwenhost.launcher.events import ServiceEvent
    from qwenhost.launcher.launch import Launch

INTERRUPTED: Final = 130
_POLL_S: Final = 0.1
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Outcome:
    """How a service ended."""

    state: ServiceState
    was_ready: bool
    interrupted: bool
    """Whether a signal asked for the end."""
    forced: bool
    """Whether a second signal cut the drain short."""

    @property
    def exit_code(self) -> int:
        """0 after a clean drain of a ready service, 130 when interrupted before or by force."""
        return 0 if self.was_ready and not self.forced else INTERRUPTED


@dataclass(frozen=True)
class RunningService:
    """A ready service."""

    base_url: str
    model: str
    api_key: str | None
    home: ServiceHome
    state: ServiceState


def serve(launch: Launch, home: ServiceHome, *, on_event: Callable[[ServiceEvent], None]) -> Outcome:
    """Run in this process until a signal or a failure; the caller holds the lock.

    The first SIGINT, SIGTERM or SIGHUP drains, a second one kills. systemd is told what goes on, where it
    asked to be.

    Raises:
        QwenhostError: the service failed.
    """
    notifier = Notifier(os.environ)

    def tell(event: ServiceEvent) -> None:
        notifier.tell(event)
        on_event(event)

    supervisor = Supervisor(
        launch, home, on_event=tell, beat=notifier.beat, beat_every_s=notifier.beat_every_s
    )
    signals: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        signals.append(number)
        supervisor.request_stop(force=len(signals) > 1)

    with _handling(on_signal), _metrics(launch, supervisor):
        state = supervisor.run()
    if state.status == "failed":
        raise failed(state, home)
    return Outcome(state, supervisor.was_ready, bool(signals), len(signals) > 1)


@contextlib.contextmanager
def _metrics(launch: Launch, supervisor: Supervisor) -> Iterator[None]:
    """``/metrics`` for as long as the block lasts, where it was asked for."""
    address = launch.metrics
    if address is None:
        yield
        return
    command = launch.command
    endpoint = Endpoint(command.base_url, launch.api_key, ssl_certfile=command.ssl_certfile)
    keys = None if is_loopback(address.host) else KeyRing(launch.api_key or "", address.key_file)
    server = MetricsServer(
        address.host, address.port, lambda: merged_text(supervisor.state, endpoint), keys=keys
    )
    try:
        yield
    finally:
        server.close()


def serve_detached(launch: Launch, home: ServiceHome, *, lock: int) -> int:
    """Start a supervisor in the background and return its process id.

    Must be called before any thread is started; the lock passes to the supervisor.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(lock)
        return pid
    code = 1
    try:
        os.setsid()
        _redirect(home.supervisor_log)
        code = serve(launch, home, on_event=_write_event).exit_code
    except QwenhostError as error:
        print(f"Error: {error.message}", file=sys.stderr)  # noqa: T201 - to supervisor.log
        code = error.exit_code
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait_until_ready(
    home: ServiceHome, pid: int, *, on_progress: Callable[[ServiceState], None] = lambda _: None
) -> ServiceState:
    """Follow a detached start by its state file.

    Raises:
        QwenhostError: it failed.
    """
    seen = ""
    while True:
        state = home.read_state()
        if state is not None and state.supervisor_pid == pid:
            if state.status == "ready":
                return state
            if state.status not in ACTIVE:
                raise failed(state, home)
            if state.progress != seen:
                seen = state.progress
                on_progress(state)
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            state = home.read_state()
            if state is not None and state.supervisor_pid == pid:
                raise failed(state, home)
            raise UnavailableError(
                "the supervisor ended before it could start", remedy=f"See {home.supervisor_log}"
            )
        time.sleep(_POLL_S)


def new_home(name: str | None = None, *, root: Path | None = None) -> ServiceHome:
    """The folder of a service; of a passing one, named after this process, unless given a name."""
    return ServiceHome(name or f"run-{os.getpid()}-{next(_numbers)}", root=root or state_root(os.environ))


@contextlib.contextmanager
def running_service(
    launch: Launch,
    *,
    home: ServiceHome | None = None,
    keep: bool = False,
    on_event: Callable[[ServiceEvent], None] = lambda _: None,
) -> Iterator[RunningService]:
    """A ready service for the length of a ``with`` block; no process stays, however the block ends.

    Args:
        launch: what to run.
        home: its folder; a passing one unless given.
        keep: keep the folder also after success; after a failure it is always kept.
        on_event: told of every change, on another thread.

    Raises:
        QwenhostError: it does not become ready.
    """
    home = home or new_home()
    lock = home.lock()
    settled = threading.Event()

    def watch(event: ServiceEvent) -> None:
        on_event(event)
        if event.kind in ("ready", "failed", "stopped"):
            settled.set()

    supervisor = Supervisor(launch, home, on_event=watch)
    thread = threading.Thread(target=_run, args=(supervisor, settled), name="supervisor", daemon=True)
    thread.start()
    try:
        settled.wait()
        state = supervisor.state
        if state.status != "ready":
            raise failed(state, home)
        yield RunningService(state.base_url, state.model, launch.api_key, home, state)
    finally:
        _stop_thread(supervisor, thread, launch)
        os.close(lock)
    if not keep:
        shutil.rmtree(home.path, ignore_errors=True)


def stop(home: ServiceHome, *, timeout_s: float = 90.0, force: bool = False) -> ServiceState | None:
    """Ask a service's supervisor to drain, and wait for it; None where no such service is known.

    Raises:
        UnavailableError: it did not stop in time.
    """
    state = current_state(home)
    if state is None or state.status not in ACTIVE:
        return state
    deadline = time.monotonic() + timeout_s
    _signal(state.supervisor_pid)
    if force:
        time.sleep(_POLL_S)
        _signal(state.supervisor_pid)
    while home.is_running():
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"service {home.name!r} did not stop within {timeout_s:.0f} s",
                remedy=f"Kill it with: qwenhost stop {home.name} --force",
            )
        time.sleep(_POLL_S)
    return current_state(home)


def failed(state: ServiceState, home: ServiceHome) -> QwenhostError:
    """The error of a service that is not running any more."""
    if state.failure is None:
        return UnavailableError(
            f"service {home.name!r} was stopped before it was ready", remedy=f"See {home.log_file}"
        )
    error = state.failure.to_error(log=str(home.log_file))
    if state.ready_at or state.restarts:
        return QwenhostError(f"{error.message} (after {state.restarts} restarts)", remedy=error.remedy)
    return error


def _run(supervisor: Supervisor, settled: threading.Event) -> None:
    try:
        supervisor.run()
    finally:
        settled.set()


def _stop_thread(supervisor: Supervisor, thread: threading.Thread, launch: Launch) -> None:
    supervisor.request_stop()
    try:
        thread.join(launch.limits.drain_s + launch.limits.kill_s)
    finally:  # also when the user is impatient
        if thread.is_alive():
            supervisor.request_stop(force=True)
            thread.join(launch.limits.kill_s)


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _redirect(log: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(null, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _write_event(event: ServiceEvent) -> None:
    print(f"{event.at} {event.kind}: {event.message}", file=sys.stderr, flush=True)  # noqa: T201


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


__all__ = ["Outcome", "RunningService", "running_service", "serve", "serve_detached", "stop"]

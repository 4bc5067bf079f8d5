"""Stands between the supervisor and the engine, so that no engine outlives its supervisor.

Run as ``python -I -S qwenhost_process_guard.py ARGV...`` with the standard library alone:

- stdin: commands, one letter each: ``T`` sends SIGTERM to the engine, ``K`` kills everything. Its end
  means that the supervisor is gone, even by ``kill -9``: SIGTERM, some seconds, then SIGKILL.
- stdout: ``tmp PATH``, the engine's folder for passing files; ``pid N``; ``exit CODE`` (negative: ended
  by that signal); ``gone`` once no process is left; or ``error TEXT`` where it could not be started.
- stderr: becomes the engine's stdout and stderr.

The guard is a subreaper: when vLLM's API server dies, its workers become the guard's children instead
of init's, and are killed. If the guard itself is killed, the kernel kills the engine (PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import sys
import tempfile
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ORPHAN_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL once the supervisor is gone."""
LEFTOVER_GRACE_S = 0.5
"""For processes that outlive the engine's first one, before they are killed."""
TRACKER_GRACE_S = 2.0
"""For multiprocessing's resource tracker, which removes shared memory once the others are gone."""
POLL_S = 0.05


def main(argv: list[str]) -> int:
    """Start the engine, watch both ends, leave no process behind."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(name, signal.SIG_IGN)  # stopping is the supervisor's to decide
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child_died, wake = os.pipe()
    for end in (child_died, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    scratch = make_scratch()
    try:
        engine, problem = start(argv, libc)
        if problem:
            say(f"error {problem}")
            return 127
        say(f"pid {engine}")
        watch(engine, child_died)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say("gone")
    return 0


def make_scratch() -> str:
    """A folder for the engine's sockets and passing files, of which a killed one leaves dozens."""
    scratch = tempfile.mkdtemp(prefix="qwenhost-")
    os.environ["TMPDIR"] = scratch
    say(f"tmp {scratch}")
    return scratch


def start(argv: list[str], libc: ctypes.CDLL) -> tuple[int, str]:
    """Fork and execute the engine in a session of its own; (pid, what went wrong)."""
    read_end, write_end = os.pipe()  # closed by a successful exec
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != guard:
                os._exit(127)
            signal.set_wakeup_fd(-1)
            for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
                signal.signal(name, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(2, 1)
            os.execvp(argv[0], argv)  # noqa: S606 - a list of words, no shell wanted
        except OSError as error:
            os.write(write_end, f"{argv[0]}: {error.strerror}".encode())
        os._exit(127)
    os.close(write_end)
    problem = b""
    while chunk := os.read(read_end, 4096):
        problem += chunk
    os.close(read_end)
    return pid, problem.decode()


def watch(engine: int, child_died: int) -> None:
    """Pass commands on until the engine ends, then clear what it left."""
    kill_at: float | None = None
    sources = [0, child_died]
    while True:
        timeout = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select(sources, [], [], timeout)
        if child_died in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(child_died, 4096)
        code = reap(engine)
        if code is not None:
            say(f"exit {code}")
            clear(engine)
            return
        if 0 in ready:
            command = os.read(0, 1)
            if command == b"K":
                kill_all(engine)
            elif command == b"T":
                send(engine, signal.SIGTERM)
            elif not command:
                sources = [child_died]
                send(engine, signal.SIGTERM)
                kill_at = time.monotonic() + ORPHAN_GRACE_S
        if kill_at is not None and time.monotonic() >= kill_at:
            kill_all(engine)
            kill_at = time.monotonic() + 1.0


def reap(engine: int) -> int | None:
    """Collect dead children; the engine's exit code if it was among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == engine:
            code = os.waitstatus_to_exitcode(status)


def clear(engine: int) -> None:
    """End what outlived the engine: a moment for its own clean-up, then SIGKILL."""
    started = time.monotonic()
    while True:
        reap(engine)
        left = members(engine)
        if not left:
            return
        waited = time.monotonic() - started
        for pid in left if waited > LEFTOVER_GRACE_S else ():
            if waited > TRACKER_GRACE_S or not is_resource_tracker(pid):
                send(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def kill_all(engine: int) -> None:
    """SIGKILL to every process of the engine, workers first, so that none can start another."""
    for pid in sorted(members(engine), reverse=True):
        if not is_resource_tracker(pid):
            send(pid, signal.SIGKILL)


def members(engine: int) -> set[int]:
    """Living processes that descend from the guard or belong to the engine's session."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for name in os.listdir("/proc"):  # noqa: PTH208 - kept free of imports
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - kept free of imports
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] in (b"Z", b"X"):
            continue
        pid = int(name)
        parents[pid] = int(fields[1])
        if int(fields[3]) == engine:
            found.add(pid)
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return (found | family) - {os.getpid()}


def is_resource_tracker(pid: int) -> bool:
    """Whether a process is multiprocessing's, which removes shared memory and then ends by itself."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - kept free of imports
            return b"resource_tracker" in file.read()
    except OSError:
        return False


def send(pid: int, number: int) -> None:
    """A signal, to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def say(line: str) -> None:
    """A line for the supervisor, which may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

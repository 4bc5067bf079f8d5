"""The one door through which an engine process is started and ended.

The engine runs under a guard (``engine_side/qwenhost_process_guard.py``) which ends it when this
process dies. Threads here only read and enqueue.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import psutil

from qwenhost.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ENGINE_SIDE: Final = Path(__file__).parent / "engine_side"
_GUARD: Final = ENGINE_SIDE / "qwenhost_process_guard.py"
MAX_LINE_BYTES: Final = 16_384
DEFAULT_LOG_BYTES: Final = 64 * 2**20


@dataclass(frozen=True)
class Spawned:
    """The engine's first process exists."""

    pid: int


@dataclass(frozen=True)
class SpawnFailed:
    """The program could not be executed."""

    message: str


@dataclass(frozen=True)
class Line:
    """A line of the engine's output."""

    text: str


@dataclass(frozen=True)
class Exited:
    """The engine's first process has ended; negative: by that signal."""

    code: int


@dataclass(frozen=True)
class Gone:
    """No process of the engine is left and its output has been read to the end."""

    clean: bool
    """False where the guard itself was killed and the rest was ended from here."""


ProcessEvent = Spawned | SpawnFailed | Line | Exited | Gone


class RotatingLog:
    """A log file for its owner alone; moved to ``.1`` at the start and when it grows past a limit."""

    def __init__(self, path: Path, *, limit_bytes: int = DEFAULT_LOG_BYTES) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        if path.exists() and path.stat().st_size:
            self._move_away()
        self._file = self._open()

    def write(self, data: bytes) -> None:
        """Append; a full disk loses log lines, not the service."""
        with contextlib.suppress(OSError):
            if self._file.tell() + len(data) > self._limit_bytes:
                self._file.close()
                self._move_away()
                self._file = self._open()
            self._file.write(data)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _move_away(self) -> None:
        self.path.replace(self.path.with_name(self.path.name + ".1"))

    def _open(self) -> IO[bytes]:
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(handle, "ab")


class EngineProcess:
    """A running engine; events come through ``put``, from threads, in order of each source.

    Args:
        argv: program and arguments; no secret may stand in them.
        env: the whole environment of the engine.
        log: where its output is written too.
        put: takes a :data:`ProcessEvent`; must not block.

    Raises:
        UnavailableError: the guard itself could not be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: RotatingLog,
        put: Callable[[ProcessEvent], None],
    ) -> None:
        self.pid: int | None = None
        self._put = put
        self._log = log
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(env),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise UnavailableError(
                f"cannot start a process: {error.strerror}",
                remedy="Check the limits on processes and memory: qwenhost doctor",
            ) from error
        self._output = threading.Thread(target=self._read_output, name="engine-output", daemon=True)
        self._output.start()
        threading.Thread(target=self._read_status, name="engine-status", daemon=True).start()

    def terminate(self) -> None:
        """SIGTERM to the engine's first process, which ends its workers in order."""
        self._command(b"T")

    def kill(self) -> None:
        """SIGKILL to every process of the engine."""
        self._command(b"K")

    def members(self) -> list[psutil.Process]:
        """Living processes of the engine."""
        return session_members(self.pid) if self.pid is not None else []

    def _command(self, letter: bytes) -> None:
        assert self._guard.stdin is not None  # noqa: S101 - given above
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed, the engine is gone
            self._guard.stdin.write(letter)

    def _read_output(self) -> None:
        assert self._guard.stderr is not None  # noqa: S101 - given above
        rest = b""
        with contextlib.suppress(OSError), self._guard.stderr as output:
            while chunk := output.read(65_536):
                self._log.write(chunk)
                *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    self._put_line(line)
                if len(rest) > MAX_LINE_BYTES:
                    self._put_line(rest)
                    rest = b""
        self._put_line(rest)

    def _put_line(self, line: bytes) -> None:
        if line.strip():
            self._put(Line(line[:MAX_LINE_BYTES].decode(errors="replace")))

    def _read_status(self) -> None:
        assert self._guard.stdout is not None  # noqa: S101 - given above
        exited = clean = False
        scratch = None
        with contextlib.suppress(OSError), self._guard.stdout as status:
            for raw in status:
                word, _, value = raw.decode(errors="replace").strip().partition(" ")
                if word == "tmp":
                    scratch = value
                elif word == "pid":
                    self.pid = int(value)
                    self._put(Spawned(self.pid))
                elif word == "exit":
                    exited = True
                    self._put(Exited(int(value)))
                elif word == "error":
                    clean = True
                    self._put(SpawnFailed(value))
                elif word == "gone":
                    clean = True
        self._guard.wait()
        if not clean:
            self._clear_up(scratch)
            if not exited:
                self._put(Exited(-9))
        # Let the last words of the log come first; a process that kept the pipe must not hold this up.
        self._output.join(timeout=5)
        if self._guard.stdin:
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
        self._put(Gone(clean=clean))

    def _clear_up(self, scratch: str | None) -> None:
        """What a guard that was killed itself can no longer do."""
        end_session(self.pid)
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def session_members(leader: int) -> list[psutil.Process]:
    """Living processes of the session that ``leader`` opened, and their descendants."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
                for child in process.children(recursive=True):
                    if child.status() != psutil.STATUS_ZOMBIE:
                        found[child.pid] = child
    return list(found.values())


def end_session(leader: int | None, *, rounds: int = 50, pause_s: float = 0.1) -> bool:
    """SIGKILL every process of a session until none is left; whether that was reached."""
    for _ in range(rounds if leader is not None else 0):
        assert leader is not None  # noqa: S101 - the range above
        left = session_members(leader)
        if not left:
            return True
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=pause_s)
    return leader is None or not session_members(leader)

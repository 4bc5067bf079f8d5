"""What a service writes about itself: one folder each, read by ``status``, ``logs`` and ``stop``.

``<state dir>/<name>/`` holds ``state.json``, ``plan.json``, ``engine.log``, ``supervisor.log`` and
``lock``; the supervisor holds the lock as long as it lives, so that a stale state is told from a
running service without trusting a process id.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.files import decode_document, write_atomically
from qwenhost.launcher.failures import Failure
from qwenhost.launcher.phases import LogFigures

SCHEMA: Final = "qwenhost.service/1"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Status = Literal["starting", "ready", "draining", "backoff", "stopped", "failed"]
ACTIVE: Final[tuple[Status, ...]] = ("starting", "ready", "draining", "backoff")


class Change(Value, frozen=True, kw_only=True):
    """A fallback that was applied."""

    trigger: str
    change: str
    cause: str
    at: str
    """ISO 8601, UTC."""


class Deviation(Value, frozen=True, kw_only=True):
    """A figure of the log beside the plan's."""

    name: str
    planned: float
    observed: float
    unit: str

    @property
    def relative(self) -> float:
        """``observed / planned - 1``."""
        return self.observed / self.planned - 1 if self.planned else 0.0


class Expected(Value, frozen=True, kw_only=True):
    """How long the running start should take, in seconds."""

    ready_s: float
    low_s: float
    high_s: float
    basis: Literal["measured", "assumed"]
    source: str


class ServiceState(Value, frozen=True, kw_only=True):
    """A service at one moment; ``state.json``."""

    schema: str = SCHEMA
    name: str
    status: Status
    engine: Literal["vllm", "simulated"]
    target: Literal["gpu", "cpu"]
    base_url: str
    model: str
    """Served name."""
    label: str
    """What runs, for people."""
    api_key_required: bool = False
    ssl_certfile: str | None = None
    """By which its clients may know it; None = plain HTTP."""
    supervisor_pid: int
    engine_pid: int | None = None
    phase: str = "spawn"
    progress: str = ""
    started_at: str
    """ISO 8601, UTC; of the service."""
    ready_at: str | None = None
    ready_s: float | None = None
    """From the engine's start to ready, last time."""
    expected: Expected | None = None
    """Of the last start; None where nothing was known."""
    updated_at: str
    restarts: int = 0
    fallbacks: tuple[Change, ...] = ()
    figures: LogFigures = LogFigures()
    deviations: tuple[Deviation, ...] = ()
    failure: Failure | None = None
    """The last one."""
    failure_counts: Mapping[str, int] = {}
    """By kind, since the service started."""
    argv: tuple[str, ...] = ()
    """Of the running engine; secrets never stand in it."""
    labels: Mapping[str, str] = {}


class ServiceHome:
    """The folder of one service.

    Raises:
        BadInputError: the name is not a plain word.
    """

    def __init__(self, name: str, *, root: Path) -> None:
        if not _NAME.fullmatch(name):
            raise BadInputError(
                f"--name {name!r}: not a service name",
                remedy="Use letters, digits, dots, dashes and underscores, at most 64.",
            )
        self.name = name
        self.path = root / name

    @property
    def _remedy(self) -> str:
        return f"Remove {self.path} if no such service runs."

    @property
    def state_file(self) -> Path:
        """``state.json``."""
        return self.path / "state.json"

    @property
    def plan_file(self) -> Path:
        """``plan.json``."""
        return self.path / "plan.json"

    @property
    def log_file(self) -> Path:
        """The engine's output."""
        return self.path / "engine.log"

    @property
    def supervisor_log(self) -> Path:
        """What a detached supervisor says."""
        return self.path / "supervisor.log"

    def create(self) -> None:
        """Make the folder, for the user alone.

        Raises:
            BadInputError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
        except OSError as error:
            raise BadInputError(
                f"{self.path}: cannot create: {error.strerror}",
                remedy="Set QWENHOST_STATE_DIR to a folder you may write to.",
            ) from error

    def write_private(self, file: Path, data: bytes) -> None:
        """Write a file of this folder, readable by the user alone."""
        write_atomically(file, data, mode=0o600)

    def write_state(self, state: ServiceState) -> None:
        """Replace ``state.json``."""
        self.write_private(self.state_file, msgspec.json.format(msgspec.json.encode(state), indent=2))

    def read_state(self) -> ServiceState | None:
        """The last written state; None where there is none.

        Raises:
            BadInputError: the file is not a state.
        """
        try:
            data = self.state_file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadInputError(f"{self.state_file}: {error.strerror}", remedy=self._remedy) from error
        what = "a service state"
        state = decode_document(
            data, ServiceState, schema=SCHEMA, name=str(self.state_file), what=what, remedy=self._remedy
        )
        try:
            urlsplit(state.base_url).port  # noqa: B018 - it raises
        except ValueError as error:
            raise BadInputError(
                f"{self.state_file}: not {what}: {error} at `$.base_url`", remedy=self._remedy
            ) from error
        return state

    def is_running(self) -> bool:
        """Whether a supervisor holds the lock."""
        try:
            with (self.path / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def lock(self) -> int:
        """Take the lock; the descriptor holds it until it is closed or the process ends.

        Raises:
            BadInputError: another supervisor holds it.
        """
        self.create()
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise BadInputError(
                f"a service named {self.name!r} is already running",
                remedy=f"Stop it with: qwenhost stop {self.name}, or give another --name.",
            ) from error
        return handle


def state_root(environ: Mapping[str, str]) -> Path:
    """``$QWENHOST_STATE_DIR``, else ``$XDG_STATE_HOME/qwenhost``, else ``~/.local/state/qwenhost``."""
    if chosen := environ.get("QWENHOST_STATE_DIR"):
        return Path(chosen).expanduser().absolute()
    base = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "qwenhost"


def service_homes(root: Path) -> list[ServiceHome]:
    """Every service that left a state here, by name."""
    if not root.is_dir():
        return []
    return [
        ServiceHome(folder.name, root=root)
        for folder in sorted(root.iterdir())
        if _NAME.fullmatch(folder.name) and (folder / "state.json").is_file()
    ]


def current_state(home: ServiceHome) -> ServiceState | None:
    """The state as it is now: one whose supervisor has died is ``failed``, whatever it wrote last."""
    state = home.read_state()
    if state is None or state.status not in ACTIVE or home.is_running():
        return state
    died = Failure(
        kind="supervisor_died",
        cause="the supervisor ended without stopping the service",
        remedy="Its guard has ended the engine; start it again with qwenhost serve.",
    )
    return msgspec.structs.replace(state, status="failed", failure=died, engine_pid=None)

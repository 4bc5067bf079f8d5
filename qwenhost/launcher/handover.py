"""A running service put aside and started again as it was, for work that needs its GPUs."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

import psutil

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.launcher.service import stop
from qwenhost.launcher.state import ACTIVE, current_state, service_homes
from qwenhost.tuning import Handover

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qwenhost.launcher.state import ServiceHome, ServiceState

KEY_VARIABLE: Final = "QWENHOST_API_KEY"
_MANAGED: Final = ("NOTIFY_SOCKET", "KUBERNETES_SERVICE_HOST")
RESTART_WITHIN_S: Final = 7200.0


def services_on_gpus(root: Path) -> list[ServiceState]:
    """Services of this user that hold GPUs now."""
    states = [current_state(home) for home in service_homes(root)]
    return [
        state
        for state in states
        if state is not None and state.status in ACTIVE and (state.engine, state.target) == ("vllm", "gpu")
    ]


def take_over(home: ServiceHome, *, timeout_s: float = 120.0) -> tuple[Handover, dict[str, str]]:
    """Stop a service; how to start it again, and the environment it had.

    The environment may hold its key: it is for this process's memory and for no file.

    Raises:
        BadInputError: no such service runs, or a service manager would not know of the restart.
        UnavailableError: it did not stop in time.
    """
    state = current_state(home)
    if state is None or state.status not in ACTIVE:
        raise BadInputError(f"no service named {home.name!r} is running", remedy="List: qwenhost status")
    process = psutil.Process(state.supervisor_pid)
    argv, cwd, environ = tuple(process.cmdline()), process.cwd(), process.environ()
    manager = next((name for name in _MANAGED if environ.get(name)), None)
    if manager:
        raise BadInputError(
            f"service {home.name!r} was started by a service manager ({manager}), which must stop it itself",
            remedy="Stop it there (systemctl stop UNIT), tune, and start it there again.",
        )
    found = Handover(
        name=home.name,
        argv=argv if "--detach" in argv else (*argv, "--detach"),
        cwd=cwd,
        needs_key=state.api_key_required and "--api-key-file" not in argv,
    )
    stop(home, timeout_s=timeout_s)
    return found, environ


def give_back(handover: Handover, environ: Mapping[str, str] | None = None) -> None:
    """Start the service again as it was, and wait until it is ready.

    Args:
        handover: from :func:`take_over`.
        environ: what it had; this process's own where that is lost.

    Raises:
        UnavailableError: it did not start, or its key is not known here.
    """
    env = dict(os.environ if environ is None else environ)
    by_hand = f"Start it yourself in {handover.cwd}: {' '.join(handover.argv)}"
    if handover.needs_key and not env.get(KEY_VARIABLE):
        raise UnavailableError(
            f"service {handover.name!r} had its key in {KEY_VARIABLE}, which is not set here", remedy=by_hand
        )
    try:
        done = subprocess.run(
            handover.argv, cwd=handover.cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            timeout=RESTART_WITHIN_S, check=False, start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"service {handover.name!r}: {error}", remedy=by_hand) from error
    if done.returncode:
        raise UnavailableError(
            f"service {handover.name!r} did not start again (exit code {done.returncode})", remedy=by_hand
        )

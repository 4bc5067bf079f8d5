"""systemd's protocol, over a real datagram socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qwenhost.launcher.build import free_port
from qwenhost.launcher.events import ServiceEvent
from qwenhost.launcher.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that a service manager listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        yield listener


def event(kind: str, message: str = "a message") -> ServiceEvent:
    return ServiceEvent(kind=kind, message=message, at="", elapsed_s=0.0, service="s")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("phase", "STATUS=a message"),
        ("ready", "STATUS=a message\nREADY=1"),
        ("stopping", "STATUS=a message\nSTOPPING=1"),
        ("failed", "STATUS=a message\nSTOPPING=1"),
    ],
)
def test_what_is_told(manager: socket.socket, kind: str, expected: str) -> None:
    """One datagram for each change."""
    Notifier({"NOTIFY_SOCKET": manager.getsockname()}).tell(event(kind, "a\nmessage"))
    assert manager.recv(4096).decode() == expected


def test_an_abstract_socket() -> None:
    """``@`` stands for a zero byte."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = f"qwenhost-test-{os.getpid()}"
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).beat()
        assert listener.recv(100) == b"WATCHDOG=1"


def test_without_a_manager_nothing_is_sent(tmp_path: Path) -> None:
    """Nor does one that went away end anything."""
    Notifier({}).tell(event("ready"))
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell(event("ready"))


@pytest.mark.parametrize(
    ("environ", "every_s"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time(environ: dict[str, str], every_s: float | None) -> None:
    """Where one is set, and set for this process."""
    assert Notifier({"NOTIFY_SOCKET": "/run/n", **environ}).beat_every_s == every_s
    assert Notifier(environ).beat_every_s is None


def test_a_whole_service_reports_to_its_manager(
    manager: socket.socket, plan_file: Path, tmp_path: Path
) -> None:
    """READY=1 after a real completion, WATCHDOG=1 all along, STOPPING=1 on SIGTERM; none by the engine."""
    command = [
        sys.executable, "-m", "qwenhost.cli.main", "serve", str(plan_file), "--engine", "simulated",
        "--startup-seconds", "0.5", "--port", str(free_port()), "--json",
    ]  # fmt: skip
    environ = os.environ | {
        "QWENHOST_STATE_DIR": str(tmp_path / "state"),
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "1000000",
    }
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        heard = hear(manager, until="READY=1")
        assert any(json.loads(line)["kind"] == "ready" for line in process.stdout)
        assert "STATUS=starting SIMULATED" in heard[1]
        state = json.loads((tmp_path / "state/default/state.json").read_text())
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{state['engine_pid']}/environ").read_bytes()
        drain(manager)
        time.sleep(2.2)
        beats = [message for message in drain(manager) if message == "WATCHDOG=1"]
        assert 3 <= len(beats) <= 5
        process.send_signal(signal.SIGTERM)
        hear(manager, until="STOPPING=1")
        assert process.wait(20) == 0


def hear(manager: socket.socket, *, until: str) -> list[str]:
    heard: list[str] = []
    while not heard or until not in heard[-1].split("\n"):
        heard.append(manager.recv(4096).decode())
    return heard


def drain(manager: socket.socket) -> list[str]:
    heard = []
    manager.setblocking(False)
    try:
        while True:
            heard.append(manager.recv(4096).decode())
    except BlockingIOError:
        pass
    manager.settimeout(10)
    return heard

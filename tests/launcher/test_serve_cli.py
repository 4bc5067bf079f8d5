"""The commands serve, status, logs, stop and doctor, with a simulated engine as the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.launcher.build import free_port, running_engine
from qwenhost.launcher.state import ServiceHome

if TYPE_CHECKING:
    from qwenhost.plan import Plan

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QWENHOST_")}
    return clean | {"QWENHOST_STATE_DIR": str(tmp_path / "state"), "NO_COLOR": "1"}


@pytest.fixture
def cli(environ: dict[str, str]) -> Iterator[Cli]:
    """Run a command to its end; whatever it left running is stopped."""

    def call(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "qwenhost.cli.main", *words],
            env=environ | more, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    yield call
    for state in json.loads(call("status", "--json").stdout):
        if state["status"] in ("starting", "ready", "backoff"):
            call("stop", state["name"], "--force")


def serve(environ: dict[str, str], plan_file: Path, *words: str) -> subprocess.Popen[str]:
    """``qwenhost serve`` in the foreground of a process of its own."""
    command = [sys.executable, "-m", "qwenhost.cli.main", "serve", str(plan_file), "--engine", "simulated"]
    return subprocess.Popen(
        [*command, "--port", str(free_port()), *words],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def events(process: subprocess.Popen[str], until: str) -> list[dict[str, Any]]:
    """JSON lines up to the first of a kind."""
    found: list[dict[str, Any]] = []
    assert process.stdout is not None
    for line in process.stdout:
        found.append(json.loads(line))
        if found[-1]["kind"] == until:
            return found
    raise AssertionError(f"{until} never came: {found}")


def test_ctrl_c_on_a_ready_service_drains_and_exits_0(environ: dict[str, str], plan_file: Path) -> None:
    """JSON events on stdout, nothing else."""
    with serve(environ, plan_file, "--json", "--startup-seconds", "0.5") as process:
        ready = events(process, "ready")[-1]
        assert urllib.request.urlopen(f"{ready['data']['base_url']}/health", timeout=5).status == 200
        process.send_signal(signal.SIGINT)
        assert [event["kind"] for event in events(process, "stopped")] == ["stopping", "stopped"]
        assert process.wait(20) == 0


def test_ctrl_c_during_the_start_exits_130(environ: dict[str, str], plan_file: Path) -> None:
    """It never was a service."""
    with serve(environ, plan_file, "--json", "--startup-seconds", "60") as process:
        events(process, "phase")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_people_read_where_it_is_and_how_to_call_it(environ: dict[str, str], plan_file: Path) -> None:
    """Progress on stderr, the address and a call on stdout; simulated is said."""
    environ["QWENHOST_API_KEY"] = "a-key-for-tests"
    with serve(environ, plan_file, "--startup-seconds", "0.5") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("http://127.0.0.1:")
        assert "SIMULATED" in first
        assert "Bearer $QWENHOST_API_KEY" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0
    assert "ready after" in err
    assert "a-key-for-tests" not in first + out + err
    home = Path(environ["QWENHOST_STATE_DIR"]) / "default"
    assert not (home / "api-key").exists(), "removed with the engine"
    assert json.loads((home / "plan.json").read_text())["schema"] == "qwenhost.plan/1"


def test_a_detached_service_is_seen_followed_and_stopped(cli: Cli, plan_file: Path) -> None:
    """Serve --detach, status, logs, stop; the second of the name is refused."""
    flags = ["--engine", "simulated", "--startup-seconds", "0.5", "--name", "night"]
    started = cli("serve", str(plan_file), *flags, "--port", str(free_port()), "--detach", "--json")
    assert started.returncode == 0, started.stderr
    state = json.loads(started.stdout)
    assert (state["status"], state["engine"]) == ("ready", "simulated")

    assert "night" in cli("status").stdout
    shown = json.loads(cli("status", "night", "--json").stdout)
    assert shown["base_url"] == state["base_url"]
    assert "Application startup complete" in cli("logs", "night").stdout
    last = cli("logs", "night", "-n", "1", "--json").stdout
    assert set(json.loads(last)) == {"process", "level", "text"}

    refused = cli("serve", str(plan_file), *flags, "--port", str(free_port()))
    assert (refused.returncode, "already running" in refused.stderr) == (2, True)

    stopped = cli("stop", "night")
    assert (stopped.returncode, stopped.stdout) == (0, "night: stopped\n")
    assert json.loads(cli("status", "night", "--json").stdout)["status"] == "stopped"
    assert cli("stop", "night").stdout == "night: stopped\n"


def test_a_detached_start_that_fails_says_why(cli: Cli, plan_file: Path) -> None:
    """As in the foreground: one sentence and a remedy."""
    failed = cli(
        "serve", str(plan_file), "--engine", "simulated", "--port", str(free_port()), "--detach",
        "--extra-arg", "--nosuchflag",
    )  # fmt: skip
    assert failed.returncode != 0
    assert "Traceback" not in failed.stderr
    assert "engine.log" in failed.stderr


def test_logs_follow_until_the_service_ends(environ: dict[str, str], cli: Cli, plan_file: Path) -> None:
    """-f prints what comes and ends with the service."""
    flags = ("--engine", "simulated", "--startup-seconds", "0.5", "--detach", "--port", str(free_port()))
    assert cli("serve", str(plan_file), *flags).returncode == 0
    command = [sys.executable, "-m", "qwenhost.cli.main", "logs", "-f"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as follower:
        time.sleep(0.5)
        assert follower.poll() is None
        assert cli("stop").returncode == 0
        out, _ = follower.communicate(timeout=10)
    assert "draining" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("serve", "/nonexistent/plan.json"), 2, "No such file"),
        (("serve", "--target", "cpu"), 2, "--model"),
        (("serve", "--target", "cpu", "--engine", "simulated"), 2, "needs a plan"),
        (("serve", "--gpus", "2xH200", "--engine", "simulated", "--name", "../x"), 2, "not a service name"),
        (("serve", "--gpus", "2xH200", "--engine", "simulated", "--host", "0.0.0.0"), 2, "without a key"),
        (("serve", "--gpus", "1xL40S", "--engine", "simulated"), 3, "Error"),
        (("compare", "--gpus", "2xH200", "--engine", "vllm"), 4, "weights"),
        (("fetch", "./nowhere"), 2, "no such folder"),
        (("status", "nobody"), 2, "no service named"),
        (("stop", "nobody"), 2, "no service named"),
        (("logs", "nobody"), 2, "No such file"),
    ],
)
def test_mistakes_end_with_one_sentence(cli: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    """Exit code, message, no traceback."""
    done = cli(*words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_lists_every_check(cli: Cli) -> None:
    """This machine has no vLLM beside qwenhost: 4, with a remedy."""
    done = cli("doctor", "--json", "--vllm-bin", sys.executable)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {"port", "vllm", "gpus", "ram", "shared memory", "weights", "open files"} <= set(checks)
    assert done.returncode == (4 if any(c["status"] == "fail" for c in checks.values()) else 0)


def test_a_block_of_code_gets_a_running_engine(plan: Plan, tmp_path: Path) -> None:
    """What compare and demo use; the folder of a passing service is removed after success."""
    with running_engine(plan, startup_s=0.2, api_key="block-key", root=tmp_path) as service:
        request = urllib.request.Request(f"{service.base_url}/v1/models", headers={"x-api-key": "block-key"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert json.loads(answer.read())["data"][0]["id"] == service.model
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_fails_still_stops_the_engine(plan: Plan, tmp_path: Path) -> None:
    """The error passes, the process does not stay, the log does."""
    with pytest.raises(ZeroDivisionError), running_engine(plan, startup_s=0.2, name="kept", root=tmp_path):
        _ = 1 / 0
    home = ServiceHome("kept", root=tmp_path)
    state = home.read_state()
    assert state is not None
    assert (state.status, home.is_running()) == ("stopped", False)
    assert home.log_file.is_file()

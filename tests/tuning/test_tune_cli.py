"""``qwenhost tune`` on simulated engines: to its end, cut off, with a service in its way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import pytest

from qwenhost.cli.tuning_calibration import calibrate_from, trial_files
from qwenhost.launcher.build import free_port
from qwenhost.profiles import load_catalog
from qwenhost.tuning import TuneState

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [
    "--gpus", "2xH200", "--checkpoint", "fp8", "--engine", "simulated", "--concurrency", "4",
    "--input-tokens", "64", "--output-tokens", "16", "--candidates", "2",
]  # fmt: skip
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """No key, no state and no profiles of the user's own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QWENHOST_")}
    own = {"QWENHOST_STATE_DIR": str(tmp_path / "services"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return clean | own | {"NO_COLOR": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "qwenhost.cli.main", *words]


def run(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), env=environ, capture_output=True, text=True, timeout=100, check=False
    )


def engines(folder: Path) -> list[int]:
    """Simulated engines of this folder's trials."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if "_simulated-engine" in line and any(str(folder) in word for word in line):
            found.append(process.pid)
    return found


def test_from_trials_to_a_plan(environ: dict[str, str], tmp_path: Path) -> None:
    """Both are measured, the winner's plan is written, a second call measures nothing again."""
    folder = tmp_path / "out"
    words = ("tune", *WORDS, "--duration", "2", "--output-dir", str(folder))
    done = run(environ, *words)
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stdout
    assert f"qwenhost serve {folder / 'plan.json'}" in done.stdout
    state: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
    assert [trial["status"] for trial in state["trials"]] == ["measured", "measured"]
    assert state["calibration"] is None, "a simulated engine teaches nothing"
    plan = json.loads((folder / "plan.json").read_bytes())
    winner = next(trial for trial in state["trials"] if trial["id"] == state["winner"])
    tried = json.loads((folder / f"{state['winner']}.plan.json").read_bytes())
    assert plan["chosen"] == tried["chosen"]
    assert plan["fallbacks"]
    assert winner["output_tokens_per_s"] > 0
    before = (folder / "trial-1.measurements.json").stat().st_mtime_ns
    again = run(environ, *words, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["winner"] == state["winner"]
    assert again.stderr.count("measured before") == 2
    assert (folder / "trial-1.measurements.json").stat().st_mtime_ns == before
    other = run(environ, *words, "--objective", "latency")
    assert other.returncode == 2
    assert "another question" in other.stderr
    _teaches(folder, environ)


def _teaches(folder: Path, environ: dict[str, str]) -> None:
    """Had it been hardware, the trials' plans and runs would be what calibrate is given."""
    state = msgspec.json.decode((folder / "state.json").read_bytes(), type=TuneState)
    files = trial_files(folder, state)
    assert [file.name for file in files] == [
        "trial-1.plan.json", "trial-1.measurements.json", "trial-2.plan.json", "trial-2.measurements.json"
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", environ["XDG_CONFIG_HOME"])
        assert calibrate_from(load_catalog([]), folder, state) is None
        for file in files[1::2]:
            measured = json.loads(file.read_bytes())
            measured["server"] |= {"simulated": False, "name": "vllm", "version": "0.33.0"}
            file.write_text(json.dumps(measured))
        kept = calibrate_from(load_catalog([]), folder, state)
    assert kept is not None
    assert kept.startswith(environ["XDG_CONFIG_HOME"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cut_off_and_gone_on_with(environ: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    """No engine is left, and the next call runs what is missing."""
    folder = tmp_path / "out"
    words = command("tune", *WORDS, "--duration", "3", "--output-dir", str(folder), "--json")
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        deadline = time.monotonic() + 40
        while not engines(folder):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.send_signal(number)
        first.communicate(timeout=40)
    assert first.returncode == (130 if number != signal.SIGKILL else -signal.SIGKILL)
    deadline = time.monotonic() + 20
    while engines(folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    state = json.loads((folder / "state.json").read_bytes())
    assert [trial["status"] for trial in state["trials"]] == ["running", "waiting"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "again, it was cut off" in done.stderr


def test_a_named_service_is_stopped_and_started_again(environ: dict[str, str], tmp_path: Path) -> None:
    """It answers under its name and port as before."""
    plan, folder, port = tmp_path / "plan.json", tmp_path / "out", str(free_port())
    assert run(environ, "plan", "--gpus", "2xH200", "--save", str(plan)).returncode == 0
    serve = ("serve", str(plan), "--engine", "simulated", "--startup-seconds", "0.2", "--port", port)
    # Without pipes: the supervisor stays in the background and would hold them.
    subprocess.run(
        command(*serve, "--name", "prod", "--detach"), env=environ, check=True, timeout=60,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        before = _service(environ)
        assert before["status"] == "ready"
        words = ("tune", *WORDS, "--duration", "1", "--output-dir", str(folder), "--stop-service", "prod")
        done = run(environ, *words)
        assert done.returncode == 0, done.stderr
        assert "start  service prod again" in done.stderr
        after = _service(environ)
        assert (after["status"], after["base_url"]) == ("ready", before["base_url"])
        assert after["supervisor_pid"] != before["supervisor_pid"]
        assert json.loads((folder / "state.json").read_bytes())["stopped"] == []
    finally:
        run(environ, "stop", "prod", "--force")


def _service(environ: dict[str, str]) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(run(environ, "status", "--json").stdout)
    return next(state for state in found if state["name"] == "prod")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "cpu"], "--target cpu needs a small checkpoint"),
        (["--target", "cpu", "--model", "x", "--engine", "simulated"], "--engine simulated needs GPUs"),
        (["--gpus", "2xH200"], "trials run on this machine's"),
        (["--gpus", "2xH200", "--engine", "simulated", "--stop-service", "none"], "no service named 'none'"),
        (["--candidates", "1"], "candidates"),
        (["--gpus", "2xH200", "--engine", "simulated", "--rate", "1", "--concurrency", "2"], "both given"),
    ],
)  # fmt: skip
def test_what_cannot_be_run(environ: dict[str, str], tmp_path: Path, words: list[str], said: str) -> None:
    """One sentence, exit code 2, nothing started."""
    done = run(environ, "tune", *words, "--output-dir", str(tmp_path / "out"))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr

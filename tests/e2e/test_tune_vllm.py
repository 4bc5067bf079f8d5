"""``qwenhost tune`` with real vLLM on the CPU: killed in its second trial, it goes on and finds a winner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def tune_words(tiny: Path, vllm_bin: str, folder: Path) -> list[str]:
    """Two trials of five seconds each."""
    return [
        sys.executable, "-m", "qwenhost.cli.main", "tune", "--target", "cpu", "--model", str(tiny),
        "--load-format", "dummy", "--vllm-bin", vllm_bin, "--input-tokens", "64", "--output-tokens", "16",
        "--concurrency", "2", "--duration", "5", "--candidates", "2", "--output-dir", str(folder), "--json",
    ]  # fmt: skip


def statuses(folder: Path) -> list[str]:
    """Of the trials, as the state file says."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
    except FileNotFoundError:
        return []
    return [trial["status"] for trial in state["trials"]]


def engines_of(folder: Path) -> list[psutil.Process]:
    """Processes of vLLM that were started for this folder's trials."""
    mark = str(folder)
    found = []
    for process in psutil.process_iter():
        try:
            if any(mark in word for word in process.cmdline()) or mark in process.environ().get("_TUNE", ""):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_a_killed_tuning_goes_on(tiny: Path, vllm_bin: str, tmp_path: Path) -> None:
    """The first trial's figures stay, the second is run again; no engine of the killed one is left."""
    folder = tmp_path / "tune"
    words = tune_words(tiny, vllm_bin, folder)
    environ = os.environ | {
        "NO_COLOR": "1",
        "QWENHOST_STATE_DIR": str(tmp_path / "state"),
        "_TUNE": str(folder),
    }
    with subprocess.Popen(
        words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as first:
        deadline = time.monotonic() + 300
        while statuses(folder) != ["measured", "running"]:
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < deadline, statuses(folder)
            time.sleep(0.2)
        time.sleep(8)  # the second engine is on its way
        assert len(engines_of(folder)) > 1
        first.send_signal(signal.SIGKILL)
    kept = (folder / "trial-1.measurements.json").read_bytes()
    deadline = time.monotonic() + 60
    while engines_of(folder):
        assert time.monotonic() < deadline, engines_of(folder)
        time.sleep(0.2)
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert [trial["status"] for trial in state["trials"]] == ["measured", "measured"]
    assert state["winner"] in ("trial-1", "trial-2")
    assert not state["simulated"]
    assert (folder / "trial-1.measurements.json").read_bytes() == kept
    assert "1/2 as served: measured before" in done.stderr
    run = json.loads((folder / "trial-2.measurements.json").read_bytes())
    assert run["server"]["name"] == "vllm"
    assert run["requests"]["completed"] > 0
    log = (folder / "services" / "trial-2" / "engine.log").read_text()
    assert "'max_num_seqs': 4" in log
    assert not engines_of(folder)

"""The command line: JSON, tables, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from qwenhost.cli import probe_view
from qwenhost.cli.probe_view import progress_line
from qwenhost.measurements import Percentiles, load_measurements
from qwenhost.probe import Progress

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

# Slow enough that a busy test machine does not make the run void: 5 % of the TTFT is 20 ms.
CALM = "ttft=0.4,itl=0.005"
SMALL = [
    "--requests",
    "6",
    "--concurrency",
    "2",
    "--output-tokens",
    "5",
    "--input-tokens",
    "50",
    "--warmup",
    "1",
]


def qwenhost(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwenhost.cli.main", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment, timeout=60
    )


def test_json_is_the_contract_and_nothing_else(truth: Any, tmp_path: Path) -> None:
    """Stdout is one object with the contract's keys, and --save writes the same."""
    saved = tmp_path / "m.json"
    done = qwenhost("probe", truth.url(CALM), *SMALL, "--json", "--save", str(saved))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "qwenhost.measurements/1"
    assert found["requests"] == {"sent": 6, "completed": 6, "failed": 0, "by_error": {}}
    for key in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"):
        assert set(found[key]) == {"mean", "p50", "p90", "p95", "p99"}
    for key in ("workload", "load", "output_tokens_per_s", "total_tokens_per_s", "request_per_s", "goodput",
                "send_lag_ms", "void", "void_reason", "server", "started_at", "machine"):  # fmt: skip
        assert key in found
    assert json.loads(saved.read_text()) == found
    assert load_measurements(saved).server.model == "truth"


def test_a_table_for_people(truth: Any) -> None:
    """Plain when piped: no escape codes, no progress on stderr."""
    done = qwenhost("probe", truth.url(f"{CALM},simulated=card"), *SMALL)
    assert done.returncode == 0, done.stderr
    assert "Time to first token" in done.stdout
    assert "6 of 6 completed" in done.stdout
    assert "not measurements of hardware" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_a_missed_limit_is_exit_5(truth: Any) -> None:
    """Only where the limit was given on the command line."""
    url = truth.url(CALM)
    missed = qwenhost("probe", url, *SMALL, "--slo-ttft-ms", "10")
    assert missed.returncode == 5
    assert "SLO missed: 0.0% of requests" in missed.stderr
    assert qwenhost("probe", url, *SMALL, "--slo-ttft-ms", "5000").returncode == 0


def test_a_void_run_is_exit_5(truth: Any) -> None:
    """No request succeeded, and the table says not to use it."""
    done = qwenhost("probe", truth.url("fault=status_503"), *SMALL, "--warmup", "0")
    assert done.returncode == 5
    assert "VOID: no request succeeded (http_503)" in done.stdout


def test_nobody_there_is_exit_4() -> None:
    """One sentence and a remedy, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = qwenhost("probe", f"http://127.0.0.1:{port}")
    assert done.returncode == 4
    assert "does not answer: refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_url_is_exit_2() -> None:
    """With the form expected."""
    done = qwenhost("probe", "ftp://host")
    assert done.returncode == 2
    assert "http://127.0.0.1:8000" in done.stderr


def test_a_folder_that_is_not_there_stops_before_the_load(truth: Any, tmp_path: Path) -> None:
    """Not after an hour of measuring."""
    done = qwenhost("probe", truth.url(), *SMALL, "--save", str(tmp_path / "none" / "m.json"))
    assert done.returncode == 2
    assert "no such folder" in done.stderr
    assert done.stdout == ""


def test_an_interrupted_warm_up_is_exit_130(truth: Any) -> None:
    """Nothing to show yet, no traceback."""
    command = [sys.executable, "-m", "qwenhost.cli.main", "probe", truth.url("fault=hang"), *SMALL]
    # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    truth.told()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not any(name.startswith("qwenhost-") for name in truth.told()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=20)
    assert (process.returncode, out, error.strip()) == (130, "", "Interrupted.")


def test_the_key_is_sent_and_never_shown(truth: Any, tmp_path: Path) -> None:
    """From the environment or a file, as a bearer token."""
    truth.told()
    done = qwenhost("probe", truth.url(CALM), *SMALL, "--json", QWENHOST_API_KEY="secret-key-123")
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr
    told = [entry for name, entry in truth.told().items() if name.startswith("qwenhost-")]
    assert {entry["authorization"] for entry in told} == {"Bearer secret-key-123"}


def test_an_interrupted_run_prints_what_it_has(truth: Any) -> None:
    """Ctrl-C once: a summary, exit code 130."""
    command = [sys.executable, "-m", "qwenhost.cli.main", "probe", truth.url("ttft=0.02,itl=0.01")]
    command += ["--duration", "60", "--concurrency", "2", "--output-tokens", "5", "--warmup", "1", "--json"]
    truth.told()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while len(truth.told()) < 8:  # Asking empties the list: wait for a poll that saw several requests.
        assert time.monotonic() < deadline
        time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=20)
    assert process.returncode == 130, error
    found = json.loads(out)
    assert found["interrupted"]
    assert found["requests"]["completed"] > 3


def test_the_live_line() -> None:
    """140 of 640 done after 12.3 s at 1,890 tokens a second: 44 s left."""
    progress = Progress(
        phase="load", elapsed_s=12.3, sent=204, completed=138, failed=2, in_flight=64,
        output_tokens=23_247, total_requests=640,
    )  # fmt: skip
    assert progress_line(progress) == (
        "load        12.3 s   140 of 640 done, 64 in flight, 1,890 tok/s, 2 failed, 43.9 s left"
    )


def test_the_live_line_tells_the_latency_so_far() -> None:
    """Median and tail of the requests that ended."""
    so_far = Percentiles(mean=250, p50=210.4, p90=400, p95=450, p99=1480)
    progress = Progress(phase="load", elapsed_s=2, completed=3, in_flight=1, duration_s=10, ttft_ms=so_far)
    assert progress_line(progress).endswith("1 in flight, TTFT p50 210.4 p99 1,480 ms, 8.0 s left")


def test_without_a_terminal_a_plain_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Silent for 30 s, then a line without control characters."""
    clock = iter([0.0, 29.0, 31.0, 31.0, 40.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with probe_view.live_progress() as tell:
        assert tell is not None
        for done in (1, 2, 3):
            tell(Progress(phase="load", elapsed_s=31, completed=done))
    assert capsys.readouterr().err == "load        31.0 s   2 done, 0 in flight\n"

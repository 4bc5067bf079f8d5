"""The supervisor's figures beside the engine's, on one scrape."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from qwenhost.errors import UnavailableError
from qwenhost.launcher.build import free_port
from qwenhost.launcher.engine_side.qwenhost_key_guard import KeyRing
from qwenhost.launcher.health import Endpoint
from qwenhost.launcher.metrics import MetricsServer, merged_text, own_text
from qwenhost.launcher.state import Change, ServiceState

if TYPE_CHECKING:
    from pathlib import Path

STATE = ServiceState(
    name="night", status="ready", engine="vllm", target="gpu", base_url="http://127.0.0.1:9", model="m",
    label='fp8 TP2 "a"', supervisor_pid=1, started_at="", updated_at="", phase="ready", ready_s=61.5,
    restarts=2, fallbacks=(Change(trigger="t", change="c", cause="x", at=""),),
    failure_counts={"worker_died": 1, "hung": 1},
)  # fmt: skip


def test_the_supervisors_own_figures() -> None:
    """In Prometheus' text format, as a reader can check by hand."""
    lines = own_text(STATE, engine_up=True).splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert samples == {
        "qwenhost_restarts_total": "2",
        'qwenhost_failures_total{kind="hung"}': "1",
        'qwenhost_failures_total{kind="worker_died"}': "1",
        "qwenhost_fallbacks_total": "1",
        'qwenhost_status{status="starting"}': "0",
        'qwenhost_status{status="ready"}': "1",
        'qwenhost_status{status="draining"}': "0",
        'qwenhost_status{status="backoff"}': "0",
        'qwenhost_status{status="stopped"}': "0",
        'qwenhost_status{status="failed"}': "0",
        'qwenhost_phase{phase="ready"}': "1",
        "qwenhost_ready_seconds": "61.5",
        'qwenhost_plan_info{label="fp8 TP2 \\"a\\"",model="m",engine="vllm"}': "1",
        "qwenhost_engine_up": "1",
    }
    assert lines[:2] == [
        "# HELP qwenhost_restarts_total Times the engine was started again.",
        "# TYPE qwenhost_restarts_total counter",
    ]


def test_without_the_engine_the_scrape_still_answers() -> None:
    """Nothing listens on port 9: the figures matter most when it is down."""
    assert "qwenhost_engine_up 0\n" in merged_text(STATE, Endpoint("http://127.0.0.1:9", None))


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_beyond_loopback_it_wants_a_key() -> None:
    """Either header; nothing else is served there."""
    server = MetricsServer("127.0.0.1", 0, lambda: "a 1\n", keys=KeyRing("a-long-key", None))
    try:
        assert get(server.port, "/metrics")[0] == 401
        assert get(server.port, "/metrics", Authorization="Bearer a-long-key") == (200, "a 1\n")
        assert get(server.port, "/v1/models", **{"x-api-key": "a-long-key"})[0] == 404
        with pytest.raises(UnavailableError, match="already in use"):
            MetricsServer("127.0.0.1", server.port, lambda: "")
    finally:
        server.close()


def test_a_scrape_of_a_running_service_counts_a_death(plan_file: Path, tmp_path: Path) -> None:
    """Both families on one page; after kill -9 of the engine, one restart and one failure of its kind."""
    port = free_port()
    command = [
        sys.executable, "-m", "qwenhost.cli.main", "serve", str(plan_file), "--engine", "simulated",
        "--startup-seconds", "0.2", "--port", str(free_port()), "--metrics-port", str(port), "--json",
    ]  # fmt: skip
    environ = os.environ | {"QWENHOST_STATE_DIR": str(tmp_path / "state")}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(json.loads(line)["kind"] == "ready" for line in process.stdout)
        status, text = get(port, "/metrics")
        assert status == 200
        assert 'qwenhost_status{status="ready"} 1\n' in text
        assert "\nvllm:num_requests_running{" in text
        assert "qwenhost_restarts_total 0\n" in text
        state = json.loads((tmp_path / "state/default/state.json").read_text())
        os.kill(state["engine_pid"], signal.SIGKILL)
        assert any(json.loads(line)["kind"] == "ready" for line in process.stdout)
        _, text = get(port, "/metrics")
        assert "qwenhost_restarts_total 1\n" in text
        assert 'qwenhost_failures_total{kind="killed"} 1\n' in text
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    with pytest.raises(ConnectionRefusedError):
        get(port, "/metrics")

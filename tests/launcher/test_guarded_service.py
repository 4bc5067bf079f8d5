"""The guard around a whole service: over TLS, with keys that change, on every route."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from e2e.guard_cases import CASES, KEY, Case, name
from test_access import make_certificate

from qwenhost.launcher.access import pinned
from qwenhost.launcher.build import free_port
from qwenhost.launcher.state import ServiceHome, ServiceState

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Guarded:
    """``qwenhost serve`` on a simulated engine, with keys, certificate and limits."""

    home: ServiceHome
    port: int
    certificate: Path
    keys: Path
    process: subprocess.Popen[str]

    @property
    def state(self) -> ServiceState:
        found = self.home.read_state()
        assert found is not None
        return found

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> tuple[int, Any]:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=pinned(str(self.certificate)), timeout=30
        )
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def service(plan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    root = tmp_path_factory.mktemp("guarded")
    certificate, key = make_certificate(root / "tls")
    keys = root / "keys"
    keys.write_text(f"alice: {KEY}\nbob: bob-key-1\n")
    keys.chmod(0o600)
    port = free_port()
    command = [
        sys.executable, "-m", "qwenhost.cli.main", "serve", str(plan_file), "--engine", "simulated",
        "--startup-seconds", "0.2", "--port", str(port), "--api-key-file", str(keys), "--name", "guarded",
        "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--max-body-mib", "0.5",
        "--max-requests-per-minute", "1000", "--served-model-name", "qwen", "--served-model-name", "claude-x",
        "--json",
    ]  # fmt: skip
    environ = os.environ | {"QWENHOST_STATE_DIR": str(root / "state")}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(json.loads(line)["kind"] == "ready" for line in process.stdout)
        yield Guarded(ServiceHome("guarded", root=root / "state"), port, certificate, keys, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_table_of_requests_on_a_running_service(service: Guarded, case: Case) -> None:
    """As the guard alone answers; what it passes on is answered by the engine."""
    status, _ = service.ask(case.method, case.path, case.headers)
    if case.status is None:
        assert status not in (401, 403)
    else:
        assert status == case.status


def test_the_service_is_known_by_its_certificate(service: Guarded) -> None:
    """The state says https and by which certificate; another one is not trusted."""
    assert service.state.base_url == f"https://127.0.0.1:{service.port}"
    assert service.state.ssl_certfile == str(service.certificate)
    stranger, _ = make_certificate(service.certificate.parent, "stranger")
    connection = http.client.HTTPSConnection("127.0.0.1", service.port, context=pinned(str(stranger)))
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/health")
    connection.close()


def test_a_rotated_key_is_known_at_once_and_the_engine_is_not_restarted(service: Guarded) -> None:
    """Bob's key changes; the supervisor goes on with its own."""
    pid = service.state.engine_pid
    question = json.dumps(
        {"model": "claude-x", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}
    ).encode()
    kind = {"Content-Type": "application/json"}
    assert service.ask("POST", "/v1/messages", {"x-api-key": "bob-key-1", **kind}, question)[0] == 200
    new = service.keys.with_name("keys.new")
    new.write_text(f"alice: {KEY}\nbob: bob-key-2\n")
    new.replace(service.keys)
    assert service.ask("POST", "/v1/messages", {"x-api-key": "bob-key-1", **kind}, question)[0] == 401
    assert service.ask("POST", "/v1/messages", {"x-api-key": "bob-key-2", **kind}, question)[0] == 200
    time.sleep(6)  # longer than a pulse of the supervisor
    assert (service.state.status, service.state.engine_pid) == ("ready", pid)


def test_a_body_above_the_limit_is_refused(service: Guarded) -> None:
    """Half a MiB here."""
    status, body = service.ask("POST", "/v1/chat/completions", {"x-api-key": KEY}, b" " * (2**19 + 1))
    assert (status, json.loads(body)["error"]["type"]) == (413, "request_too_large")
    assert service.ask("POST", "/v1/chat/completions", {"x-api-key": KEY}, b" " * 2**19)[0] == 400


def test_no_key_stands_in_a_process_list_a_state_or_a_log(service: Guarded) -> None:
    """Neither the clients' nor the supervisor's own."""
    supervisor = psutil.Process(service.process.pid)
    family = [supervisor, *supervisor.children(recursive=True)]
    assert len(family) == 3, "supervisor, guard, engine"
    own = next(
        variable.removeprefix("VLLM_API_KEY=")
        for variable in Path(f"/proc/{service.state.engine_pid}/environ").read_text().split("\0")
        if variable.startswith("VLLM_API_KEY=")
    )
    assert len(own) > 40
    said = "\0".join(" ".join(process.cmdline()) for process in family).encode()
    said += b"\0".join(path.read_bytes() for path in service.home.path.rglob("*") if path.is_file())
    for secret in (KEY, "bob-key-1", "bob-key-2", own):
        assert secret.encode() not in said

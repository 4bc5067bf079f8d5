"""Real vLLM over TLS: its own server, our certificate, our key guard, our supervisor as its client."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from qwenhost.launcher.access import pinned

from .conftest import API_KEY, Serve, Served

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Signed by itself, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def ask(port: int, certificate: Path, *, key: str | None) -> tuple[int, bytes]:
    """One message, as Anthropic's clients send it, to an engine known by this certificate alone."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=pinned(str(certificate)), timeout=120)
    question = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Content-Type": "application/json"} | ({"x-api-key": key} if key else {})
    try:
        connection.request("POST", "/v1/messages", json.dumps(question), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ask_in_plain(port: int) -> int:
    """Without TLS."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_engine_speaks_tls_and_takes_over_a_renewed_certificate(serve: Serve, tmp_path: Path) -> None:
    """Ready over TLS; plain HTTP and strangers' certificates get nothing; renewal needs no restart."""
    certificate, key = make_certificate(tmp_path, "engine")
    stranger, stranger_key = make_certificate(tmp_path, "stranger")
    served = serve(
        "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--served-model-name", "tiny",
        api_key=API_KEY, name="tls",
    )  # fmt: skip
    first = served.wait_for(lambda state: state.status == "ready")
    assert first.base_url.startswith("https://127.0.0.1:")
    port = int(first.base_url.rpartition(":")[2])

    assert ask(port, certificate, key=API_KEY)[0] == 200
    assert ask(port, certificate, key=None)[0] == 401
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(port, stranger, key=API_KEY)
    with pytest.raises((http.client.HTTPException, OSError)):
        ask_in_plain(port)

    stranger_key.replace(key)
    certificate.write_bytes(stranger.read_bytes())
    assert _renewed(port, certificate), "vLLM goes on with the old certificate"
    time.sleep(6.0)  # one pulse of the supervisor, which must know the engine again
    state = served.state
    assert (state.status, state.engine_pid, state.restarts) == ("ready", first.engine_pid, 0)
    _stop(served)


def _renewed(port: int, certificate: Path) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return ask(port, certificate, key=API_KEY)[0] == 200
        except ssl.SSLCertVerificationError:
            time.sleep(0.5)
    return False


def _stop(served: Served) -> None:
    served.process.terminate()
    assert served.process.wait(60) == 0

"""One scrape: the supervisor's own figures, and behind them those of the engine as it gives them."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, get_args

from qwenhost.errors import UnavailableError
from qwenhost.launcher.state import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from qwenhost.launcher.engine_side.qwenhost_key_guard import KeyRing
    from qwenhost.launcher.health import Endpoint
    from qwenhost.launcher.state import ServiceState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ENGINE_TIMEOUT_S: Final = 5.0


def own_text(state: ServiceState, *, engine_up: bool) -> str:
    """The supervisor's figures in Prometheus' text format."""
    failures = {f'kind="{_escaped(kind)}"': n for kind, n in sorted(state.failure_counts.items())}
    phases = {f'phase="{_escaped(state.phase)}"': 1.0}
    statuses = {f'status="{name}"': float(name == state.status) for name in get_args(Status)}
    plan = {f'label="{_escaped(state.label)}",model="{_escaped(state.model)}",engine="{state.engine}"': 1.0}
    ready = {} if state.ready_s is None else {"": state.ready_s}
    lines = [
        *_family("restarts_total", "counter", "Times the engine was started again.", {"": state.restarts}),
        *_family("failures_total", "counter", "Failures of the engine by kind.", failures),
        *_family("fallbacks_total", "counter", "Fallbacks of the plan in use.", {"": len(state.fallbacks)}),
        *_family("status", "gauge", "1 for the service's status.", statuses),
        *_family("phase", "gauge", "1 for the phase of the engine's start.", phases),
        *_family("ready_seconds", "gauge", "From the engine's start to ready, last time.", ready),
        *_family("plan_info", "gauge", "What runs.", plan),
        *_family("engine_up", "gauge", "Whether the engine's /metrics answered.", {"": float(engine_up)}),
    ]
    return "\n".join(lines) + "\n"


def merged_text(state: ServiceState, endpoint: Endpoint) -> str:
    """The supervisor's figures and the engine's; its own alone where the engine does not answer."""
    engine = ""
    try:
        status, body = endpoint.get("/metrics", timeout_s=_ENGINE_TIMEOUT_S)
        if status == http.client.OK:
            engine = body.decode(errors="replace")
    except (OSError, http.client.HTTPException):
        engine = ""
    return own_text(state, engine_up=bool(engine)) + engine


class MetricsServer:
    """``GET /metrics`` on a port of its own, on a thread of its own, until it is closed.

    Args:
        host: address; beyond loopback ``keys`` must be given.
        port: 0 picks one.
        text: what to answer.
        keys: who may ask; None = everyone who can reach it.

    Raises:
        UnavailableError: the address is in use or may not be bound.
    """

    def __init__(self, host: str, port: int, text: Callable[[], str], *, keys: KeyRing | None = None) -> None:
        handler = type("Handler", (_Handler,), {"text": staticmethod(text), "keys": keys})
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            raise UnavailableError(
                f"--metrics-port {port}: {error.strerror}", remedy="Choose another with --metrics-port."
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.5}, name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    text: Callable[[], str]
    keys: KeyRing | None
    timeout = 10

    def do_GET(self) -> None:
        if self.keys is not None and self.keys.name_of(
            [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        ) is None:  # fmt: skip
            self._answer(401, b"Missing or wrong API key.\n")
        elif self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"Only /metrics is here.\n")
        else:
            self._answer(200, self.text().encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "qwenhost"

    def log_message(self, *_: object) -> None:
        """Scrapes are not news."""


def _family(name: str, kind: str, about: str, samples: Mapping[str, float]) -> Iterable[str]:
    if samples:
        yield f"# HELP qwenhost_{name} {about}"
        yield f"# TYPE qwenhost_{name} {kind}"
    for labels, value in samples.items():
        yield f"qwenhost_{name}{{{labels}}} {value:g}" if labels else f"qwenhost_{name} {value:g}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")

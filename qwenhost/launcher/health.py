"""A conversation with the engine: is it there, can it answer, does it move."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from qwenhost.facts import Value
from qwenhost.launcher.access import pinned

if TYPE_CHECKING:
    from collections.abc import Callable

START_POLL_S: Final = 0.25
_RUNNING: Final = re.compile(r"^vllm:num_requests_running\{?.*?\}? (\S+)$", re.MULTILINE)
# Anything that changes while an engine works: tokens, cache blocks, the queue.
_PROGRESS: Final = re.compile(
    r"^(vllm:(?:generation_tokens_total|prompt_tokens_total|num_requests_running|num_requests_waiting"
    r"|kv_cache_usage_perc)(?:\{.*?\})? \S+)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class BecameReady:
    """``/health`` answered 200 and a completion came back."""

    model: str


@dataclass(frozen=True)
class NotServing:
    """``/health`` answers, but a completion does not."""

    detail: str


@dataclass(frozen=True)
class Pulse:
    """A look at a serving engine."""

    healthy: bool
    detail: str
    running: int | None = None
    """Requests being worked on; None where /metrics did not say."""
    progress: str = ""
    """Changes whenever the engine moves."""


HealthEvent = BecameReady | NotServing | Pulse


class Limits(Value, frozen=True, kw_only=True):
    """How long things may take, in seconds."""

    ready_s: float = 3600.0
    """From the engine's start to ready; loading 120 GB from a network disk takes a while."""
    first_completion_s: float = 600.0
    pulse_every_s: float = 5.0
    pulse_timeout_s: float = 10.0
    unhealthy_pulses: int = 3
    """This many bad answers in a row end the engine; a 503 of /health alone does at once."""
    stall_s: float = 180.0
    """Requests run and nothing moves; a prefill of the whole context takes under a minute."""
    drain_s: float = 30.0
    """For requests in flight, once stopping."""
    term_repeat_s: float = 5.0
    """vLLM swallows a SIGTERM while it starts: repeat, then kill."""
    kill_s: float = 15.0


class Endpoint:
    """The engine's HTTP API, as its supervisor uses it.

    Args:
        base_url: ``http://127.0.0.1:8000``.
        api_key: sent as a bearer token; None = no key.
        ssl_certfile: of the engine; None = plain HTTP.
    """

    def __init__(self, base_url: str, api_key: str | None, *, ssl_certfile: str | None = None) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._certfile = ssl_certfile
        self._tls = pinned(ssl_certfile) if ssl_certfile else None
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def get(self, path: str, *, timeout_s: float) -> tuple[int, bytes]:
        """Status and body.

        Raises:
            OSError: no connection or no answer in time.
            http.client.HTTPException: not an HTTP answer.
        """
        return self._request("GET", path, None, timeout_s)

    def post(self, path: str, body: dict[str, Any], *, timeout_s: float) -> tuple[int, bytes]:
        """Like :meth:`get`, with a JSON body."""
        return self._request("POST", path, json.dumps(body).encode(), timeout_s)

    def _request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        try:
            return self._converse(method, path, body, timeout_s)
        except ssl.SSLCertVerificationError:
            if self._certfile is None:
                raise
            self._tls = pinned(self._certfile)  # the certificate was renewed, and the engine uses it now
            return self._converse(method, path, body, timeout_s)

    def _converse(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
            if self._tls
            else http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        )
        try:
            headers = self._headers | ({"Content-Type": "application/json"} if body else {})
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def is_up(self, *, timeout_s: float = 2.0) -> bool:
        """Whether ``/health`` answers 200."""
        try:
            return self.get("/health", timeout_s=timeout_s)[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def first_completion(self, *, timeout_s: float) -> BecameReady | NotServing:
        """Ask the first served model for one token."""
        try:
            status, body = self.get("/v1/models", timeout_s=timeout_s)
            if status != http.client.OK:
                return NotServing(f"/v1/models answered {status}: {_excerpt(body)}")
            model = str(json.loads(body)["data"][0]["id"])
            question = {
                "model": model,
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 1,
                "temperature": 0,
            }
            status, body = self.post("/v1/chat/completions", question, timeout_s=timeout_s)
            if status != http.client.OK:
                return NotServing(f"/v1/chat/completions answered {status}: {_excerpt(body)}")
            json.loads(body)["choices"][0]
        except (OSError, http.client.HTTPException) as error:
            return NotServing(f"no answer: {str(error) or type(error).__name__}")
        except (ValueError, LookupError, TypeError) as error:
            return NotServing(f"not the answer of an OpenAI-compatible API: {error}")
        return BecameReady(model)

    def pulse(self, *, timeout_s: float) -> Pulse:
        """``/health``, and from ``/metrics`` whether work is going on."""
        try:
            status, body = self.get("/health", timeout_s=timeout_s)
            if status != http.client.OK:
                return Pulse(healthy=False, detail=f"/health answered {status}: {_excerpt(body)}")
            status, body = self.get("/metrics", timeout_s=timeout_s)
        except (OSError, http.client.HTTPException) as error:
            return Pulse(healthy=False, detail=f"/health: {str(error) or type(error).__name__}")
        text = body.decode(errors="replace") if status == http.client.OK else ""
        running = [float(value) for value in _RUNNING.findall(text)]
        return Pulse(
            healthy=True,
            detail="",
            running=int(sum(running)) if running else None,
            progress="\n".join(_PROGRESS.findall(text)),
        )


class HealthMonitor:
    """A thread that asks and enqueues: first for readiness, then for a pulse."""

    def __init__(self, endpoint: Endpoint, limits: Limits, put: Callable[[HealthEvent], None]) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._put = put
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="engine-health", daemon=True).start()

    def stop(self) -> None:
        """Ask no more; does not wait for an answer under way."""
        self._stop.set()

    def _run(self) -> None:
        while not self._endpoint.is_up():
            if self._stop.wait(START_POLL_S):
                return
        answer = self._endpoint.first_completion(timeout_s=self._limits.first_completion_s)
        if self._stop.is_set():
            return
        self._put(answer)
        while not self._stop.wait(self._limits.pulse_every_s):
            self._put(self._endpoint.pulse(timeout_s=self._limits.pulse_timeout_s))


class Liveness:
    """Judges pulses: None while all is well, else what is wrong."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._bad = 0
        self._moved_at = clock()
        self._progress = ""

    def judge(self, pulse: Pulse) -> str | None:
        """``"unhealthy"``, ``"hung"`` or None."""
        now = self._clock()
        self._bad = 0 if pulse.healthy else self._bad + 1
        if self._bad >= self._limits.unhealthy_pulses or " answered 503" in pulse.detail:
            return "unhealthy"
        if not pulse.running or pulse.progress != self._progress or not pulse.healthy:
            self._moved_at, self._progress = now, pulse.progress
            return None
        return "hung" if now - self._moved_at > self._limits.stall_s else None


def _excerpt(body: bytes) -> str:
    return " ".join(body[:200].decode(errors="replace").split())

"""An ASGI middleware for vLLM (``--middleware qwenhost_key_guard.KeyGuard``): what may come in, and whose.

vLLM's own ``--api-key`` guards only paths under /v1, /v2, /inference and /cohere; /invocations, which
is full inference, /tokenize, /metrics and others stay open. It also refuses ``x-api-key``, which
Anthropic's clients send. This guard

- answers 401 to whoever brings no key, on every route but ``GET /health``, and accepts both headers;
- answers 403 on every route that is not for clients: scaling, profiling, sleep, caches, weights, adapters;
- bounds the size of a body (413) and the requests of each key in a minute (429).

Told by the environment: VLLM_API_KEY (the supervisor's own key; vLLM's own check stays on behind it),
QWENHOST_KEY_FILE (more keys, read again when it changes), QWENHOST_MAX_BODY_BYTES,
QWENHOST_MAX_REQUESTS_PER_MINUTE, QWENHOST_OPEN=1 for an engine without keys, on loopback, and
QWENHOST_OPEN_METRICS=1 for /metrics without a key, where a network policy says who reaches it.

Runs inside the engine's environment: the standard library alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import sys
import time
from typing import Any

OPEN_PATHS = frozenset({"/health"})
CLIENT_PREFIXES = ("/v1/", "/v2/")
CLIENT_PATHS = frozenset({
    "/health", "/ping", "/metrics", "/version", "/load", "/tokenize", "/detokenize", "/tokenizer_info",
    "/invocations", "/generative_scoring", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json",
})  # fmt: skip
"""Beside the prefixes. A list of what is served: a route which vLLM adds is shut until it is known."""
CLOSED_PATHS = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
MIN_KEY_LENGTH = 8
SUPERVISOR = "supervisor"

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}):\s+(\S.*)")
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def parse_keys(text: str) -> dict[str, str]:
    """Keys by name: a line ``name: key`` or a bare key each; empty lines and ``#`` comments are skipped.

    Raises:
        ValueError: names the line, never its key.
    """
    found: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        named = _NAMED.fullmatch(line)
        name, key = named.groups() if named else (f"key-{number}", line)
        if len(key) < MIN_KEY_LENGTH or not key.isascii() or " " in key or not key.isprintable():
            message = f"line {number}: not a usable key"
            raise ValueError(message)
        if name in found or name == SUPERVISOR:
            message = f"line {number}: the name {name!r} is taken"
            raise ValueError(message)
        found[name] = key
    if not found:
        message = "no key in it"
        raise ValueError(message)
    return found


class KeyRing:
    """The keys in force, by name.

    Args:
        own: the supervisor's; empty = none.
        path: a file of further keys, read again when it changes; None = none.
    """

    def __init__(self, own: str, path: str | None) -> None:
        self._own = {SUPERVISOR: _digest(own.encode())} if own else {}
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._digests = dict(self._own)
        if path:
            self._read(must=True)

    def name_of(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Whose key a request brings, as a bearer token or as ``x-api-key``; None = nobody's."""
        if self._path:
            self._read()
        found = None
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"authorization":
                scheme, _, token = value.partition(b" ")
                candidate = token.strip() if scheme.lower() == b"bearer" else b""
            elif lowered == b"x-api-key":
                candidate = value.strip()
            else:
                continue
            given = _digest(candidate)
            # Digests of equal length, all of them compared: the time taken says nothing about any key.
            for owner, digest in self._digests.items():
                if hmac.compare_digest(given, digest):
                    found = owner
        return found

    def _read(self, *, must: bool = False) -> None:
        """Take over a changed file; one that is missing or wrong leaves the keys as they were."""
        assert self._path  # noqa: S101 - by the callers
        try:
            stat = os.stat(self._path)  # noqa: PTH116 - on every request
            mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if mark == self._seen:
                return
            with open(self._path, encoding="utf-8") as file:  # noqa: PTH123 - kept free of imports
                keys = parse_keys(file.read())
        except (OSError, ValueError) as error:
            if must:
                raise
            if self._seen is not None:
                _log(f"the key file cannot be used, the keys stay as they were: {error}")
            self._seen = None
            return
        if self._seen is not None or not must:
            _log(f"keys in force: {', '.join(sorted(keys))}")
        self._seen = mark
        self._digests = self._own | {name: _digest(key.encode()) for name, key in keys.items()}


class RateLimit:
    """A bucket of requests for each key, filled evenly; the first minute's worth may come at once.

    Args:
        per_minute: 0 = no limit.
    """

    def __init__(self, per_minute: float, clock: Any = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, name: str) -> float:
        """0 and one request less, or the seconds until the next one may come."""
        if not self._per_minute or name == SUPERVISOR:
            return 0.0
        now = self._clock()
        left, at = self._buckets.get(name, (self._per_minute, now))
        left = min(self._per_minute, left + (now - at) * self._per_minute / 60)
        if left >= 1:
            self._buckets[name] = (left - 1, now)
            return 0.0
        self._buckets[name] = (left, now)
        wait_s: float = (1 - left) * 60 / self._per_minute
        return wait_s


class KeyGuard:
    """Lets a client's request through that carries a key."""

    def __init__(self, app: Any) -> None:
        own = os.environ.get("VLLM_API_KEY", "")
        path = os.environ.get("QWENHOST_KEY_FILE")
        self._open = os.environ.get("QWENHOST_OPEN") == "1" and not (own or path)
        if not own and not self._open:
            message = "KeyGuard needs a key in VLLM_API_KEY"
            raise RuntimeError(message)
        self._app = app
        self._open_paths = OPEN_PATHS | (
            {"/metrics"} if os.environ.get("QWENHOST_OPEN_METRICS") == "1" else set()
        )
        self._keys = KeyRing(own, path)
        self._bearer = b"Bearer " + own.encode()
        self._max_body = int(os.environ.get("QWENHOST_MAX_BODY_BYTES", "0"))
        self._rate = RateLimit(float(os.environ.get("QWENHOST_MAX_REQUESTS_PER_MINUTE", "0")))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse, or pass the request on."""
        kind = scope["type"]
        if kind not in ("http", "websocket") or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        name = "anyone" if self._open else self._keys.name_of(scope["headers"])
        known_path = is_for_clients(scope["path"])
        if kind == "websocket":
            if name is None or not known_path:
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(self._with_bearer(scope), receive, send)
        elif name is None:
            await refuse(send, 401, "Missing or wrong API key.", [(b"www-authenticate", b"Bearer")])
        elif not known_path:
            await refuse(send, 403, "This route is switched off here.")
        else:
            await self._pass_on(scope, receive, send, name)

    def _is_open(self, scope: Any) -> bool:
        known = scope["type"] == "http" and scope["path"] in self._open_paths
        return known and scope["method"] in ("GET", "HEAD")

    async def _pass_on(self, scope: Any, receive: Any, send: Any, name: str) -> None:
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(self._with_bearer(scope), receive, send)
            return
        wait_s = self._rate.wait_s(name)
        if wait_s:
            seconds = str(int(wait_s) + 1)
            await refuse(
                send,
                429,
                f"Too many requests with this key; try again in {seconds} s.",
                [(b"retry-after", seconds.encode())],
            )
            return
        body = await self._body(scope, receive)
        if body is None:
            await refuse(send, 413, f"A request may have {self._max_body:,} bytes.")
            return
        await self._app(self._with_bearer(scope), _replay(body, receive), send)

    async def _body(self, scope: Any, receive: Any) -> list[Any] | None:
        """The messages of the whole body, which vLLM reads as a whole anyway; None if it is too large."""
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if self._max_body and announced.isdigit() and int(announced) > self._max_body:
            return None
        messages, size = [], 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if self._max_body and size > self._max_body:
                return None
            if message["type"] != "http.request" or not message.get("more_body"):
                return messages

    def _with_bearer(self, scope: Any) -> Any:
        """The form that vLLM's own check understands, with the supervisor's key."""
        if self._open:
            return scope
        others = [
            (name, value)
            for name, value in scope["headers"]
            if name.lower() not in (b"authorization", b"x-api-key")
        ]
        return {**scope, "headers": [*others, (b"authorization", self._bearer)]}


def is_for_clients(path: str) -> bool:
    """Whether clients may call a path at all."""
    return path in CLIENT_PATHS or (path.startswith(CLIENT_PREFIXES) and path not in CLOSED_PATHS)


async def refuse(
    send: Any, status: int, message: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """An error that clients of OpenAI's and of Anthropic's API both understand."""
    error = {"type": _KINDS[status], "message": message, "code": status}
    body = json.dumps({"type": "error", "error": error}).encode()
    described = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": described + (headers or [])})
    await send({"type": "http.response.body", "body": body})


def _replay(messages: list[Any], receive: Any) -> Any:
    async def next_message() -> Any:
        return messages.pop(0) if messages else await receive()

    return next_message


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _log(line: str) -> None:
    sys.stderr.write(f"INFO qwenhost key guard: {line}\n")
    sys.stderr.flush()

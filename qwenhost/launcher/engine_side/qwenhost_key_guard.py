"""An ASGI middleware for vLLM (``--middleware qwenhost_key_guard.KeyGuard``): no key, no route.

vLLM's own ``--api-key`` guards only paths under /v1, /v2, /inference and /cohere; /invocations, which
is full inference, /tokenize, /metrics and others stay open. It also refuses ``x-api-key``, which
Anthropic's clients send. This guard answers 401 on every route but ``GET /health`` and accepts both
headers. The key comes from VLLM_API_KEY, so vLLM's own check stays on behind it.

Runs inside the engine's environment: the standard library alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

OPEN_PATHS = frozenset({"/health"})
_BODY = b'{"error":{"message":"Missing or wrong API key.","type":"authentication_error","code":401}}'


class KeyGuard:
    """Lets a request through that carries the key as a bearer token or as ``x-api-key``."""

    def __init__(self, app: Any) -> None:
        key = os.environ.get("VLLM_API_KEY", "")
        if not key:
            message = "KeyGuard needs a key in VLLM_API_KEY"
            raise RuntimeError(message)
        self._app = app
        self._digest = _digest(key.encode())
        self._bearer = b"Bearer " + key.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 401, or pass the request on."""
        if scope["type"] not in ("http", "websocket") or (
            scope["type"] == "http" and scope["path"] in OPEN_PATHS and scope["method"] in ("GET", "HEAD")
        ):
            await self._app(scope, receive, send)
        elif self._knows_key(scope["headers"]):
            await self._app(self._with_bearer(scope), receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(send)

    def _knows_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        known = False
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"authorization":
                scheme, _, token = value.partition(b" ")
                candidate = token.strip() if scheme.lower() == b"bearer" else b""
            elif lowered == b"x-api-key":
                candidate = value.strip()
            else:
                continue
            # Digests of equal length: the comparison's time says nothing about the key.
            known |= hmac.compare_digest(_digest(candidate), self._digest)
        return known

    def _with_bearer(self, scope: Any) -> Any:
        """The form that vLLM's own check understands."""
        others = [
            (name, value)
            for name, value in scope["headers"]
            if name.lower() not in (b"authorization", b"x-api-key")
        ]
        return {**scope, "headers": [*others, (b"authorization", self._bearer)]}


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


async def _refuse(send: Any) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_BODY)).encode()),
        (b"www-authenticate", b"Bearer"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})

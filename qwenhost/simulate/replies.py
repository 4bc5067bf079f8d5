"""Replies and refusals in the shape each API expects, and the guard in front of them."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from qwenhost.simulate.requests import RequestError

OPEN_PATHS = frozenset({"/health", "/ping"})


class KeyGuard:
    """Lets requests with a known key through, by ``Authorization: Bearer`` or ``x-api-key``."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Everything but health checks needs a key."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._known(scope):
            await self._app(scope, receive, send)
            return
        await json_response({"error": "Unauthorized"}, status=401)(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        # Every key is compared, so that the time taken does not tell which one came close.
        return bool(sum([hmac.compare_digest(given, key) for key in self._keys]))


def json_response(content: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def refuse(error: RequestError, path: str) -> Response:
    """An error in the shape of the API it was asked through."""
    if path.startswith("/v1/messages"):
        kinds = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error"}
        body = {"type": kinds.get(error.status, "api_error"), "message": error.message}
        return json_response({"type": "error", "error": body}, error.status)
    details = {"message": error.message, "type": error.kind, "param": None, "code": error.status}
    return json_response({"error": details}, error.status)

"""Replies and refusals in the shape each API expects, and the guard in front of them."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from qwenhost.simulate.requests import INVALID, RequestError, invalid

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS = frozenset({"/health", "/ping"})
ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""vLLM's translation of a status into Anthropic's vocabulary; 500 and up are ``api_error`` besides."""


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


async def read_body(http: Request) -> bytes:
    """The body of a request that says it is JSON.

    Raises:
        RequestError: it says something else, or nothing.
    """
    kind = http.headers.get("content-type", "").lower().partition(";")[0]
    if kind != "application/json":
        raise invalid("Unsupported Media Type: Only 'application/json' is allowed")
    return await http.body()


def refuse(error: RequestError, path: str) -> Response:
    """An error in the shape of the API it was asked through.

    What vLLM's request models refuse never reaches the handler of an API, so it has OpenAI's shape in all.
    """
    if path.startswith("/v1/messages") and error.kind != INVALID:
        content = anthropic_error(error)
    else:
        details = {"message": error.message, "type": error.kind, "param": error.param, "code": error.status}
        content = {"error": details}
    response = json_response(content, error.status)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(error.retry_after_s)
    return response


def anthropic_error(error: RequestError) -> dict[str, Any]:
    """An error as Anthropic's clients know it."""
    kind = ANTHROPIC_KINDS.get(error.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


async def no_route(_: Request, error: Exception) -> Response:
    """Unknown paths and methods, as FastAPI answers them."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return json_response({"detail": error.detail}, error.status_code)

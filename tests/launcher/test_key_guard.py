"""The guard inside the engine, driven as any ASGI application is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwenhost.launcher.engine_side.qwenhost_key_guard import KeyGuard
from qwenhost.launcher.process import ENGINE_SIDE

KEY = "a-secret-key"


class App:
    """Remembers what reached it."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def guard(app: App, monkeypatch: pytest.MonkeyPatch) -> KeyGuard:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    return KeyGuard(app)


def call(guard: KeyGuard, path: str, *, kind: str = "http", method: str = "GET", **headers: str) -> list[Any]:
    """What the guard itself sent."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "method": method, "headers": raw}
    asyncio.run(guard(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/models", "/invocations", "/metrics", "/health/", "//health", "/health/../v1/models", "/docs"],
)
def test_no_key_no_route(guard: KeyGuard, app: App, path: str) -> None:
    """401, and the engine never sees the request."""
    sent = call(guard, path)
    assert sent[0]["status"] == 401
    assert app.scopes == []


def test_health_is_open_for_reading_only(guard: KeyGuard, app: App) -> None:
    """Load balancers ask it without a key."""
    assert call(guard, "/health") == []
    assert call(guard, "/health", method="POST")[0]["status"] == 401
    assert len(app.scopes) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {KEY}"},
        {"x_api_key": KEY},
        {"X_Api_Key": KEY},
    ],
)
def test_either_header_opens_and_vllm_sees_a_bearer_token(
    guard: KeyGuard, app: App, headers: dict[str, str]
) -> None:
    """VLLM's own check stays on behind the guard and knows bearer tokens only."""
    assert call(guard, "/v1/messages", method="POST", **headers) == []
    assert app.scopes[0]["headers"] == [(b"authorization", b"Bearer a-secret-key")]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {KEY}x"},
        {"x_api_key": KEY[:-1]},
        {"x_api_key": ""},
        {"x_goog_api_key": KEY},
    ],
)
def test_a_wrong_key_stays_outside(guard: KeyGuard, app: App, headers: dict[str, str]) -> None:
    """Other schemes, cut keys, other headers."""
    assert call(guard, "/v1/models", **headers)[0]["status"] == 401
    assert app.scopes == []


def test_a_websocket_wants_the_key_too(guard: KeyGuard, app: App) -> None:
    """Closed before it is accepted; with the key it passes."""
    assert call(guard, "/v1/realtime", kind="websocket") == [{"type": "websocket.close", "code": 1008}]
    call(guard, "/v1/realtime", kind="websocket", x_api_key=KEY)
    assert len(app.scopes) == 1


def test_start_and_end_of_the_server_pass(guard: KeyGuard, app: App) -> None:
    """ASGI's lifespan is no request."""
    call(guard, "", kind="lifespan")
    assert len(app.scopes) == 1


def test_without_a_key_the_engine_does_not_start(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open engine would be worse than none."""
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(RuntimeError, match="VLLM_API_KEY"):
        KeyGuard(app)


@pytest.mark.parametrize("file", sorted(path.name for path in Path(ENGINE_SIDE).glob("qwenhost_*.py")))
def test_it_needs_nothing_but_the_standard_library(file: str) -> None:
    """The engine's environment has its own packages; -S hides even those."""
    code = f"import sys; sys.path.insert(0, {str(ENGINE_SIDE)!r}); import {file.removesuffix('.py')}"
    subprocess.run([sys.executable, "-I", "-S", "-W", "error", "-c", code], check=True, timeout=30)

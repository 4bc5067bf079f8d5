"""The guard inside the engine, driven as any ASGI application is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.guard_cases import CASES, KEY, Case, name

from qwenhost.launcher.engine_side.qwenhost_key_guard import KeyGuard, RateLimit, parse_keys
from qwenhost.launcher.process import ENGINE_SIDE


class App:
    """Remembers what reached it."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http" and scope["method"] == "POST":
            body, more = b"", True
            while more:
                message = await receive()
                body += message["body"]
                more = message["more_body"]
            self.bodies.append(body)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def guard(app: App, monkeypatch: pytest.MonkeyPatch) -> KeyGuard:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    return KeyGuard(app)


def call(
    guard: KeyGuard,
    path: str,
    *,
    kind: str = "http",
    method: str = "GET",
    chunks: tuple[bytes, ...] = (b"",),
    headers: dict[str, str] | None = None,
) -> list[Any]:
    """What the guard itself sent."""
    sent: list[Any] = []
    left = list(chunks)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": kind, "path": path, "method": method, "headers": raw}
    asyncio.run(guard(scope, receive, send))
    return sent


BEARER = {"authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_table_of_requests(guard: KeyGuard, app: App, case: Case) -> None:
    """Refused with this status, and the engine never sees it; or passed on."""
    sent = call(guard, case.path, method=case.method, headers=case.headers)
    assert [message["status"] for message in sent[:1]] == ([case.status] if case.status else [])
    assert len(app.scopes) == (0 if case.status else 1)


@pytest.mark.parametrize("header", [BEARER, {"x-api-key": KEY}])
def test_vllm_sees_a_bearer_token(guard: KeyGuard, app: App, header: dict[str, str]) -> None:
    """VLLM's own check stays on behind the guard and knows bearer tokens only."""
    assert call(guard, "/v1/messages", method="POST", headers=header) == []
    assert app.scopes[0]["headers"] == [(b"authorization", b"Bearer a-secret-key")]


def test_a_websocket_wants_the_key_too(guard: KeyGuard, app: App) -> None:
    """Closed before it is accepted; with the key it passes."""
    closed = [{"type": "websocket.close", "code": 1008}]
    assert call(guard, "/v1/realtime", kind="websocket") == closed
    assert call(guard, "/elsewhere", kind="websocket", headers=BEARER) == closed
    call(guard, "/v1/realtime", kind="websocket", headers=BEARER)
    assert len(app.scopes) == 1


def test_start_and_end_of_the_server_pass(guard: KeyGuard, app: App) -> None:
    """ASGI's lifespan is no request."""
    call(guard, "", kind="lifespan")
    assert len(app.scopes) == 1


def test_without_a_key_the_engine_does_not_start(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open engine would be worse than none; it must be asked for by name."""
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(RuntimeError, match="VLLM_API_KEY"):
        KeyGuard(app)


def test_an_engine_without_keys_still_has_no_routes_for_strangers(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On loopback anyone may ask, but not scale, pause or reload it; a key set as well wins."""
    monkeypatch.setenv("QWENHOST_OPEN", "1")
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    guard = KeyGuard(app)
    assert call(guard, "/v1/chat/completions", method="POST") == []
    assert call(guard, "/scale_elastic_ep", method="POST")[0]["status"] == 403
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    assert call(KeyGuard(app), "/v1/models")[0]["status"] == 401


# ------------------------------------------------------------------------------ several keys, rotated


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys"
    path.write_text("alice: alice-key-1\nbob: bob-key-1\n")
    monkeypatch.setenv("QWENHOST_KEY_FILE", str(path))
    return path


def status(guard: KeyGuard, key: str) -> int:
    """200 where the request passed."""
    sent = call(guard, "/v1/models", headers={"x-api-key": key})
    return int(sent[0]["status"]) if sent else 200


def test_keys_change_without_a_restart(key_file: Path, guard: KeyGuard) -> None:
    """Carol comes, Alice goes, Bob's is replaced; the supervisor's own always works."""
    assert [status(guard, key) for key in ("alice-key-1", "bob-key-1", KEY)] == [200, 200, 200]
    replacement = key_file.with_name("new")
    replacement.write_text("bob: bob-key-2\ncarol: carol-key-1\n")
    replacement.replace(key_file)
    keys = ("alice-key-1", "bob-key-1", "bob-key-2", "carol-key-1", KEY)
    assert [status(guard, key) for key in keys] == [401, 401, 200, 200, 200]


@pytest.mark.parametrize("text", [None, "", "short\n", "# nothing\n"])
def test_a_key_file_that_breaks_leaves_the_keys_as_they_were(
    key_file: Path, guard: KeyGuard, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, emptied or wrong: nobody is let in or locked out by accident; the log names no key."""
    key_file.unlink()
    if text is not None:
        key_file.write_text(text)
    assert [status(guard, key) for key in ("alice-key-1", "short", "")] == [200, 401, 401]
    said = capsys.readouterr().err
    assert "the keys stay as they were" in said
    assert "alice-key-1" not in said
    key_file.write_text("dora: dora-key-1\n")
    assert [status(guard, key) for key in ("alice-key-1", "dora-key-1")] == [401, 200]
    assert "keys in force: dora" in capsys.readouterr().err


def test_the_log_names_owners_and_no_keys(
    key_file: Path, guard: KeyGuard, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a rotation."""
    key_file.write_text("zoe: zoe-key-123\n")
    os.utime(key_file, (1, 1))
    status(guard, "x")
    assert capsys.readouterr().err == "INFO qwenhost key guard: keys in force: zoe\n"


def test_a_key_file_wrong_from_the_start_stops_the_engine(
    app: App, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it serves anyone."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    key_file.write_text("")
    with pytest.raises(ValueError, match="no key"):
        KeyGuard(app)


def test_lines_of_a_key_file() -> None:
    """Named, bare, commented; a colon without a space belongs to the key."""
    text = "# team\nalice: k-alice-0\n\nbare-key-1\nwith:colon:inside\n"
    assert parse_keys(text) == {"alice": "k-alice-0", "key-4": "bare-key-1", "key-5": "with:colon:inside"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alice: k-alice-0\nalice: k-alice-1", "line 2: the name 'alice' is taken"),
        ("supervisor: something", "line 1: the name 'supervisor' is taken"),
        ("alice: short", "line 1: not a usable key"),
        ("two words here", "line 1: not a usable key"),
        ("schlüssel-99", "line 1: not a usable key"),
        ("\n# x\n", "no key in it"),
    ],
)
def test_a_wrong_line_is_named_and_its_key_is_not(text: str, said: str) -> None:
    """The message may end up in a log."""
    with pytest.raises(ValueError, match=f"^{said}$"):
        parse_keys(text)


# ------------------------------------------------------------------------------ size and rate


def test_a_body_of_the_limit_passes_whole_and_one_byte_more_does_not(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Announced by Content-Length, or sent in chunks."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv("QWENHOST_MAX_BODY_BYTES", "10")
    guard = KeyGuard(app)
    assert call(guard, "/v1/messages", method="POST", headers=BEARER, chunks=(b"12345", b"67890")) == []
    assert app.bodies == [b"1234567890"]
    sent = call(guard, "/v1/messages", method="POST", headers=BEARER, chunks=(b"12345", b"678901", b"2"))
    assert sent[0]["status"] == 413
    assert b'"request_too_large"' in sent[1]["body"]
    announced = BEARER | {"content-length": "11"}
    assert call(guard, "/v1/messages", method="POST", headers=announced)[0]["status"] == 413
    assert len(app.scopes) == 1


def test_each_key_has_its_own_rate(key_file: Path, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two a minute: Alice's third is refused, Bob's first is not; asking /metrics counts for nothing."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv("QWENHOST_MAX_REQUESTS_PER_MINUTE", "2")
    guard = KeyGuard(app)
    alice, bob = {"x-api-key": "alice-key-1"}, {"x-api-key": "bob-key-1"}
    assert [call(guard, "/metrics", headers=alice) for _ in range(9)] == [[]] * 9
    answers = [call(guard, "/v1/messages", method="POST", headers=alice) for _ in range(3)]
    assert answers[:2] == [[], []]
    assert answers[2][0]["status"] == 429
    assert dict(answers[2][0]["headers"])[b"retry-after"] in (b"30", b"31")
    assert call(guard, "/v1/messages", method="POST", headers=bob) == []
    assert [call(guard, "/v1/messages", method="POST", headers=BEARER) for _ in range(5)] == [[]] * 5


def test_the_bucket_fills_evenly() -> None:
    """Six a minute is one every ten seconds, and never more than six at once."""
    now = [0.0]
    limit = RateLimit(6, clock=lambda: now[0])
    assert [limit.wait_s("a") for _ in range(7)] == [0, 0, 0, 0, 0, 0, 10]
    now[0] = 4.0
    assert limit.wait_s("a") == pytest.approx(6)
    now[0] = 10.0
    assert limit.wait_s("a") == 0
    now[0] = 1e6
    assert [limit.wait_s("a") > 0 for _ in range(7)] == [False] * 6 + [True]


@pytest.mark.parametrize("file", sorted(path.name for path in Path(ENGINE_SIDE).glob("qwenhost_*.py")))
def test_it_needs_nothing_but_the_standard_library(file: str) -> None:
    """The engine's environment has its own packages; -S hides even those."""
    code = f"import sys; sys.path.insert(0, {str(ENGINE_SIDE)!r}); import {file.removesuffix('.py')}"
    subprocess.run([sys.executable, "-I", "-S", "-W", "error", "-c", code], check=True, timeout=30)


def test_metrics_may_be_opened_and_nothing_else(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a network policy guards the port, a scraper without a key gets /metrics, by reading alone."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv("QWENHOST_OPEN_METRICS", "1")
    guard = KeyGuard(app)
    assert call(guard, "/metrics") == []
    assert call(guard, "/metrics", method="POST")[0]["status"] == 401
    assert call(guard, "/v1/models")[0]["status"] == 401
    assert [scope["path"] for scope in app.scopes] == ["/metrics"]

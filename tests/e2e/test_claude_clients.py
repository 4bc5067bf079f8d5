"""Anthropic's own client against real vLLM, through our guard: what Claude Code and the SDK will meet."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from .guard_cases import CASES, KEY, Case, name
from .test_serve_vllm import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Serve, Served

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

ALIAS = "claude-sonnet-4-6"
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
NO_THINKING: dict[str, Any] = {"thinking": {"type": "disabled"}}
TOOL: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"alice: {KEY}\nbob: bob-key-1\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def engine(serve: Serve, keys: Path) -> Served:
    """With tools, thinking and pictures, under two names, for two people."""
    served = serve(
        "--api-key-file", str(keys), "--served-model-name", "tiny", "--served-model-name", ALIAS,
        "--max-body-mib", "1",
        "--extra-arg", "--no-language-model-only", name="claude",
    )  # fmt: skip
    served.wait_for(lambda state: state.status == "ready")
    return served


@pytest.fixture(scope="module")
def claude(engine: Served) -> Iterator[anthropic.Anthropic]:
    """As ``ANTHROPIC_BASE_URL`` and ``ANTHROPIC_API_KEY`` make it."""
    with anthropic.Anthropic(base_url=engine.base_url, api_key=KEY, max_retries=0) as client:
        yield client


def test_a_message_comes_back(claude: anthropic.Anthropic) -> None:
    """By x-api-key, under the alias; the answer gives the first name."""
    answer = claude.messages.create(model=ALIAS, max_tokens=8, messages=HELLO, system="Be brief.")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "tiny")
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 8)


def test_a_bearer_token_does_as_well(engine: Served) -> None:
    """As ``ANTHROPIC_AUTH_TOKEN`` makes it."""
    with anthropic.Anthropic(base_url=engine.base_url, auth_token="bob-key-1", max_retries=0) as client:
        assert client.messages.create(model=ALIAS, max_tokens=2, messages=HELLO).usage.output_tokens == 2


def test_openais_client_gets_in_too(engine: Served) -> None:
    """The same engine, the same alias."""
    with openai.OpenAI(base_url=f"{engine.base_url}/v1", api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(model=ALIAS, max_tokens=4, messages=HELLO)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_tokens_are_counted_as_they_are_charged(claude: anthropic.Anthropic) -> None:
    """count_tokens and the usage of the answer agree."""
    counted = claude.messages.count_tokens(model=ALIAS, messages=HELLO).input_tokens
    answer = claude.messages.create(model=ALIAS, max_tokens=2, messages=HELLO)
    assert counted == answer.usage.input_tokens


def test_thinking_is_on_unless_switched_off(claude: anthropic.Anthropic) -> None:
    """The other way round than at Anthropic; both ways are said in docs/claude-clients.md."""
    thought = claude.messages.create(model=ALIAS, max_tokens=8, messages=HELLO)
    assert [block.type for block in thought.content] == ["thinking"]
    plain = claude.messages.create(model=ALIAS, max_tokens=8, messages=HELLO, **NO_THINKING)
    assert [block.type for block in plain.content] == ["text"]


@pytest.mark.parametrize(("options", "kind"), [({}, "thinking"), (NO_THINKING, "text")])
def test_a_stream_is_whole(claude: anthropic.Anthropic, options: dict[str, Any], kind: str) -> None:
    """The SDK's own parser takes every event, in Anthropic's order, and adds them up."""
    with claude.messages.stream(model=ALIAS, max_tokens=12, messages=HELLO, **options) as stream:
        events = [event.type for event in stream]
        answer = stream.get_final_message()
    assert events[:2] == ["message_start", "content_block_start"]
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events.count(kind) >= 8
    assert [block.type for block in answer.content] == [kind]
    assert answer.usage.output_tokens == 12


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "get_weather"}, {"type": "any"}])
def test_a_tool_is_called(claude: anthropic.Anthropic, choice: Any) -> None:
    """Where it must be: even random weights then write a call."""
    answer = claude.messages.create(
        model=ALIAS, max_tokens=48, messages=HELLO, tools=[TOOL], tool_choice=choice, **NO_THINKING
    )
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert (call.name, isinstance(call.input, dict)) == ("get_weather", True)


def test_a_tool_call_streams(claude: anthropic.Anthropic) -> None:
    """As Claude Code asks for it."""
    with claude.messages.stream(
        model=ALIAS, max_tokens=48, messages=HELLO, tools=[TOOL],
        tool_choice={"type": "tool", "name": "get_weather"}, **NO_THINKING,
    ) as stream:  # fmt: skip
        answer = stream.get_final_message()
    assert [block.name for block in answer.content if block.type == "tool_use"] == ["get_weather"]


def test_a_tools_result_goes_back(claude: anthropic.Anthropic) -> None:
    """The second turn of a tool loop: call and result lengthen the prompt."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "20 degrees"}
    turns = [*HELLO, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    asked = claude.messages.create(model=ALIAS, max_tokens=2, messages=HELLO, tools=[TOOL])
    answered = claude.messages.create(model=ALIAS, max_tokens=2, messages=turns, tools=[TOOL])
    assert answered.usage.input_tokens > asked.usage.input_tokens + 10


def test_a_picture_is_seen(claude: anthropic.Anthropic) -> None:
    """A token for each 32 x 32 pixels: four of one, one of the other."""

    def prompt_tokens(side: int) -> int:
        data = base64.b64encode(png(side)).decode()
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
        asked: list[Any] = [{"role": "user", "content": [picture, {"type": "text", "text": "Hello there"}]}]
        return claude.messages.create(model=ALIAS, max_tokens=2, messages=asked).usage.input_tokens

    assert prompt_tokens(64) - prompt_tokens(32) == 4 - 1


def test_marks_for_a_cache_are_taken_and_do_nothing(claude: anthropic.Anthropic) -> None:
    """VLLM caches prefixes by itself; the fields of Anthropic's bill stay empty."""
    system: Any = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    answer = claude.messages.create(model=ALIAS, max_tokens=2, messages=HELLO, system=system)
    assert answer.usage.cache_read_input_tokens is None


def test_a_stop_sequence_ends_an_answer(claude: anthropic.Anthropic) -> None:
    """And is named."""
    answer = claude.messages.create(
        model=ALIAS, max_tokens=200, messages=HELLO, stop_sequences=["e"], **NO_THINKING
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "e")


def test_refusals_become_the_clients_own_exceptions(claude: anthropic.Anthropic, engine: Served) -> None:
    """The guard's bodies are Anthropic's; vLLM's own errors at least have the status."""
    with (
        anthropic.Anthropic(base_url=engine.base_url, api_key="wrong-key-1", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError, match="Missing or wrong API key"),
    ):
        stranger.messages.create(model=ALIAS, max_tokens=2, messages=HELLO)
    with pytest.raises(anthropic.NotFoundError, match="Valid aliases: tiny, claude-sonnet-4-6"):
        claude.messages.create(model="claude-opus", max_tokens=2, messages=HELLO)
    with pytest.raises(anthropic.APIStatusError, match="request_too_large") as caught:
        claude.messages.create(model=ALIAS, max_tokens=2, messages=[{"role": "user", "content": "x" * 2**20}])
    assert caught.value.status_code == 413


# ------------------------------------------------------------------------------ the guard, on the real engine


@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_table_of_requests_on_real_vllm(engine: Served, case: Case) -> None:
    """As the guard alone answers."""
    status, _ = ask(engine.base_url + case.path, method=case.method, headers=case.headers)
    if case.status is None:
        assert status not in (401, 403)
    else:
        assert status == case.status


def test_routes_that_are_not_for_clients_are_shut_to_every_key(engine: Served) -> None:
    """Of the routes in the engine's own list; those that remain are named here, so that a new one is seen."""
    served = set()
    for path, methods in re.findall(r"Route: (\S+), Methods: ([A-Z, ]+)", engine.home.log_file.read_text()):
        concrete = re.sub(r"\{.*?\}", "x", path)
        method = "POST" if "POST" in methods else "GET"
        status, said = ask(engine.base_url + concrete, method=method, headers={"x-api-key": KEY})
        if status != 403 or b"switched off here" not in said:
            served.add(path)
    beside_v1 = {path for path in served if not path.startswith("/v1/")}
    assert beside_v1 <= {
        "/health", "/ping", "/metrics", "/version", "/load", "/tokenize", "/detokenize", "/invocations",
        "/generative_scoring", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json",
    }  # fmt: skip
    assert {"/v1/messages", "/v1/chat/completions", "/v1/models"} <= served


def test_a_key_is_rotated_on_a_running_engine(engine: Served, keys: Path) -> None:
    """Bob's new key works at once, his old one does not, the engine is the same, the log names no key."""
    pid = engine.state.engine_pid
    new = keys.with_name("new")
    new.write_text(f"alice: {KEY}\nbob: bob-key-2\n")
    new.replace(keys)
    statuses = [
        ask(f"{engine.base_url}/v1/models", headers={"x-api-key": key})[0]
        for key in ("bob-key-1", "bob-key-2", KEY)
    ]
    assert statuses == [401, 200, 200]
    assert (engine.state.status, engine.state.engine_pid) == ("ready", pid)
    log = engine.home.log_file.read_text()
    assert "keys in force: alice, bob" in log
    assert "bob-key" not in log


def png(side: int) -> bytes:
    """A red square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\xc8\x1e\x1e" * side for _ in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body

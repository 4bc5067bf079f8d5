"""The four dialects, request and answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qwenhost.probe.bodies import Ask, auth_headers, request_body
from qwenhost.probe.endpoints import Endpoint, StreamDecoder, decoder


def body(endpoint: Endpoint, **options: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"model": "m", "prompt": "hello", "max_tokens": 5}
    ask = Ask(**(defaults | options))
    decoded: dict[str, Any] = msgspec.json.decode(request_body(endpoint, ask))
    return decoded


def feed(endpoint: Endpoint, *values: Any) -> StreamDecoder:
    """Decode events that arrive at 1, 2, 3..."""
    stream = decoder(endpoint)
    for arrival, value in enumerate(values, start=1):
        stream.feed(float(arrival), value if isinstance(value, bytes) else msgspec.json.encode(value))
    return stream


def test_chat_asks_for_usage_in_the_stream() -> None:
    """Without include_usage the server would not say how many tokens it made."""
    assert body("chat") == {
        "model": "m",
        "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
        "max_completion_tokens": 5,
        "stream_options": {"include_usage": True},
    }


def test_exact_output_is_vllms_ignore_eos_and_min_tokens() -> None:
    """Both are needed: one lets it go on past the end token, the other past stop strings."""
    sent = body("completions", exact_output=True)
    assert (sent["max_tokens"], sent["min_tokens"], sent["ignore_eos"]) == (5, 5, True)


def test_thinking_is_switched_through_the_chat_template() -> None:
    """False is sent; None leaves the server's default."""
    assert body("chat", thinking=False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in body("chat")


def test_each_api_has_its_own_name_for_the_limit() -> None:
    """responses: max_output_tokens and input; messages: max_tokens."""
    assert body("responses")["max_output_tokens"] == 5
    assert body("responses")["input"] == [{"role": "user", "content": "hello"}]
    assert body("messages")["max_tokens"] == 5


def test_messages_carries_the_key_both_ways() -> None:
    """VLLM takes only the bearer token, Anthropic only x-api-key."""
    assert dict(auth_headers("messages", "k")) == {
        "Authorization": "Bearer k", "x-api-key": "k", "anthropic-version": "2023-06-01",
    }  # fmt: skip
    assert auth_headers("chat", None) == []


def chat(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def test_chat_knows_thinking_from_speaking() -> None:
    """The role chunk carries nothing; thinking counts as tokens, not as visible."""
    stream = feed(
        "chat",
        chat({"role": "assistant", "content": ""}),
        chat({"reasoning": "hm"}),
        chat({"reasoning_content": "hm"}),
        chat({"content": "yes"}),
        chat({}, "stop"),
        {"choices": [], "usage": {
            "prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 5}}},
        b"[DONE]",
    )  # fmt: skip
    assert stream.chunk_times == [2, 3, 4]
    assert stream.first_visible == 4
    assert (stream.prompt_tokens, stream.output_tokens, stream.cached_tokens) == (9, 7, 4)
    assert stream.reasoning_tokens == 5
    assert stream.ended
    assert stream.error is None


def test_a_tool_call_is_visible_text() -> None:
    """An empty list of tool calls is not."""
    stream = feed("chat", chat({"tool_calls": []}), chat({"tool_calls": [{"index": 0}]}))
    assert stream.chunk_times == [2]
    assert stream.first_visible == 2


def test_completions_count_text() -> None:
    """Empty text carries nothing."""
    stream = feed("completions", {"choices": [{"text": ""}]}, {"choices": [{"text": "a"}]})
    assert stream.chunk_times == [2]


def test_responses_take_usage_from_the_completed_event() -> None:
    """Deltas of reasoning and of text, then the totals."""
    stream = feed(
        "responses",
        {"type": "response.created", "response": {"id": "r", "usage": None}},
        {"type": "response.reasoning_text.delta", "delta": "hm"},
        {"type": "response.output_text.delta", "delta": "yes"},
        {"type": "response.completed", "response": {"usage": {
            "input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1},
            "output_tokens_details": {"reasoning_tokens": 1}}}},
    )  # fmt: skip
    assert stream.chunk_times == [2, 3]
    assert stream.first_visible == 3
    assert (stream.prompt_tokens, stream.output_tokens, stream.reasoning_tokens) == (9, 2, 1)
    assert stream.ended


def test_messages_add_cached_input_to_the_prompt() -> None:
    """Anthropic counts uncached, written and read input apart: 5 + 20 + 100."""
    stream = feed(
        "messages",
        {"type": "message_start", "message": {"usage": {
            "input_tokens": 5, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100,
            "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "ping"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "yes"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 12}},
        {"type": "message_stop"},
    )  # fmt: skip
    assert (stream.prompt_tokens, stream.cached_tokens, stream.output_tokens) == (125, 100, 12)
    assert stream.chunk_times == [2, 4]
    assert stream.first_visible == 4
    assert stream.ended


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses", "messages"])
def test_what_is_not_json_is_a_malformed_event(endpoint: Endpoint) -> None:
    """Noted once, never raised."""
    stream = feed(endpoint, b'{"choices": [', b"{}")
    assert stream.error == "malformed_event"


@pytest.mark.parametrize(
    ("endpoint", "event"),
    [
        ("chat", {"error": {"message": "dead", "code": 500}}),
        ("completions", {"error": {"message": "dead"}}),
        ("responses", {"type": "error", "message": "dead"}),
        ("responses", {"type": "response.failed", "response": {"error": {"message": "dead"}}}),
        ("messages", {"type": "error", "error": {"type": "api_error", "message": "dead"}}),
    ],
)
def test_an_error_inside_a_stream_is_seen(endpoint: Endpoint, event: dict[str, Any]) -> None:
    """HTTP said 200 long before."""
    stream = feed(endpoint, event)
    assert stream.error == "server_error"
    assert "dead" in stream.detail

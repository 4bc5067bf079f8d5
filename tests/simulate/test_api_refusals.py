"""What is refused, with which status and in whose shape.

vLLM refuses in two places: its request models, before any handler (type ``Bad Request``, OpenAI's shape on
every route, ``exception_handling/handlers/validation.py``), and behind them (type ``BadRequestError`` and
such; Anthropic's shape on its routes, ``anthropic/api_router.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from live_engine import LiveEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from live_engine import Reply

CHAT, TEXT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
USER = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "qwen", "messages": USER, "max_tokens": 4},
    TEXT: {"model": "qwen", "prompt": "Hello", "max_tokens": 4},
    MESSAGES: {"model": "qwen", "messages": USER, "max_tokens": 4},
    RESPONSES: {"model": "qwen", "input": "Hello", "max_output_tokens": 4},
}
TOOL = {"type": "function", "function": {"name": "weather"}}
NAMED = {"type": "function", "function": {"name": "weather"}}


def refused(reply: Reply, status: int, kind: str, param: str | None) -> str:
    """The text of an error in OpenAI's shape, which has exactly these fields."""
    assert reply.status == status, reply.body
    assert reply.headers["x-qwenhost-simulated"] == "true"
    assert reply.headers["content-type"] == "application/json"
    error = reply.json["error"]
    assert set(reply.json) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == (kind, param, status)
    return str(error["message"])


def refused_as_anthropic(reply: Reply, status: int, kind: str) -> str:
    """The text of an error in Anthropic's shape."""
    assert reply.status == status, reply.body
    assert set(reply.json) == {"type", "error"}
    assert reply.json["type"] == "error"
    assert set(reply.json["error"]) == {"type", "message"}
    assert reply.json["error"]["type"] == kind
    return str(reply.json["error"]["message"])


class TestBodies:
    @pytest.mark.parametrize("path", [*BODIES, "/tokenize", "/detokenize", "/v1/messages/count_tokens"])
    @pytest.mark.parametrize("body", [b"{", b"", b"[]", b'"text"', b"\xff\xfe", b"nul", b"[" * 3000])
    def test_what_is_no_object(self, plain: LiveEngine, path: str, body: bytes) -> None:
        """400, also where it is nested beyond all measure; the body is at fault."""
        reply = plain.ask(path, body, method="POST")
        message = refused(reply, 400, "Bad Request", "body")
        assert message.startswith("1 validation error:\n  ")

    @pytest.mark.parametrize("path", BODIES)
    @pytest.mark.parametrize(
        "kind", ["text/plain", "", "application/x-www-form-urlencoded", "application/jsonx"]
    )
    def test_what_does_not_say_it_is_json(self, plain: LiveEngine, path: str, kind: str) -> None:
        """A client that forgets the header fails here as it would on vLLM."""
        reply = plain.ask(path, BODIES[path], content_type=kind)
        message = refused(reply, 400, "Bad Request", None)
        assert "Unsupported Media Type: Only 'application/json' is allowed" in message

    @pytest.mark.parametrize(
        "kind", ["application/json; charset=utf-8", "Application/JSON", "application/json;"]
    )
    def test_json_under_other_spellings(self, plain: LiveEngine, kind: str) -> None:
        """Parameters and capitals do not matter."""
        assert plain.ask(CHAT, BODIES[CHAT], content_type=kind).status == 200

    @pytest.mark.parametrize(
        ("path", "fields", "param"),
        [
            (CHAT, {"messages": 3}, "body.messages"),
            (CHAT, {"messages": [{"role": "user"}, {"content": "x"}]}, "body.messages.1.role"),
            (CHAT, {"messages": [{"role": 1, "content": "x"}]}, "body.messages.0.role"),
            (CHAT, {"messages": [{"role": "user", "content": 5}]}, "body.messages.0.content"),
            (CHAT, {"max_tokens": "ten"}, "body.max_tokens"),
            (CHAT, {"stream": "maybe"}, "body.stream"),
            (CHAT, {"stop": {"a": 1}}, "body.stop"),
            (CHAT, {"temperature": "hot"}, "body.temperature"),
            (CHAT, {"tools": "weather"}, "body.tools"),
            (TEXT, {"prompt": 5}, "body.prompt"),
            (TEXT, {"logprobs": "all"}, "body.logprobs"),
            (MESSAGES, {"max_tokens": None}, "body.max_tokens"),
            (MESSAGES, {"model": None}, "body.model"),
            (MESSAGES, {"messages": [{"role": "tool", "content": "x"}]}, "body.messages.0.role"),
            (MESSAGES, {"messages": [{"role": "user", "content": None}]}, "body.messages.0.content"),
            (MESSAGES, {"system": 5}, "body.system"),
            (RESPONSES, {"input": None}, "body.input"),
            (RESPONSES, {"input": [3]}, "body.input.0"),
            (RESPONSES, {"metadata": {"a": 1}}, "body.metadata"),
        ],
    )
    def test_a_field_of_the_wrong_type(
        self, plain: LiveEngine, path: str, fields: dict[str, Any], param: str
    ) -> None:
        """The field is named as vLLM names it: body, then where in it."""
        refused(plain.ask(path, BODIES[path] | fields), 400, "Bad Request", param)

    @pytest.mark.parametrize(
        ("path", "field"),
        [
            (CHAT, "messages"),
            (MESSAGES, "messages"),
            (MESSAGES, "max_tokens"),
            (MESSAGES, "model"),
            (RESPONSES, "input"),
        ],
    )
    def test_a_field_that_is_missing(self, plain: LiveEngine, path: str, field: str) -> None:
        """It is named."""
        body = {name: value for name, value in BODIES[path].items() if name != field}
        message = refused(plain.ask(path, body), 400, "Bad Request", f"body.{field}")
        assert field in message

    @pytest.mark.parametrize("path", BODIES)
    def test_fields_nobody_knows_are_ignored(self, plain: LiveEngine, path: str) -> None:
        """As vLLM's models allow extras."""
        assert plain.ask(path, BODIES[path] | {"frobnicate": {"a": [1]}}).status == 200


class TestModels:
    @pytest.mark.parametrize("path", [CHAT, TEXT, RESPONSES])
    def test_an_unknown_one(self, plain: LiveEngine, path: str) -> None:
        """404 and the field."""
        reply = plain.ask(path, BODIES[path] | {"model": "other"})
        assert refused(reply, 404, "NotFoundError", "model") == "The model `other` does not exist."

    @pytest.mark.parametrize("path", [MESSAGES, "/v1/messages/count_tokens"])
    def test_in_anthropics_words(self, plain: LiveEngine, path: str) -> None:
        """``not_found_error``, for counting too."""
        reply = plain.ask(path, BODIES[MESSAGES] | {"model": "other"})
        assert refused_as_anthropic(reply, 404, "not_found_error") == "The model `other` does not exist."

    def test_an_empty_name(self, plain: LiveEngine) -> None:
        """OpenAI's routes take the first model, Anthropic's insist."""
        assert plain.ask(CHAT, BODIES[CHAT] | {"model": ""}).status == 200
        reply = plain.ask(MESSAGES, BODIES[MESSAGES] | {"model": ""})
        assert "Model is required" in refused(reply, 400, "Bad Request", "body.model")


class TestRequestModels:
    """Refused by vLLM's validators: each text and field is from ``protocol.py``."""

    @pytest.mark.parametrize(
        ("path", "fields", "param", "text"),
        [
            (
                CHAT,
                {"stream_options": {"include_usage": True}},
                "stream_options",
                "only be defined when `stream=True`",
            ),
            (
                TEXT,
                {"stream_options": {"include_usage": True}},
                "stream_options",
                "only be defined when `stream=True`",
            ),
            (CHAT, {"top_logprobs": 2}, "top_logprobs", "`logprobs` must be set to true"),
            (CHAT, {"tools": []}, "tools", "`tools` must not be an empty array."),
            (CHAT, {"tool_choice": "auto"}, "tool_choice", "When using `tool_choice`, `tools` must be set."),
            (CHAT, {"tool_choice": NAMED}, "tool_choice", "When using `tool_choice`, `tools` must be set."),
            (
                CHAT,
                {"tools": [TOOL], "tool_choice": "always"},
                "tool_choice",
                "Invalid value for `tool_choice`: always!",
            ),
            (
                CHAT,
                {"tools": [TOOL], "tool_choice": {"type": "function"}},
                "tool_choice.function.name",
                "Expected field `name`",
            ),
            (
                CHAT,
                {"tools": [TOOL], "tool_choice": {"function": {"name": "x"}}},
                "tool_choice",
                "does not match any",
            ),
            (
                CHAT,
                {"stop": ["a", "b", "c", "d", "e"]},
                "body.stop",
                "at most 4 items after validation, not 5",
            ),
            (
                TEXT,
                {"prompt": ""},
                "prompt",
                "Either prompt or prompt_embeds must be provided and non-empty.",
            ),
            (MESSAGES, {"stop_sequences": list("abcde")}, "body.stop_sequences", "at most 4 items"),
            (MESSAGES, {"max_tokens": 0}, "body.max_tokens", "max_tokens must be positive"),
            (MESSAGES, {"max_tokens": -3}, "body.max_tokens", "max_tokens must be positive"),
            (MESSAGES, {"thinking": {"type": "maybe"}}, "body.thinking", "'enabled', 'disabled', 'adaptive'"),
            (MESSAGES, {"thinking": {"type": "enabled"}}, "body.thinking.enabled.budget_tokens", "1024"),
            (
                MESSAGES,
                {"thinking": {"type": "enabled", "budget_tokens": 1023}},
                "body.thinking.enabled.budget_tokens",
                "1024",
            ),
            (
                MESSAGES,
                {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1024},
                "body",
                "must be less than max_tokens",
            ),
            (MESSAGES, {"tool_choice": {"type": "tool"}}, "body.tool_choice", "tool_choice.name is required"),
            (RESPONSES, {"tool_choice": "required"}, "tool_choice", "must be specified with 'tools'"),
        ],
    )
    def test_a_field(
        self, plain: LiveEngine, path: str, fields: dict[str, Any], param: str, text: str
    ) -> None:
        """In OpenAI's shape on every route, Anthropic's too: no handler has seen it yet."""
        assert text in refused(plain.ask(path, BODIES[path] | fields), 400, "Bad Request", param)

    @pytest.mark.parametrize(
        ("path", "fields"),
        [
            (CHAT, {"stream_options": None}),
            (CHAT, {"stream_options": {}}),
            (CHAT, {"stop": ["a", "b", "c", "d"]}),
            (CHAT, {"tool_choice": "none"}),
            (CHAT, {"tool_choice": None}),
            (CHAT, {"top_logprobs": 0}),
            (CHAT, {"tools": [TOOL], "tool_choice": "required"}),
            (CHAT, {"n": 1, "temperature": 2.0, "top_p": 1.0, "top_k": -1}),
            (CHAT, {"temperature": 0}),
            (MESSAGES, {"thinking": None, "system": None, "stop_sequences": None}),
            (MESSAGES, {"tool_choice": {"type": "any"}}),
            (RESPONSES, {"tool_choice": "auto", "tools": None}),
        ],
    )
    def test_what_is_just_allowed(self, plain: LiveEngine, path: str, fields: dict[str, Any]) -> None:
        """The other side of each limit."""
        reply = plain.ask(path, BODIES[path] | fields)
        assert reply.status == 200, reply.body


class TestSampling:
    """Refused by ``SamplingParams``, behind the handlers."""

    CASES = (
        ({"temperature": -0.1}, "temperature", "temperature must be non-negative, got -0.1."),
        ({"temperature": 2.5}, "temperature", "temperature must be in [0, 2], got 2.5."),
        ({"top_p": 0}, "top_p", "top_p must be in (0, 1], got 0.0."),
        ({"top_p": 1.5}, "top_p", "top_p must be in (0, 1], got 1.5."),
        ({"top_k": -2}, None, "top_k must be 0 (disable), or at least 1, got -2."),
    )

    @pytest.mark.parametrize("path", [CHAT, TEXT, RESPONSES])
    @pytest.mark.parametrize(("fields", "param", "text"), CASES)
    def test_in_openais_shape(
        self, plain: LiveEngine, path: str, fields: dict[str, Any], param: str | None, text: str
    ) -> None:
        """A BadRequestError with the parameter."""
        assert refused(plain.ask(path, BODIES[path] | fields), 400, "BadRequestError", param) == text

    @pytest.mark.parametrize(("fields", "param", "text"), CASES)
    def test_in_anthropics_shape(
        self, plain: LiveEngine, fields: dict[str, Any], param: str | None, text: str
    ) -> None:
        """It has no place for the parameter."""
        del param
        reply = plain.ask(MESSAGES, BODIES[MESSAGES] | fields)
        assert refused_as_anthropic(reply, 400, "invalid_request_error") == text

    @pytest.mark.parametrize(
        ("path", "fields", "param", "text"),
        [
            (CHAT, {"max_tokens": 0}, "max_tokens", "max_tokens must be at least 1, got 0."),
            (CHAT, {"max_completion_tokens": -1}, "max_tokens", "max_tokens must be at least 1, got -1."),
            (RESPONSES, {"max_output_tokens": 0}, "max_tokens", "max_tokens must be at least 1, got 0."),
            (CHAT, {"min_tokens": -1}, None, "min_tokens must be greater than or equal to 0, got -1."),
            (CHAT, {"min_tokens": 5}, None, "min_tokens must be less than or equal to max_tokens=4, got 5."),
            (CHAT, {"n": 0}, None, "n must be at least 1, got 0."),
            (CHAT, {"stop": ""}, None, "stop cannot contain an empty string."),
            (CHAT, {"stop": ["a", ""]}, None, "stop cannot contain an empty string."),
            # Not simulated, and said so rather than answered without.
            (CHAT, {"n": 2}, "n", "n above 1 is not simulated"),
            (CHAT, {"logprobs": True}, "logprobs", "logprobs are not simulated"),
            (TEXT, {"logprobs": 0}, "logprobs", "logprobs are not simulated"),
        ],
    )
    def test_lengths_and_numbers(
        self, plain: LiveEngine, path: str, fields: dict[str, Any], param: str | None, text: str
    ) -> None:
        """The text is vLLM's."""
        assert refused(plain.ask(path, BODIES[path] | fields), 400, "BadRequestError", param) == text

    def test_an_answer_nobody_kept(self, plain: LiveEngine) -> None:
        """Responses are not stored: 404 in vLLM's odd words."""
        reply = plain.ask(RESPONSES, BODIES[RESPONSES] | {"previous_response_id": "resp_1"})
        text = refused(reply, 404, "invalid_request_error", "response_id")
        assert text == "Response with id 'resp_1' not found."

    def test_an_empty_conversation(self, plain: LiveEngine) -> None:
        """Even without a message the template leaves three tokens, so it is answered."""
        assert plain.post(CHAT, BODIES[CHAT] | {"messages": []})["usage"]["prompt_tokens"] == 3

    @pytest.mark.parametrize("prompt", ["   ", [], [""]])
    def test_an_empty_prompt(self, plain: LiveEngine, prompt: Any) -> None:
        """Nothing to go on from."""
        reply = plain.ask(TEXT, BODIES[TEXT] | {"prompt": prompt})
        assert refused(reply, 400, "BadRequestError", None) == "the prompt is empty"

    def test_refusals_leave_nothing_behind(self, start_live: Callable[..., LiveEngine]) -> None:
        """No place in the queue, no counter."""
        engine = start_live()
        for fields in ({"max_tokens": 0}, {"model": "other"}, {"max_tokens": 3000}):
            assert engine.ask(CHAT, BODIES[CHAT] | fields).status in (400, 404)
        assert engine.host.in_flight == 0
        assert engine.metrics()['vllm:prompt_tokens_total{engine="0",model_name="qwen"}'] == 0


class TestKeys:
    @pytest.mark.parametrize("path", [*BODIES, "/tokenize", "/detokenize", "/v1/messages/count_tokens"])
    def test_posts_need_one(self, keyed: LiveEngine, path: str) -> None:
        """401 in vLLM's words, before the body is looked at."""
        reply = keyed.ask(path, b"{", method="POST")
        assert (reply.status, reply.json) == (401, {"error": "Unauthorized"})
        assert reply.headers["x-qwenhost-simulated"] == "true"

    @pytest.mark.parametrize(
        "header",
        [
            {"authorization": "Bearer alpha"},
            {"authorization": "bearer beta"},
            {"authorization": "Bearer  alpha "},
            {"x_api_key": "beta"},
            {"authorization": "Basic zzz", "x_api_key": "alpha"},
        ],
    )
    def test_either_header(self, keyed: LiveEngine, header: dict[str, str]) -> None:
        """OpenAI's clients send the one, Anthropic's the other."""
        assert keyed.ask("/v1/models", **header).status == 200

    @pytest.mark.parametrize(
        "header",
        [
            {},
            {"authorization": "Bearer"},
            {"authorization": "Bearer alph"},
            {"authorization": "Bearer alphaa"},
            {"authorization": "alpha"},
            {"authorization": "Basic alpha"},
            {"x_api_key": ""},
            {"x_api_key": "ALPHA"},
            # A wrong bearer is not mended by a right key beside it.
            {"authorization": "Bearer wrong", "x_api_key": "alpha"},
        ],
    )
    def test_what_is_no_key(self, keyed: LiveEngine, header: dict[str, str]) -> None:
        """A part of one, another scheme, another spelling."""
        assert keyed.ask("/v1/models", **header).status == 401

    @pytest.mark.parametrize(
        ("path", "status"), [("/health", 200), ("/ping", 200), ("/metrics", 401), ("/x", 401)]
    )
    def test_what_is_open(self, keyed: LiveEngine, path: str, status: int) -> None:
        """Health alone; nobody learns which routes there are."""
        assert keyed.ask(path).status == status


@pytest.fixture(scope="module")
def keyed() -> Iterator[LiveEngine]:
    """With two keys."""
    engine = LiveEngine(keys=("alpha", "beta"))
    yield engine
    engine.end()

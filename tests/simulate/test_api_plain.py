"""Routes that generate nothing: health, version, models, tokens, load; and what is no route at all.

Field names are those of vLLM 0.33's response models (``entrypoints/serve``, ``entrypoints/openai/models``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.simulate.prompts import Message, chat_tokens, system_texts
from qwenhost.simulate.text import PIECES, TEMPLATE_TOKENS_PER_MESSAGE, token_id, token_text, tokenize

if TYPE_CHECKING:
    from collections.abc import Callable

    from live_engine import LiveEngine

PATHS = ("/health", "/ping", "/version", "/load", "/metrics", "/v1/models")
POSTS = (
    "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/tokenize", "/detokenize",
    "/v1/messages/count_tokens",
)  # fmt: skip
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


class TestRoutes:
    @pytest.mark.parametrize("path", PATHS)
    def test_they_answer_and_are_labelled(self, plain: LiveEngine, path: str) -> None:
        """200, with the label in both headers."""
        reply = plain.ask(path)
        assert reply.status == 200
        assert reply.headers["server"] == "qwenhost-simulated"
        assert reply.headers["x-qwenhost-simulated"] == "true"

    @pytest.mark.parametrize("path", POSTS)
    def test_what_is_posted_is_not_got(self, plain: LiveEngine, path: str) -> None:
        """405 in FastAPI's shape, and labelled like any answer."""
        reply = plain.ask(path)
        assert (reply.status, reply.json) == (405, {"detail": "Method Not Allowed"})
        assert reply.headers["x-qwenhost-simulated"] == "true"

    @pytest.mark.parametrize("path", ["/", "/v1", "/v1/embeddings", "/v1/responses/resp_1", "/metricsx"])
    def test_what_is_no_route(self, plain: LiveEngine, path: str) -> None:
        """404 in FastAPI's shape."""
        reply = plain.ask(path)
        assert (reply.status, reply.json) == (404, {"detail": "Not Found"})
        assert reply.headers["content-type"] == "application/json"

    def test_ping_may_be_posted(self, plain: LiveEngine) -> None:
        """As SageMaker does; health may not."""
        assert plain.ask("/ping", method="POST").status == 200
        assert plain.ask("/health", method="POST").status == 405

    def test_health_has_no_body(self, plain: LiveEngine) -> None:
        """The status says it."""
        assert plain.ask("/health").body == b""

    def test_the_version_is_vllms_and_says_what_it_is(self, plain: LiveEngine) -> None:
        """One field more than vLLM's."""
        assert plain.ask("/version").json == {"version": "0.33.0", "simulated": True}

    def test_every_name_has_a_card(self, plain: LiveEngine) -> None:
        """The fields of ``ModelCard``, and the label."""
        found = plain.ask("/v1/models").json
        assert found["object"] == "list"
        assert [card["id"] for card in found["data"]] == ["qwen", "alias"]
        for card in found["data"]:
            assert set(card) == {
                "id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission",
                "simulated",
            }  # fmt: skip
            assert (card["object"], card["root"], card["max_model_len"]) == ("model", "Qwen/test", 2000)
            assert (card["owned_by"], card["simulated"]) == ("qwenhost-simulated", True)

    def test_load_counts_what_is_in_flight(self, start_live: Callable[..., LiveEngine]) -> None:
        """None, then one while a stream is read."""
        engine = start_live(step_ms=20)
        assert engine.ask("/load").json == {"server_load": 0}
        stream = engine.stream("/v1/completions", {"prompt": "x", "max_tokens": 500, "ignore_eos": True})
        next(stream)
        assert engine.ask("/load").json == {"server_load": 1}
        stream.close()  # type: ignore[attr-defined]
        engine.wait_for(lambda: engine.ask("/load").json == {"server_load": 0})


class TestTokenize:
    @pytest.mark.parametrize(
        ("text", "tokens"),
        [
            ("Once upon", ["Once", "upon"]),
            ("tokenize", ["toke", "nize"]),  # four letters each
            ("a-b", ["a", "-", "b"]),
            ("  \n ", []),
            ("x_1234567", ["x_12", "3456", "7"]),
            ("Grüße!", ["Grüß", "e", "!"]),
        ],
    )
    def test_a_text(self, plain: LiveEngine, text: str, tokens: list[str]) -> None:
        """Runs of up to four letters, or one other character; the fields of ``TokenizeResponse``."""
        found = plain.post("/tokenize", {"prompt": text, "return_token_strs": True})
        if not tokens:
            assert found == {"count": 0, "max_model_len": 2000, "tokens": [], "token_strs": []}
            return
        assert set(found) == {"count", "max_model_len", "tokens", "token_strs"}
        assert (found["count"], found["token_strs"]) == (len(tokens), tokens)
        assert len(found["tokens"]) == len(tokens)

    def test_token_texts_only_where_asked_for(self, plain: LiveEngine) -> None:
        """Null otherwise."""
        assert plain.post("/tokenize", {"prompt": "a"})["token_strs"] is None

    def test_equal_tokens_have_equal_numbers_and_others_have_not(self, plain: LiveEngine) -> None:
        """``ab`` and ``ba`` hold the same letters."""
        first, second, third = plain.post("/tokenize", {"prompt": "ab ba ab"})["tokens"]
        assert first == third != second

    def test_a_conversation(self, plain: LiveEngine) -> None:
        """A message of two tokens: 4 marks of its own, 3 of the prompt."""
        body = {"messages": [{"role": "user", "content": "Once upon"}]}
        assert plain.post("/tokenize", body)["count"] == 2 + 4 + 3

    def test_what_is_charged_is_what_is_counted(self, plain: LiveEngine) -> None:
        """Messages with tools, an image and a tool's result: the chat's own count."""
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "see", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "a cat"},
        ]
        counted = plain.post("/tokenize", {"messages": messages, "tools": [TOOL]})["count"]
        answer = plain.post("/v1/chat/completions", {"messages": messages, "tools": [TOOL], "max_tokens": 1})
        assert answer["usage"]["prompt_tokens"] == counted

    def test_an_unknown_model(self, plain: LiveEngine) -> None:
        """As everywhere."""
        for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [97]})):
            reply = plain.ask(path, {"model": "other", **body})
            assert (reply.status, reply.json["error"]["type"]) == (404, "NotFoundError")
            assert reply.json["error"]["param"] == "model"
            assert plain.ask(path, {"model": "alias", **body}).status == 200


class TestDetokenize:
    def test_it_gives_back_what_was_counted(self, plain: LiveEngine) -> None:
        """Tokens apart: spaces are no tokens here."""
        tokens = plain.post("/tokenize", {"prompt": "tokenize this."})["tokens"]
        assert plain.post("/detokenize", {"tokens": tokens}) == {"prompt": "toke nize this ."}

    @pytest.mark.parametrize(
        ("tokens", "where"),
        [([-1], "body.tokens.0"), ([2**63], "body.tokens.0"), (["a"], "body.tokens.0"), ("a", "body.tokens")],
    )
    def test_what_is_no_token(self, plain: LiveEngine, tokens: Any, where: str) -> None:
        """``ge=0, le=2**63 - 1``, by name."""
        reply = plain.ask("/detokenize", {"tokens": tokens})
        assert reply.status == 400
        assert reply.json["error"]["param"] == where

    def test_a_number_of_no_token(self, plain: LiveEngine) -> None:
        """The replacement character, not an error."""
        assert plain.post("/detokenize", {"tokens": [2**63 - 1, 0xFF]}) == {"prompt": "� �"}

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=40))
    def test_numbers_survive_there_and_back(self, text: str) -> None:
        """Whatever was told back has the same tokens; a token beyond seven bytes says so."""
        tokens = tokenize(text)
        known = [token for token in tokens if len(token.encode(errors="surrogatepass")) <= 7]
        known = [
            token for token in known if token == token.encode(errors="replace").decode() and token != "\0"
        ]
        assert [token_text(token_id(token)) for token in known] == known
        assert all(0 <= token_id(token) < 2**63 for token in tokens)
        told = " ".join(token_text(token_id(token)) for token in known)
        assert tokenize(told) == known

    def test_words_of_answers_are_one_token_each(self) -> None:
        """So that the count of an answer's text is its count of tokens, wherever it begins."""
        assert all(len(tokenize(piece)) == 1 for piece in PIECES)
        for start in range(len(PIECES)):
            text = "".join(PIECES[(start + index) % len(PIECES)] for index in range(30))
            assert len(tokenize(text)) == 30


class TestCountTokens:
    def test_the_shape(self, plain: LiveEngine) -> None:
        """``AnthropicCountTokensResponse``: no ``max_tokens`` is needed to count."""
        body = {"model": "qwen", "messages": [{"role": "user", "content": "Once upon"}]}
        found = plain.post("/v1/messages/count_tokens", body)
        assert found == {"input_tokens": 9, "context_management": {"original_input_tokens": 9}}

    @pytest.mark.parametrize(
        ("fields", "more"),
        [
            ({"system": "Be brief."}, 4 + TEMPLATE_TOKENS_PER_MESSAGE),  # Be brie f .
            ({"system": [{"type": "text", "text": "Be"}, {"type": "text", "text": " brief"}]}, 3 + 4),
            # The line with which Claude Code names each request anew is dropped, as vLLM does.
            ({"system": [{"type": "text", "text": "x-anthropic-billing-header: cc=1"}]}, 0),
            ({"tools": [{"name": "a", "input_schema": {}}]}, None),
        ],
    )
    def test_what_adds_to_it(self, plain: LiveEngine, fields: dict[str, Any], more: int | None) -> None:
        """Each counted with the template's four marks."""
        body = {"model": "qwen", "messages": [{"role": "user", "content": "Once upon"}]}
        found = plain.post("/v1/messages/count_tokens", body | fields)["input_tokens"] - 9
        if more is None:
            # [{"name":"a","input_schema":{}}]: 4 brackets and braces, name and a in 4 quotes, colon,
            # comma, input_schema as inpu t_sc hema in 2 quotes, colon, 2 braces
            assert found == 4 + 6 + 1 + 1 + 5 + 1 + 2 + TEMPLATE_TOKENS_PER_MESSAGE
        else:
            assert found == more

    def test_it_is_what_a_message_is_charged(self, plain: LiveEngine) -> None:
        """With blocks of every kind that a conversation holds."""
        blocks: list[dict[str, Any]] = [
            {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image", "source": {}}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "I should look.", "signature": "x"},
                    {"type": "tool_use", "id": "t1", "name": "see", "input": {"what": "cat"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [{"type": "text", "text": "a cat"}],
                    }
                ],
            },
            {"role": "system", "content": "Be brief."},
        ]
        body = {
            "model": "qwen",
            "messages": blocks,
            "system": "You see.",
            "tools": [{"name": "see", "input_schema": {}}],
        }
        counted = plain.post("/v1/messages/count_tokens", body)["input_tokens"]
        usage = plain.post("/v1/messages", body | {"max_tokens": 1})["usage"]
        assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted

    def test_system_texts_are_one_message_wherever_they_stood(self, plain: LiveEngine) -> None:
        """Qwen's template takes no system message but the first, so vLLM merges them."""
        inline = [{"role": "system", "content": "Two"}, {"role": "user", "content": "x"}]
        apart = plain.post(
            "/v1/messages/count_tokens", {"model": "qwen", "system": "One. ", "messages": inline}
        )
        merged = plain.post(
            "/v1/messages/count_tokens",
            {"model": "qwen", "system": "One. Two", "messages": inline[1:]},
        )
        assert apart == merged


class TestPromptTokens:
    @pytest.mark.parametrize(
        ("content", "tokens"),
        [
            (None, 0),
            ("Once upon", 2),
            ([{"type": "text", "text": "Once"}, {"type": "text", "text": "upon"}], 2),
            ([IMAGE], 1024),
            ([{"type": "input_image", "image_url": "x"}], 1024),
            ([{"type": "tool_result", "content": "a cat"}], 2),
            ([{"type": "tool_result", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], 1025),
            ([{"type": "tool_use", "name": "see", "input": {}}], 3),  # see { }
            ([{"type": "thinking", "thinking": "Hm."}], 2),
            ([{"type": "redacted_thinking", "data": "AAAA"}], 0),
        ],
    )
    def test_parts_of_a_message(self, content: Any, tokens: int) -> None:
        """Beside the template's marks."""
        assert len(chat_tokens([Message("user", content)])) - 4 - 3 == tokens

    def test_calls_of_tools_count(self) -> None:
        """Name and arguments: see { } are three."""
        message = Message("assistant", tool_calls=[{"function": {"name": "see", "arguments": "{}"}}])
        assert len(chat_tokens([message])) - 4 - 3 == 3

    @pytest.mark.parametrize(
        ("content", "texts"),
        [
            (None, []),
            ("", []),
            ("Be brief.", ["Be brief."]),
            ("x-anthropic-billing-header: 1", []),
            ([{"type": "text", "text": "A"}, {"type": "image"}, {"type": "text"}], ["A"]),
        ],
    )
    def test_system_texts(self, content: Any, texts: list[str]) -> None:
        """Texts only, without the billing line."""
        assert system_texts(content) == texts

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.text(max_size=20), max_size=6))
    def test_messages_add_up(self, texts: list[str]) -> None:
        """Three marks, and for each message four and its own tokens."""
        found = len(chat_tokens([Message("user", text) for text in texts]))
        assert found == 3 + sum(4 + len(re.findall(r"\w{1,4}|[^\w\s]", text)) for text in texts)

"""Anthropic's messages and OpenAI's responses: every event and field.

After ``entrypoints/anthropic`` (``AnthropicMessagesResponse``, ``message_stream_converter``) and
``entrypoints/openai/responses`` (``ResponsesResponse``, ``streaming_events``) of vLLM 0.33.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from live_engine import Event, LiveEngine

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
USER = [{"role": "user", "content": "Tell me something."}]
LONG = [{"role": "user", "content": "word " * 60}]  # 60 + 7 marks: four whole blocks of 16
OFF = {"thinking": {"type": "disabled"}}
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def message(**fields: Any) -> dict[str, Any]:
    """Exactly ten tokens."""
    return {"model": "qwen", "messages": USER, "max_tokens": 10, "ignore_eos": True} | fields


def response(**fields: Any) -> dict[str, Any]:
    """Exactly ten tokens."""
    return {
        "model": "qwen",
        "input": "Tell me something.",
        "max_output_tokens": 10,
        "ignore_eos": True,
    } | fields


def kinds(events: list[Event]) -> list[str]:
    """Types in order; the name of an event must be its type."""
    assert all(event.name == event.data["type"] for event in events)
    return [event.data["type"] for event in events]


class TestMessage:
    def test_every_field(self, live: LiveEngine) -> None:
        """Dumped without nulls: ``stop_sequence`` is there only where one ended it."""
        answer = live.post(MESSAGES, message())
        assert set(answer) == {"id", "type", "role", "model", "content", "stop_reason", "usage"}
        assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", "qwen")
        assert answer["stop_reason"] == "max_tokens"
        thinking, text = answer["content"]
        assert set(thinking) == {"type", "thinking", "signature"}
        assert set(text) == {"type", "text"}
        assert len(thinking["signature"]) == 32

    @pytest.mark.parametrize(
        ("fields", "blocks"),
        [
            ({}, ["thinking", "text"]),
            (OFF, ["text"]),
            ({"chat_template_kwargs": {"enable_thinking": False}}, ["text"]),
            ({"chat_template_kwargs": {"enable_thinking": True}, **OFF}, ["thinking", "text"]),
            ({"thinking": {"type": "adaptive"}}, ["thinking", "text"]),
            (
                {
                    "thinking": {"type": "enabled", "budget_tokens": 1024},
                    "max_tokens": 1100,
                    "ignore_eos": False,
                },
                ["thinking", "text"],
            ),
            ({"output_config": {"effort": "low"}}, ["thinking", "text"]),
        ],
    )
    def test_what_switches_thinking(
        self, live: LiveEngine, fields: dict[str, Any], blocks: list[str]
    ) -> None:
        """Disabled is the effort none, and the template's own switch goes before it."""
        answer = live.post(MESSAGES, message(**fields))
        assert [block["type"] for block in answer["content"]] == blocks

    @pytest.mark.parametrize(("limit", "reason"), [(500, "end_turn"), (40, "max_tokens"), (12, "max_tokens")])
    def test_why_it_ended(self, plain: LiveEngine, limit: int, reason: str) -> None:
        """A natural answer has forty tokens."""
        answer = plain.post(MESSAGES, message(max_tokens=limit, ignore_eos=False))
        assert (answer["stop_reason"], answer["usage"]["output_tokens"]) == (reason, min(limit, 40))

    def test_a_stop_sequence_is_named(self, plain: LiveEngine) -> None:
        """In the answer and at the end of the stream; the text ends before it."""
        words = plain.post(MESSAGES, message(max_tokens=40))["content"][0]["text"].split(" ")
        body = message(max_tokens=40, stop_sequences=["##", words[3]])
        answer = plain.post(MESSAGES, body)
        assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", words[3])
        assert not answer["content"][0]["text"].endswith(words[3])
        events = list(plain.stream(MESSAGES, body))
        assert events[-2].data["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": words[3]}
        deltas = [e.data["delta"]["text"] for e in events if e.name == "content_block_delta"]
        assert "".join(deltas) == answer["content"][0]["text"]
        assert all(deltas)

    def test_an_empty_answer_has_one_empty_block(self, plain: LiveEngine) -> None:
        """Stopped at its first letter: strict clients read ``content[0]``."""
        first = plain.post(MESSAGES, message())["content"][0]["text"][0]
        answer = plain.post(MESSAGES, message(stop_sequences=[first]))
        assert answer["content"] == [{"type": "text", "text": ""}]
        assert answer["stop_reason"] == "stop_sequence"

    def test_thinking_and_then_nothing(self, live: LiveEngine) -> None:
        """Stopped at the first visible letter: no text block, whole or streamed."""
        first = live.post(MESSAGES, message())["content"][1]["text"][0]
        body = message(stop_sequences=[first])
        assert [block["type"] for block in live.post(MESSAGES, body)["content"]] == ["thinking"]
        events = list(live.stream(MESSAGES, body))
        opened = [e.data["content_block"]["type"] for e in events if e.name == "content_block_start"]
        assert opened == ["thinking"]
        assert kinds(events)[-3:] == ["content_block_stop", "message_delta", "message_stop"]

    def test_cached_input_is_counted_apart(self, start_live: Callable[..., LiveEngine]) -> None:
        """67 tokens of prompt, 64 of them in whole blocks of 16: input is what is left."""
        engine = start_live()
        used = [engine.post(MESSAGES, message(messages=LONG))["usage"] for _ in range(2)]
        assert used == [
            {"input_tokens": 67, "output_tokens": 10, "cache_read_input_tokens": 0},
            {"input_tokens": 3, "output_tokens": 10, "cache_read_input_tokens": 64},
        ]

    def test_a_stream_tells_of_the_cache_at_its_end(self, start_live: Callable[..., LiveEngine]) -> None:
        """Its first event has the whole prompt: vLLM knows no details before the last chunk."""
        engine = start_live()
        for cached in (0, 64):
            events = list(engine.stream(MESSAGES, message(messages=LONG)))
            assert events[0].data["message"]["usage"] == {"input_tokens": 67, "output_tokens": 0}
            assert events[-2].data["usage"] == {
                "input_tokens": 67 - cached, "output_tokens": 10, "cache_read_input_tokens": cached,
            }  # fmt: skip


class TestMessageStream:
    def test_every_event(self, live: LiveEngine) -> None:
        """Five thoughts, signed, then five words."""
        events = list(live.stream(MESSAGES, message()))
        assert kinds(events) == [
            "message_start",
            "content_block_start", *["content_block_delta"] * 6, "content_block_stop",
            "content_block_start", *["content_block_delta"] * 5, "content_block_stop",
            "message_delta", "message_stop",
        ]  # fmt: skip
        deltas = [event.data["delta"]["type"] for event in events if event.name == "content_block_delta"]
        assert deltas == ["thinking_delta"] * 5 + ["signature_delta"] + ["text_delta"] * 5
        assert [event.data["index"] for event in events if "index" in event.data] == [0] * 8 + [1] * 7

    def test_its_first_event(self, live: LiveEngine) -> None:
        """The nulls are set by hand in vLLM, so they are there."""
        start = next(iter(live.stream(MESSAGES, message()))).data["message"]
        assert set(start) == {
            "id", "type", "role", "content", "model", "stop_reason", "stop_sequence", "usage",
        }  # fmt: skip
        assert (start["content"], start["stop_reason"], start["stop_sequence"]) == ([], None, None)

    def test_blocks_open_empty(self, live: LiveEngine) -> None:
        """The signature comes as a delta of its own."""
        events = list(live.stream(MESSAGES, message()))
        opened = [event.data["content_block"] for event in events if event.name == "content_block_start"]
        assert opened == [{"type": "thinking", "thinking": ""}, {"type": "text", "text": ""}]

    def test_it_says_what_the_whole_answer_says(self, live: LiveEngine) -> None:
        """Texts and signature."""
        whole = live.post(MESSAGES, message(max_tokens=30))["content"]
        deltas = [e.data["delta"] for e in live.stream(MESSAGES, message(max_tokens=30)) if "delta" in e.data]
        for index, field in ((0, "thinking"), (0, "signature"), (1, "text")):
            assert "".join(delta.get(field, "") for delta in deltas) == whole[index][field]

    def test_without_thinking(self, plain: LiveEngine) -> None:
        """One block, the first."""
        events = list(plain.stream(MESSAGES, message(max_tokens=1)))
        assert kinds(events) == [
            "message_start", "content_block_start", "content_block_delta", "content_block_stop",
            "message_delta", "message_stop",
        ]  # fmt: skip
        assert {event.data["index"] for event in events if "index" in event.data} == {0}

    def test_thinking_cut_by_the_limit(self, start_live: Callable[..., LiveEngine]) -> None:
        """No text block is opened where no word is left for it."""
        events = list(start_live(thinking_share=1.0).stream(MESSAGES, message(max_tokens=3)))
        opened = [
            event.data["content_block"]["type"] for event in events if event.name == "content_block_start"
        ]
        assert opened == ["thinking"]
        assert events[-2].data["delta"]["stop_reason"] == "max_tokens"

    def test_several_tokens_a_step(self, start_live: Callable[..., LiveEngine]) -> None:
        """With drafts a delta never spans two blocks."""
        engine = start_live(drafts=2, thinking_share=0.5)
        whole = engine.post(MESSAGES, message(max_tokens=61))["content"]
        events = list(engine.stream(MESSAGES, message(max_tokens=61)))
        starts = [i for i, kind in enumerate(kinds(events)) if kind == "content_block_start"]
        stops = [i for i, kind in enumerate(kinds(events)) if kind == "content_block_stop"]
        assert starts[0] < stops[0] < starts[1] < stops[1]
        assert stops[0] + 1 == starts[1]
        said = "".join(e.data["delta"].get("text", "") for e in events if e.name == "content_block_delta")
        assert said == whole[1]["text"]


class TestResponse:
    def test_every_field(self, live: LiveEngine) -> None:
        """``ResponsesResponse`` as it is dumped, nulls and all; ``metrics`` is left out while null."""
        answer = live.post(RESPONSES, response())
        assert set(answer) == {
            "id", "created_at", "incomplete_details", "instructions", "metadata", "model", "object", "output",
            "parallel_tool_calls", "temperature", "tool_choice", "tools", "top_p", "background",
            "max_output_tokens", "max_tool_calls", "previous_response_id", "prompt", "prompt_cache_options",
            "prompt_cache_key", "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier",
            "status", "text", "top_logprobs", "truncation", "usage", "user", "presence_penalty",
            "frequency_penalty", "kv_transfer_params", "ec_transfer_params", "input_messages",
            "output_messages",
        }  # fmt: skip
        assert answer["id"].startswith("resp_")
        assert (answer["object"], answer["model"], answer["background"]) == ("response", "qwen", False)
        assert (answer["status"], answer["incomplete_details"]) == (
            "incomplete",
            {"reason": "max_output_tokens"},
        )

    def test_its_usage(self, live: LiveEngine) -> None:
        """``ResponseUsage``; six tokens of text and seven marks."""
        usage = live.post(RESPONSES, response())["usage"]
        cached = usage["input_tokens_details"].pop("cached_tokens")
        assert cached in (0, 13 // 16 * 16)
        assert usage == {
            "input_tokens": 13,
            "input_tokens_details": {
                "cache_write_tokens": 0, "input_tokens_per_turn": [], "cached_tokens_per_turn": [],
            },
            "output_tokens": 10,
            "output_tokens_details": {
                "reasoning_tokens": 5, "tool_output_tokens": 0, "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": 23,
        }  # fmt: skip

    def test_its_items(self, live: LiveEngine) -> None:
        """A thought that was finished, a message that was cut."""
        thought, said = live.post(RESPONSES, response())["output"]
        assert (thought["type"], thought["summary"], thought["status"]) == ("reasoning", [], "completed")
        assert [part["type"] for part in thought["content"]] == ["reasoning_text"]
        assert (said["type"], said["role"], said["status"]) == ("message", "assistant", "incomplete")
        (part,) = said["content"]
        assert (part["type"], part["annotations"], part["logprobs"]) == ("output_text", [], [])

    def test_a_natural_end(self, live: LiveEngine) -> None:
        """Completed, every item of it."""
        answer = live.post(RESPONSES, response(max_output_tokens=None, ignore_eos=False))
        assert (answer["status"], answer["incomplete_details"]) == ("completed", None)
        assert [item["status"] for item in answer["output"]] == ["completed"] * 2
        # 2,000 tokens of context less 13 of prompt, as vLLM fills max_output_tokens
        assert answer["max_output_tokens"] == 1987

    @pytest.mark.parametrize(
        ("fields", "echoed"),
        [
            (
                {},
                {
                    "temperature": 1.0,
                    "top_p": 1.0,
                    "tool_choice": "none",
                    "tools": [],
                    "truncation": "disabled",
                },
            ),
            (
                {},
                {"metadata": None, "instructions": None, "service_tier": "auto", "parallel_tool_calls": True},
            ),
            ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
            ({"instructions": "Be brief."}, {"instructions": "Be brief."}),
            ({"metadata": {"a": "b"}, "user": "me"}, {"metadata": {"a": "b"}, "user": "me"}),
            ({"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "auto"}),
            ({"tools": [TOOL], "tool_choice": "none"}, {"tool_choice": "none"}),
            ({"tool_choice": "auto"}, {"tool_choice": "none"}),
            ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
            ({"parallel_tool_calls": None}, {"parallel_tool_calls": True}),
            ({"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low"}}),
            ({"max_output_tokens": 11}, {"max_output_tokens": 11}),
        ],
    )
    def test_it_repeats_the_request(
        self, live: LiveEngine, fields: dict[str, Any], echoed: dict[str, Any]
    ) -> None:
        """With vLLM's defaults; no tools make any choice ``none``."""
        answer = live.post(RESPONSES, response(**fields))
        assert {name: answer[name] for name in echoed} == echoed

    def test_no_effort_is_no_thinking(self, live: LiveEngine) -> None:
        """One item, the first."""
        answer = live.post(RESPONSES, response(reasoning={"effort": "none"}))
        assert [item["type"] for item in answer["output"]] == ["message"]

    @pytest.mark.parametrize(
        ("fields", "tokens"),
        [
            ({"input": "Once upon"}, 2 + 4 + 3),
            ({"input": [{"role": "user", "content": "Once upon"}]}, 2 + 4 + 3),
            (
                {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Once upon"}]}]},
                2 + 4 + 3,
            ),
            ({"input": "Once upon", "instructions": "Be"}, 2 + 4 + 1 + 4 + 3),
            # see { } and then: a cat
            (
                {
                    "input": [
                        {"type": "function_call", "call_id": "1", "name": "see", "arguments": "{}"},
                        {"type": "function_call_output", "call_id": "1", "output": "a cat"},
                    ]
                },
                3 + 4 + 2 + 4 + 3,
            ),
            (
                {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
                1024 + 4 + 3,
            ),
        ],
    )
    def test_what_is_counted(self, live: LiveEngine, fields: dict[str, Any], tokens: int) -> None:
        """Items are messages, with four marks each and three of the prompt."""
        assert live.post(RESPONSES, response(**fields))["usage"]["input_tokens"] == tokens


class TestResponseStream:
    def test_every_event(self, live: LiveEngine) -> None:
        """Numbered without a gap; both items open and close a part."""
        events = list(live.stream(RESPONSES, response()))
        said = [kind.removeprefix("response.") for kind in kinds(events)]
        assert said == [
            "created", "in_progress",
            "output_item.added", "content_part.added", *["reasoning_text.delta"] * 5,
            "reasoning_text.done", "content_part.done", "output_item.done",
            "output_item.added", "content_part.added", *["output_text.delta"] * 5,
            "output_text.done", "content_part.done", "output_item.done",
            "incomplete",
        ]  # fmt: skip
        assert [event.data["sequence_number"] for event in events] == list(range(len(events)))
        indices = [event.data["output_index"] for event in events if "output_index" in event.data]
        assert indices == [0] * 10 + [1] * 10

    def test_its_ends_agree(self, live: LiveEngine) -> None:
        """The last event holds the response as it would have come whole; the first one nothing yet."""
        events = list(live.stream(RESPONSES, response()))
        first, last = events[0].data["response"], events[-1].data["response"]
        assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
        assert first["id"] == last["id"]
        done = [event.data["item"] for event in events if event.name == "response.output_item.done"]
        assert last["output"] == done
        whole = live.post(RESPONSES, response())
        for item, other in zip(last["output"], whole["output"], strict=True):
            assert item["content"] == other["content"]

    def test_deltas_add_up(self, live: LiveEngine) -> None:
        """To the text of done, and of the item."""
        events = list(live.stream(RESPONSES, response(max_output_tokens=30)))
        for kind in ("reasoning_text", "output_text"):
            deltas = "".join(e.data["delta"] for e in events if e.name == f"response.{kind}.delta")
            (done,) = [e.data for e in events if e.name == f"response.{kind}.done"]
            assert deltas == done["text"]
            assert done["item_id"] in {
                e.data["item_id"] for e in events if e.name == f"response.{kind}.delta"
            }

    def test_a_natural_end(self, plain: LiveEngine) -> None:
        """Completed, and nothing comes after it."""
        events = list(plain.stream(RESPONSES, response(max_output_tokens=None, ignore_eos=False)))
        assert kinds(events)[-1] == "response.completed"
        assert events[-1].data["response"]["usage"]["output_tokens"] == 40

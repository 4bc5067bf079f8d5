"""Chat and text completions: every field of the answers, streamed and whole.

Names and nulls are those of ``ChatCompletionResponse``, ``ChatCompletionStreamResponse``,
``CompletionResponse`` and ``CompletionStreamResponse`` of vLLM 0.33, as its serializer leaves them:
a whole answer carries every field, a chunk only those that were set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from live_engine import Event, LiveEngine

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "Tell me something."}]
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
USAGE = {"include_usage": True}
EACH = {"include_usage": True, "continuous_usage_stats": True}


def chat(**fields: Any) -> dict[str, Any]:
    """Exactly ten tokens."""
    return {"model": "qwen", "messages": USER, "max_tokens": 10, "ignore_eos": True} | fields


def text(**fields: Any) -> dict[str, Any]:
    """Exactly ten tokens after a prompt of two."""
    return {"model": "qwen", "prompt": "Once upon", "max_tokens": 10, "ignore_eos": True} | fields


def chunks(events: list[Event]) -> list[Any]:
    """All but the end mark, which must be there, without names."""
    assert [event.name for event in events] == [None] * len(events)
    assert events[-1].text == "[DONE]"
    return [event.data for event in events[:-1]]


class TestChatWhole:
    def test_every_field(self, live: LiveEngine) -> None:
        """As pydantic dumps it: nulls are there, an empty list of tool calls is not."""
        answer = live.post(CHAT, chat())
        assert set(answer) == {
            "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
            "prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params",
            "metrics",
        }  # fmt: skip
        assert answer["id"].startswith("chatcmpl-")
        assert (answer["object"], answer["model"]) == ("chat.completion", "qwen")
        (choice,) = answer["choices"]
        assert set(choice) == {
            "index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts",
            "weight_versions",
        }  # fmt: skip
        assert set(choice["message"]) == {
            "role", "content", "refusal", "annotations", "audio", "function_call", "reasoning",
        }  # fmt: skip
        assert (choice["index"], choice["finish_reason"], choice["stop_reason"]) == (0, "length", None)

    def test_its_usage(self, live: LiveEngine) -> None:
        """Tell me some thin g . are six tokens, with seven marks; half of ten is thinking."""
        usage = live.post(CHAT, chat(messages=[{"role": "user", "content": "Tell me something."}]))["usage"]
        cached = usage.pop("prompt_tokens_details")
        assert set(cached) == {"cached_tokens"}
        assert usage == {
            "prompt_tokens": 13,
            "completion_tokens": 10,
            "total_tokens": 23,
            "completion_tokens_details": {"reasoning_tokens": 5},
        }

    def test_texts_are_as_long_as_charged(self, live: LiveEngine) -> None:
        """Five tokens of thinking, five of answer."""
        message = live.post(CHAT, chat())["choices"][0]["message"]
        counted = [
            live.post("/tokenize", {"prompt": message[field]})["count"] for field in ("reasoning", "content")
        ]
        assert counted == [5, 5]

    def test_an_alias_answers_under_its_name(self, live: LiveEngine) -> None:
        """And no name at all means the first."""
        assert live.post(CHAT, chat(model="alias"))["model"] == "alias"
        body = chat()
        del body["model"]
        assert live.post(CHAT, body)["model"] == "qwen"

    @pytest.mark.parametrize(
        ("fields", "thinks"),
        [
            ({}, True),
            (NO_THINKING, False),
            ({"reasoning_effort": "none"}, False),
            ({"reasoning_effort": "high"}, True),
            # vLLM adds its own switch only where the request has none.
            ({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}, True),
            ({"reasoning_effort": "high", **NO_THINKING}, False),
            ({"chat_template_kwargs": {"other": 1}}, True),
        ],
    )
    def test_what_switches_thinking(self, live: LiveEngine, fields: dict[str, Any], *, thinks: bool) -> None:
        """The template's switch goes before the effort."""
        answer = live.post(CHAT, chat(**fields))
        message = answer["choices"][0]["message"]
        assert (message["reasoning"] is not None) == thinks
        spent = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert spent == (5 if thinks else 0)

    def test_nothing_but_thinking(self, start_live: Callable[..., LiveEngine]) -> None:
        """A limit within the thoughts: content is null, as vLLM's parser leaves it."""
        engine = start_live(thinking_share=1.0)
        choice = engine.post(CHAT, chat(max_tokens=3))["choices"][0]
        assert choice["message"]["content"] is None
        assert engine.post("/tokenize", {"prompt": choice["message"]["reasoning"]})["count"] == 3
        assert choice["finish_reason"] == "length"


class TestLengths:
    @pytest.mark.parametrize(
        ("fields", "tokens", "reason"),
        [
            ({"max_tokens": 7}, 7, "length"),
            ({"max_tokens": 1}, 1, "length"),
            ({"max_completion_tokens": 6, "max_tokens": 20}, 6, "length"),
            ({"max_tokens": 500, "ignore_eos": False}, 40, "stop"),
            ({"max_tokens": 39, "ignore_eos": False}, 39, "length"),
            ({"max_tokens": None, "ignore_eos": False}, 40, "stop"),
            ({"max_tokens": None, "ignore_eos": False, "min_tokens": 55}, 55, "stop"),
            ({"max_tokens": 60, "ignore_eos": False, "min_tokens": 60}, 60, "length"),
            ({"ignore_eos": None, "n": None, "stream": None}, 10, "length"),
        ],
    )
    def test_of_a_chat(self, plain: LiveEngine, fields: dict[str, Any], tokens: int, reason: str) -> None:
        """A natural answer has forty tokens here; a limit cuts it, ``min_tokens`` lengthens it."""
        answer = plain.post(CHAT, chat(**fields))
        assert answer["usage"]["completion_tokens"] == tokens
        assert answer["choices"][0]["finish_reason"] == reason

    def test_text_has_sixteen_by_default(self, plain: LiveEngine) -> None:
        """Also where ``max_tokens`` is null: vLLM puts its default there."""
        for fields in ({"max_tokens": None}, {}):
            body = {"model": "qwen", "prompt": "Once", "ignore_eos": True} | fields
            assert plain.post(TEXT, body)["usage"]["completion_tokens"] == 16

    def test_ignore_eos_without_a_limit_ends_all_the_same(self, plain: LiveEngine) -> None:
        """Otherwise one request would take the whole context."""
        answer = plain.post(CHAT, chat(max_tokens=None))
        assert answer["usage"]["completion_tokens"] == 40

    def test_the_whole_context(self, plain: LiveEngine) -> None:
        """2,000 tokens of context: 1,900 of prompt leave 100 and no more."""
        prompt = " ".join(["word"] * 1900)
        assert plain.post(TEXT, text(prompt=prompt, max_tokens=100))["usage"]["total_tokens"] == 2000
        reply = plain.ask(TEXT, text(prompt=prompt, max_tokens=101))
        assert (reply.status, reply.json["error"]["type"]) == (400, "BadRequestError")
        assert "maximum context length is 2000 tokens" in reply.json["error"]["message"]
        assert "for a total of at least 2001 tokens" in reply.json["error"]["message"]

    def test_a_prompt_longer_than_the_context(self, plain: LiveEngine) -> None:
        """Without a limit too."""
        body = chat(messages=[{"role": "user", "content": "word " * 2000}], max_tokens=None)
        assert plain.ask(CHAT, body).status == 400


class TestStop:
    def answer(self, engine: LiveEngine) -> list[str]:
        """Words of the unbroken answer."""
        content: str = engine.post(CHAT, chat(max_tokens=40))["choices"][0]["message"]["content"]
        return content.split(" ")

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize("as_list", [False, True])
    def test_it_ends_before_the_string(self, plain: LiveEngine, *, streamed: bool, as_list: bool) -> None:
        """The string is not shown, its tokens are charged, and it is named."""
        words = self.answer(plain)
        index = next(i for i in range(5, 40) if len(words[i]) > 1 and words[i] not in " ".join(words[:i]))
        stop: Any = [words[index]] if as_list else words[index]
        expected = " ".join(words[:index]) + " "
        # Full stops and the like are tokens without a space of their own before them.
        tokens = plain.post("/tokenize", {"prompt": " ".join(words[: index + 1])})["count"]
        if streamed:
            found = chunks(list(plain.stream(CHAT, chat(max_tokens=40, stop=stop, stream_options=USAGE))))
            content = "".join(each["choices"][0]["delta"].get("content", "") for each in found[:-1])
            choice, usage = found[-2]["choices"][0], found[-1]["usage"]
        else:
            answer = plain.post(CHAT, chat(max_tokens=40, stop=stop))
            choice, usage = answer["choices"][0], answer["usage"]
            content = choice["message"]["content"]
        assert content == expected
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", words[index])
        assert usage["completion_tokens"] <= tokens

    def test_a_string_across_tokens(self, plain: LiveEngine) -> None:
        """It begins in one word and ends in the next; what stands before it stays."""
        words = self.answer(plain)
        stop = f"{words[3][-1]} {words[4][:1]}"
        text_before = " ".join(words)
        answer = plain.post(CHAT, chat(max_tokens=40, stop=stop))["choices"][0]
        assert answer["message"]["content"] == text_before[: text_before.index(stop)]
        assert answer["stop_reason"] == stop

    def test_the_first_of_several(self, plain: LiveEngine) -> None:
        """Whichever comes first in the text."""
        words = self.answer(plain)
        answer = plain.post(CHAT, chat(max_tokens=40, stop=[words[9], words[2], "never there"]))["choices"][0]
        assert words[2] in answer["stop_reason"] or words[9] in answer["stop_reason"]
        assert len(answer["message"]["content"].split()) <= 3

    def test_thoughts_do_not_end_it(self, live: LiveEngine) -> None:
        """Stop strings are looked for in the visible text alone."""
        reasoning = live.post(CHAT, chat())["choices"][0]["message"]["reasoning"]
        answer = live.post(CHAT, chat(stop=[reasoning]))["choices"][0]
        assert answer["message"]["reasoning"] == reasoning

    def test_one_that_never_comes(self, plain: LiveEngine) -> None:
        """Changes nothing."""
        answer = plain.post(CHAT, chat(stop=["##"]))["choices"][0]
        assert (answer["finish_reason"], answer["stop_reason"]) == ("length", None)

    def test_the_counters_know(self, start_live: Callable[..., LiveEngine]) -> None:
        """It is a success by stop, and only its tokens were generated."""
        engine = start_live()
        words = self.answer(engine)
        used = engine.post(CHAT, chat(max_tokens=40, stop=words[4]))["usage"]["completion_tokens"]
        found = engine.metrics()
        assert found['vllm:request_success_total{engine="0",model_name="qwen",finished_reason="stop"}'] == 1
        assert found['vllm:generation_tokens_total{engine="0",model_name="qwen"}'] == 40 + used


class TestChatStream:
    def test_every_chunk(self, live: LiveEngine) -> None:
        """A role, five thoughts, five words, each with what vLLM sets."""
        found = chunks(list(live.stream(CHAT, chat())))
        first, middle, last = found[0], found[1:-1], found[-1]
        shared = {"id", "object", "created", "model", "choices"}
        assert set(first) == shared | {"prompt_token_ids", "prompt_text"}
        role = {"role": "assistant", "content": ""}
        assert first["choices"] == [{"index": 0, "delta": role, "logprobs": None, "finish_reason": None}]
        for each in middle:
            assert set(each) == shared | {"kv_transfer_params"}
            assert set(each["choices"][0]) == {"index", "delta", "logprobs", "finish_reason", "token_ids"}
            assert each["choices"][0]["finish_reason"] is None
        assert set(last["choices"][0]) == {
            "index", "delta", "logprobs", "finish_reason", "token_ids", "stop_reason", "weight_versions",
        }  # fmt: skip
        assert last["choices"][0]["finish_reason"] == "length"
        assert [list(each["choices"][0]["delta"]) for each in found[1:]] == [["reasoning"]] * 5 + [
            ["content"]
        ] * 5
        assert len({(each["id"], each["created"], each["model"], each["object"]) for each in found}) == 1
        assert first["object"] == "chat.completion.chunk"

    def test_it_says_what_the_whole_answer_says(self, live: LiveEngine) -> None:
        """Equal questions have equal answers."""
        message = live.post(CHAT, chat(max_tokens=30))["choices"][0]["message"]
        deltas = [
            each["choices"][0]["delta"] for each in chunks(list(live.stream(CHAT, chat(max_tokens=30))))
        ]
        for field in ("reasoning", "content"):
            assert "".join(delta.get(field, "") for delta in deltas) == message[field]

    @pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
    def test_no_usage_unasked(self, live: LiveEngine, options: Any) -> None:
        """No chunk without choices, none with usage; continuous usage alone is nothing either."""
        found = chunks(list(live.stream(CHAT, chat(stream_options=options))))
        assert all(each["choices"] and "usage" not in each for each in found)

    def test_usage_at_the_end(self, live: LiveEngine) -> None:
        """A chunk of its own, without choices; the others have none."""
        found = chunks(list(live.stream(CHAT, chat(stream_options=USAGE))))
        assert all("usage" not in each for each in found[:-1])
        assert set(found[-1]) == {"id", "object", "created", "model", "choices", "usage"}
        assert found[-1]["choices"] == []
        assert found[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 5}
        assert set(found[-1]["usage"]["prompt_tokens_details"]) == {"cached_tokens"}

    def test_usage_in_each(self, live: LiveEngine) -> None:
        """Counting up by one, thoughts first; what was cached comes at the end only."""
        found = chunks(list(live.stream(CHAT, chat(stream_options=EACH))))
        usages = [each["usage"] for each in found]
        assert [usage["completion_tokens"] for usage in usages] == [*range(11), 10]
        assert [usage["total_tokens"] - 13 for usage in usages] == [*range(11), 10]
        spent = [usage["completion_tokens_details"]["reasoning_tokens"] for usage in usages]
        assert spent == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5]
        assert ["prompt_tokens_details" in usage for usage in usages] == [False] * 11 + [True]

    def test_continuous_usage_needs_the_other_option(self, live: LiveEngine) -> None:
        """As ``should_include_usage`` has it."""
        found = chunks(list(live.stream(CHAT, chat(stream_options={"continuous_usage_stats": True}))))
        assert all("usage" not in each for each in found)

    def test_drafts_make_fewer_and_longer_chunks(self, start_live: Callable[..., LiveEngine]) -> None:
        """No token is lost where a chunk spans the turn from thinking to answer."""
        engine = start_live(drafts=2, thinking_share=0.5)
        whole = engine.post(CHAT, chat(max_tokens=60))["choices"][0]["message"]
        found = chunks(list(engine.stream(CHAT, chat(max_tokens=60, stream_options=EACH))))
        assert len(found) < 55
        deltas = [each["choices"][0]["delta"] for each in found[:-1]]
        assert all(len(delta) == 1 for delta in deltas[1:])
        for field in ("reasoning", "content"):
            assert "".join(delta.get(field, "") for delta in deltas) == whole[field]
        counts = [each["usage"]["completion_tokens"] for each in found]
        assert counts == sorted(counts)
        assert counts[-1] == 60


class TestText:
    def test_every_field(self, live: LiveEngine) -> None:
        """``CompletionResponse``; nobody thinks without a template."""
        answer = live.post(TEXT, text())
        assert set(answer) == {
            "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
            "kv_transfer_params", "ec_transfer_params", "metrics",
        }  # fmt: skip
        assert answer["id"].startswith("cmpl-")
        assert answer["object"] == "text_completion"
        (choice,) = answer["choices"]
        assert set(choice) == {
            "index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs",
            "prompt_token_ids", "routed_experts", "weight_versions",
        }  # fmt: skip
        assert answer["usage"]["completion_tokens_details"] is None
        assert answer["usage"]["prompt_tokens"] == 2
        assert live.post("/tokenize", {"prompt": choice["text"]})["count"] == 10

    def test_every_chunk(self, live: LiveEngine) -> None:
        """``CompletionStreamResponse``: ten of one token, the last with its reason."""
        found = chunks(list(live.stream(TEXT, text())))
        assert len(found) == 10
        for each in found:
            assert set(each) == {"id", "object", "created", "model", "choices", "kv_transfer_params"}
            assert set(each["choices"][0]) == {
                "index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_token_ids", "token_ids",
                "weight_versions",
            }  # fmt: skip
        assert [each["choices"][0]["finish_reason"] for each in found] == [None] * 9 + ["length"]
        assert (
            "".join(each["choices"][0]["text"] for each in found)
            == live.post(TEXT, text())["choices"][0]["text"]
        )

    def test_usage_in_each(self, live: LiveEngine) -> None:
        """One to ten, and ten again at the end; a text has no details of thinking."""
        found = chunks(list(live.stream(TEXT, text(stream_options=EACH))))
        assert [each["usage"]["completion_tokens"] for each in found] == [*range(1, 11), 10]
        assert all("completion_tokens_details" not in each["usage"] for each in found)
        assert found[-1]["choices"] == []

    @pytest.mark.parametrize(
        ("prompt", "tokens"),
        [("Once upon", 2), (["Once upon"], 2), ([11, 12, 13], 3), ([[11, 12, 13]], 3), ([7], 1)],
    )
    def test_prompts_of_every_kind(self, live: LiveEngine, prompt: Any, tokens: int) -> None:
        """Text or token numbers, alone or in a list of one."""
        assert live.post(TEXT, text(prompt=prompt))["usage"]["prompt_tokens"] == tokens

    @pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], [1, "a"]])
    def test_several_prompts_are_refused(self, live: LiveEngine, prompt: Any) -> None:
        """Not simulated, and it says so in place of answering one of them."""
        reply = live.ask(TEXT, text(prompt=prompt))
        assert reply.status == 400
        assert "several prompts" in reply.json["error"]["message"]

    def test_token_numbers_are_a_prompt_to_find_again(self, start_live: Callable[..., LiveEngine]) -> None:
        """Blocks of 16: of 40 tokens, 32 are found the second time."""
        engine = start_live()
        used = [engine.post(TEXT, text(prompt=list(range(40))))["usage"] for _ in range(2)]
        assert [usage["prompt_tokens_details"]["cached_tokens"] for usage in used] == [0, 32]


class TestTools:
    def test_definitions_are_part_of_the_prompt(self, live: LiveEngine) -> None:
        """As the template writes them there."""
        bare = live.post(CHAT, chat())["usage"]["prompt_tokens"]
        with_tool = live.post(CHAT, chat(tools=[TOOL]))["usage"]["prompt_tokens"]
        assert with_tool > bare + 10

    @pytest.mark.parametrize(
        "choice", ["auto", "none", {"type": "function", "function": {"name": "weather"}}]
    )
    def test_choices_are_taken(self, live: LiveEngine, choice: Any) -> None:
        """The answer is text whatever was chosen: there is no model to call a tool."""
        message = live.post(CHAT, chat(tools=[TOOL], tool_choice=choice))["choices"][0]["message"]
        assert message["content"]
        assert "tool_calls" not in message

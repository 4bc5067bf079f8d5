"""The OpenAI and Anthropic SDKs, unmodified: answers, streams, errors as their exceptions, retries."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from live_engine import LiveEngine

USER: list[Any] = [{"role": "user", "content": "Tell me something."}]
EXACT: dict[str, Any] = {"extra_body": {"ignore_eos": True}}
OPENAI_TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}},
}  # fmt: skip
BROKEN = r"incomplete|peer closed"
CLAUDE_TOOL: Any = {"name": "weather", "input_schema": {"type": "object"}}


def openai_of(engine: LiveEngine, **options: Any) -> openai.OpenAI:
    """As anyone would set it up."""
    given: dict[str, Any] = {"api_key": "none", "max_retries": 0} | options
    return openai.OpenAI(base_url=f"{engine.url}/v1", **given)


def claude_of(engine: LiveEngine, **options: Any) -> anthropic.Anthropic:
    """As ``ANTHROPIC_BASE_URL`` and ``ANTHROPIC_API_KEY`` make it."""
    given: dict[str, Any] = {"api_key": "none", "max_retries": 0} | options
    return anthropic.Anthropic(base_url=engine.url, **given)


@pytest.fixture(scope="module")
def gpt(live: LiveEngine) -> Iterator[openai.OpenAI]:
    """OpenAI's."""
    with openai_of(live) as client:
        yield client


@pytest.fixture(scope="module")
def claude(live: LiveEngine) -> Iterator[anthropic.Anthropic]:
    """Anthropic's."""
    with claude_of(live) as client:
        yield client


class TestOpenAi:
    def test_models(self, gpt: openai.OpenAI) -> None:
        """Listed, and marked as what they are."""
        cards = gpt.models.list().data
        assert [card.id for card in cards] == ["qwen", "alias"]
        assert {card.owned_by for card in cards} == {"qwenhost-simulated"}

    def test_a_chat(self, gpt: openai.OpenAI) -> None:
        """Typed, with the field for thinking beside the content."""
        answer = gpt.chat.completions.create(model="qwen", messages=USER, max_tokens=10, **EXACT)
        (choice,) = answer.choices
        assert (choice.finish_reason, choice.message.role, choice.message.tool_calls) == (
            "length",
            "assistant",
            None,
        )
        assert choice.message.model_extra is not None
        assert choice.message.model_extra["reasoning"]
        assert answer.usage is not None
        assert answer.usage.completion_tokens_details is not None
        assert answer.usage.completion_tokens_details.reasoning_tokens == 5

    def test_the_label_is_in_its_headers(self, gpt: openai.OpenAI) -> None:
        """Whoever looks finds it."""
        raw = gpt.chat.completions.with_raw_response.create(model="qwen", messages=USER, max_tokens=2)
        assert raw.headers["x-qwenhost-simulated"] == "true"
        assert raw.headers["server"] == "qwenhost-simulated"

    def test_a_chat_streamed(self, gpt: openai.OpenAI) -> None:
        """The SDK's own accumulation of a stream gives the whole answer."""
        whole = gpt.chat.completions.create(model="qwen", messages=USER)
        with gpt.chat.completions.stream(
            model="qwen", messages=USER, stream_options={"include_usage": True}
        ) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_completion()
        assert kinds.count("content.delta") == 1 + 20  # an empty one comes with the role
        assert kinds.count("content.done") == 1
        assert final.choices[0].message.content == whole.choices[0].message.content
        assert final.usage is not None
        assert final.usage.completion_tokens == 40

    def test_a_text(self, gpt: openai.OpenAI) -> None:
        """Pieces join to the whole."""
        whole = gpt.completions.create(model="qwen", prompt="Once upon", max_tokens=9, **EXACT)
        pieces = gpt.completions.create(model="qwen", prompt="Once upon", max_tokens=9, stream=True, **EXACT)
        assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text

    def test_responses_streamed(self, gpt: openai.OpenAI) -> None:
        """The SDK checks the order of events while it accumulates them."""
        with gpt.responses.stream(model="qwen", input="Tell me.") as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_response()
        assert {"response.created", "response.reasoning_text.delta", "response.output_text.delta"} <= kinds
        assert final.output_text
        assert final.usage is not None
        assert final.usage.output_tokens == 40
        assert final.usage.output_tokens_details.reasoning_tokens == 20

    def test_tools_go_in_and_their_results_too(self, gpt: openai.OpenAI) -> None:
        """A loop's second turn; the answer is text, for nobody is there to call a tool."""
        first = gpt.chat.completions.create(model="qwen", messages=USER, tools=[OPENAI_TOOL], max_tokens=12)
        call: Any = {
            "id": "1",
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps({"city": "Rome"})},
        }
        turns = [
            *USER,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "20"},
        ]
        second = gpt.chat.completions.create(model="qwen", messages=turns, tools=[OPENAI_TOOL], max_tokens=12)
        assert first.usage is not None
        assert second.usage is not None
        # weat her { " city " : " Rome " }: eleven of the call, one of the result, four marks for each
        assert second.usage.prompt_tokens - first.usage.prompt_tokens == 11 + 4 + 1 + 4

    def test_a_picture(self, gpt: openai.OpenAI) -> None:
        """1,024 tokens, whatever is on it."""
        picture: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
        asked: Any = [{"role": "user", "content": [{"type": "text", "text": "What?"}, picture]}]
        answer = gpt.chat.completions.create(model="qwen", messages=asked, max_tokens=2)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 1024 + 2 + 7 + 0

    @pytest.mark.parametrize(
        ("fields", "error", "text"),
        [
            ({"model": "other"}, openai.NotFoundError, "The model `other` does not exist."),
            ({"max_tokens": 0}, openai.BadRequestError, "max_tokens must be at least 1"),
            ({"messages": 3}, openai.BadRequestError, "1 validation error"),
            ({"n": 2}, openai.BadRequestError, "n above 1 is not simulated"),
        ],
    )
    def test_refusals(self, gpt: openai.OpenAI, fields: dict[str, Any], error: Any, text: str) -> None:
        """As the exception of their status, with vLLM's text and field."""
        given: dict[str, Any] = {"model": "qwen", "messages": USER} | fields
        with pytest.raises(error, match=text.replace("`", ".")) as caught:
            gpt.chat.completions.create(**given)
        assert caught.value.body["code"] == caught.value.status_code
        assert set(caught.value.body) == {"message", "type", "param", "code"}

    def test_a_wrong_key(self, start_live: Callable[..., LiveEngine]) -> None:
        """401 is an AuthenticationError; the right key gets in."""
        engine = start_live(keys=("right",))
        with openai_of(engine, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with openai_of(engine, api_key="right") as client:
            assert client.models.list().data


class TestAnthropic:
    def test_a_message(self, claude: anthropic.Anthropic) -> None:
        """Thinking, signed, and text."""
        answer = claude.messages.create(model="qwen", messages=USER, max_tokens=10, **EXACT)
        thinking, text = answer.content
        assert thinking.type == "thinking"
        assert len(thinking.signature) == 32
        assert text.type == "text"
        assert (answer.stop_reason, answer.stop_sequence) == ("max_tokens", None)

    def test_a_stream(self, claude: anthropic.Anthropic) -> None:
        """The SDK's accumulation is the whole answer, signature and all; its event order holds."""
        whole = claude.messages.create(model="qwen", messages=USER, max_tokens=20, **EXACT)
        with claude.messages.stream(model="qwen", messages=USER, max_tokens=20, **EXACT) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_message()
        assert [block.model_dump() for block in final.content] == [
            block.model_dump() for block in whole.content
        ]
        assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, 20)
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
        assert (kinds.count("thinking"), kinds.count("signature"), kinds.count("text")) == (10, 1, 10)

    def test_thinking_goes_back_in_the_next_turn(self, claude: anthropic.Anthropic) -> None:
        """As the SDK's users are told to: the blocks as they came."""
        first = claude.messages.create(model="qwen", messages=USER, max_tokens=10, **EXACT)
        turns: list[Any] = [
            *USER,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": "And?"},
        ]
        second = claude.messages.count_tokens(model="qwen", messages=turns)
        alone = claude.messages.count_tokens(model="qwen", messages=USER)
        # ten tokens of the answer and And ?, with four marks each
        assert second.input_tokens - alone.input_tokens == 10 + 4 + 2 + 4

    def test_a_tools_result_goes_back(self, claude: anthropic.Anthropic) -> None:
        """Call and result lengthen the prompt by what they hold."""
        call = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}
        result = {"type": "tool_result", "tool_use_id": "t1", "content": "20 degrees"}
        turns: list[Any] = [
            *USER,
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]
        asked = claude.messages.count_tokens(model="qwen", messages=USER, tools=[CLAUDE_TOOL])
        answered = claude.messages.count_tokens(model="qwen", messages=turns, tools=[CLAUDE_TOOL])
        # weat her { " city " : " Rome " } and 20 degr ees
        assert answered.input_tokens - asked.input_tokens == 11 + 4 + 3 + 4

    def test_usage_adds_up_with_a_cache(self, start_live: Callable[..., LiveEngine]) -> None:
        """Input and what was read from the cache are the prompt, as Anthropic bills it."""
        long: list[Any] = [{"role": "user", "content": "word " * 60}]
        with claude_of(start_live()) as client:
            used = [client.messages.create(model="qwen", messages=long, max_tokens=2).usage for _ in range(2)]
        assert [(usage.input_tokens, usage.cache_read_input_tokens) for usage in used] == [(67, 0), (3, 64)]

    @pytest.mark.parametrize(
        ("fields", "error", "kind"),
        [
            ({"model": "other"}, anthropic.NotFoundError, "not_found_error"),
            ({"max_tokens": 3000}, anthropic.BadRequestError, "invalid_request_error"),
            ({"extra_body": {"temperature": 3}}, anthropic.BadRequestError, "invalid_request_error"),
        ],
    )
    def test_refusals(
        self, claude: anthropic.Anthropic, fields: dict[str, Any], error: Any, kind: str
    ) -> None:
        """As the exception of their status, with a body in Anthropic's words."""
        given: dict[str, Any] = {"model": "qwen", "messages": USER, "max_tokens": 4} | fields
        with pytest.raises(error) as caught:
            claude.messages.create(**given)
        assert caught.value.body["type"] == "error"
        assert caught.value.body["error"]["type"] == kind

    def test_a_wrong_key(self, start_live: Callable[..., LiveEngine]) -> None:
        """By ``x-api-key`` as by ``Authorization``."""
        engine = start_live(keys=("right",))
        with claude_of(engine, api_key="wrong") as client, pytest.raises(anthropic.AuthenticationError):
            client.messages.create(model="qwen", messages=USER, max_tokens=2)
        with claude_of(engine, api_key="right") as client:
            assert client.messages.create(model="qwen", messages=USER, max_tokens=2).usage.output_tokens == 2
        with claude_of(engine, api_key=None, auth_token="right") as client:
            assert client.messages.create(model="qwen", messages=USER, max_tokens=2).usage.output_tokens == 2


class TestFaultsAndRetries:
    @pytest.mark.parametrize(
        ("fault", "theirs", "claudes", "kind"),
        [
            ("429", openai.RateLimitError, anthropic.RateLimitError, "rate_limit_error"),
            ("503", openai.InternalServerError, anthropic.InternalServerError, "overloaded_error"),
            ("crash", openai.InternalServerError, anthropic.InternalServerError, "api_error"),
        ],
    )
    def test_a_fault_is_the_clients_exception(
        self, start_live: Callable[..., LiveEngine], fault: str, theirs: Any, claudes: Any, kind: str
    ) -> None:
        """Each client its own; Anthropic's tells overload by the body."""
        engine = start_live(faults=(fault,))
        with openai_of(engine) as client, pytest.raises(theirs):
            client.chat.completions.create(model="qwen", messages=USER)
        with claude_of(engine) as client, pytest.raises(claudes) as caught:
            client.messages.create(model="qwen", messages=USER, max_tokens=4)
        assert caught.value.body["error"]["type"] == kind

    @pytest.mark.parametrize("fault", ["429", "503"])
    def test_a_refusal_says_when_to_come_again(
        self, start_live: Callable[..., LiveEngine], fault: str
    ) -> None:
        """``Retry-After`` in seconds, which both SDKs obey."""
        reply = start_live(faults=(fault,)).ask("/v1/completions", {"prompt": "x"})
        assert (reply.status, reply.headers["retry-after"]) == (int(fault), "1")

    def test_clients_retry(self, start_live: Callable[..., LiveEngine]) -> None:
        """Draws of seed 0 are .84 .76 .42 .26 .51: of four requests the last is refused, once."""
        engine = start_live(faults=("429:0.3",))
        with openai_of(engine, max_retries=2) as client:
            raw = client.chat.completions.with_raw_response
            answers = [raw.create(model="qwen", messages=USER, max_tokens=2) for _ in range(4)]
        assert [answer.retries_taken for answer in answers] == [0, 0, 0, 1]

    def test_a_stream_that_is_cut(self, start_live: Callable[..., LiveEngine]) -> None:
        """Half of it arrives, then the connection breaks: no client takes it for an answer."""
        engine = start_live(faults=("cut",))
        with openai_of(engine) as client:
            stream = client.chat.completions.create(
                model="qwen", messages=USER, max_tokens=40, stream=True, **EXACT
            )
            with pytest.raises(Exception, match=BROKEN):
                list(stream)
        with claude_of(engine) as client:
            events = client.messages.create(model="qwen", messages=USER, max_tokens=40, stream=True, **EXACT)
            with pytest.raises(Exception, match=BROKEN):
                list(events)

    def test_a_cut_spares_whole_answers(self, start_live: Callable[..., LiveEngine]) -> None:
        """There is no stream to cut."""
        reply = start_live(faults=("cut",)).ask("/v1/completions", {"prompt": "x", "max_tokens": 2})
        assert reply.status == 200

    @pytest.mark.parametrize(
        "path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"]
    )
    def test_a_cut_stream_has_no_end(self, start_live: Callable[..., LiveEngine], path: str) -> None:
        """Neither end mark nor closing event, in any dialect."""
        engine = start_live(faults=("cut",))
        body: dict[str, Any] = {
            "model": "qwen", "max_tokens": 10, "max_output_tokens": 10, "ignore_eos": True,
            "messages": USER, "prompt": "x", "input": "x", "stream": True,
        }  # fmt: skip
        with contextlib.closing(engine.connection()) as connection:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            with pytest.raises(http.client.IncompleteRead) as caught:
                response.read()
        text = caught.value.partial.decode()
        assert text.count("data: ") > 2
        for end in ("[DONE]", "message_stop", "response.incomplete", '"finish_reason":"length"'):
            assert end not in text

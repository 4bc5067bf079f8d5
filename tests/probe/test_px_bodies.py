"""One conversation in four dialects, and the user's own conversations that must survive all of them."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from px_streams import ANTHROPIC, OPENAI_RESPONSES, OPENAI_TOOLS, VLLM_CHAT, Line, wire_of

from qwenhost.errors import BadInputError
from qwenhost.probe.answers import Call, Said, read_answer
from qwenhost.probe.bodies import THINKING_BUDGET, Ask, Image, auth_headers, request_body
from qwenhost.probe.own_prompts import FilePrompts, read_lines

if TYPE_CHECKING:
    from pathlib import Path

DIALECTS: Any = ["chat", "completions", "responses", "messages"]
CALL = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"id": "7"}'}}
AGENT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Read 7."},
    {"role": "assistant", "content": "Reading.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "seven"},
    {"role": "assistant", "content": "It says seven."},
    {"role": "user", "content": "Thanks."},
]
PICTURE = Image(media_type="image/png", base64="QUJD")
TOOL = {"name": "read", "description": "Reads.", "parameters": {"type": "object", "properties": {}}}


def body(endpoint: Any, **options: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"model": "m", "prompt": "hello", "max_tokens": 5}
    ask = Ask(**(defaults | options))
    decoded: dict[str, Any] = json.loads(request_body(endpoint, ask))
    return decoded


# --------------------------------------------------------------------------- an agent's conversation


def test_an_agents_conversation_in_chat_is_as_it_was() -> None:
    """OpenAI's form is the form it is kept in."""
    assert body("chat", messages=AGENT)["messages"] == AGENT


def test_an_agents_conversation_in_responses() -> None:
    """Calls and their results are items beside the messages, joined by the call's id."""
    assert body("responses", messages=AGENT)["input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Read 7."},
        {"role": "assistant", "content": "Reading."},
        {"type": "function_call", "call_id": "c1", "name": "read", "arguments": '{"id": "7"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "seven"},
        {"role": "assistant", "content": "It says seven."},
        {"role": "user", "content": "Thanks."},
    ]


def test_an_agents_conversation_in_messages() -> None:
    """The system prompt apart; a call is content with its arguments as JSON, its result is the user's."""
    found = body("messages", messages=AGENT)
    assert found["system"] == "Be brief."
    assert found["messages"] == [
        {"role": "user", "content": "Read 7."},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Reading."},
                {"type": "tool_use", "id": "c1", "name": "read", "input": {"id": "7"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "seven"}]},
        {"role": "assistant", "content": "It says seven."},
        {"role": "user", "content": "Thanks."},
    ]


def test_an_agents_conversation_as_plain_text() -> None:
    """Completions takes what was said, line by line."""
    said = "Be brief.\nRead 7.\nReading.\nseven\nIt says seven.\nThanks."
    assert body("completions", messages=AGENT)["prompt"] == said


@pytest.mark.parametrize("content", [None, "", "absent"])
def test_a_call_without_a_text(content: str | None) -> None:
    """OpenAI's own answers have ``content: null`` there, and other recordings have none at all."""
    message = {"role": "assistant", "content": content, "tool_calls": [CALL]}
    if content == "absent":
        del message["content"]
    messages = [{"role": "user", "content": "q"}, message]
    assert body("messages", messages=messages)["messages"][1] == {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "c1", "name": "read", "input": {"id": "7"}}],
    }
    assert [item.get("type") for item in body("responses", messages=messages)["input"]] == [
        None, "function_call",
    ]  # fmt: skip
    assert body("completions", messages=messages)["prompt"] == "q\n"


def test_a_call_with_parts_of_text_and_without_arguments() -> None:
    """Parts stay parts; no arguments are an empty object."""
    call = {"id": "c", "function": {"name": "now", "arguments": ""}}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "assistant", "content": parts, "tool_calls": [call]}]
    assert body("messages", messages=messages)["messages"][0]["content"] == [
        *parts, {"type": "tool_use", "id": "c", "name": "now", "input": {}},
    ]  # fmt: skip


def test_a_tools_result_without_content_is_empty() -> None:
    """Both dialects want a text there."""
    messages = [{"role": "tool", "tool_call_id": "c1"}]
    assert body("responses", messages=messages)["input"][0]["output"] == ""
    assert body("messages", messages=messages)["messages"][0]["content"][0]["content"] == ""


def test_calls_that_are_null_are_none() -> None:
    """As some recorders write every field."""
    messages = [{"role": "assistant", "content": "a", "tool_calls": None}]
    assert body("responses", messages=messages)["input"] == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize("endpoint", DIALECTS)
@pytest.mark.parametrize("images", [(), (PICTURE,)])
def test_no_conversation_is_changed_by_being_sent(endpoint: Any, images: Any) -> None:
    """The same messages are sent again with the next turn: what one request adds must not stay in them."""
    messages = copy.deepcopy(AGENT)
    for _ in range(2):
        body(endpoint, messages=messages, images=images, anthropic=True, cache=True, thinking=True)
    assert messages == AGENT


# --------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("endpoint", "where", "first", "text"),
    [
        (
            "chat", "messages",
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
            {"type": "text", "text": "hello"},
        ),
        (
            "responses", "input",
            {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,QUJD"},
            {"type": "input_text", "text": "hello"},
        ),
        (
            "messages", "messages",
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
            {"type": "text", "text": "hello"},
        ),
    ],
)  # fmt: skip
def test_pictures_stand_before_the_text(endpoint: Any, where: str, first: Any, text: Any) -> None:
    """Two of them, each as its dialect writes one."""
    found = body(endpoint, images=(PICTURE, PICTURE))[where]
    assert found == [{"role": "user", "content": [first, first, text]}]


def test_pictures_go_to_the_last_of_the_user() -> None:
    """Of an agent's conversation the last message, not the system's, and not the tool's result."""
    content = [
        message.get("content") for message in body("chat", messages=AGENT, images=(PICTURE,))["messages"]
    ]
    assert [type(part) for part in content] == [str, str, str, str, str, list]


@pytest.mark.parametrize("endpoint", ["chat", "responses", "messages"])
@pytest.mark.parametrize(
    "messages",
    [[{"role": "system", "content": "s"}], [{"role": "user", "content": None}], [{"role": "user"}]],
    ids=["no user", "no content", "no field"],
)
def test_pictures_where_the_user_says_nothing(endpoint: Any, messages: Any) -> None:
    """The pictures alone are what the user shows."""
    found = body(endpoint, messages=messages, images=(PICTURE,))
    last = (found.get("messages") or found["input"])[-1]
    assert last["role"] == "user"
    assert len(last["content"]) == 1


# --------------------------------------------------------------------------- Claude's own API


def test_thinking_adds_its_budget_to_the_answers() -> None:
    """max_tokens counts both there; vLLM gets its template's switch in place of it."""
    found = body("messages", anthropic=True, thinking=True)
    assert found["thinking"] == {"type": "enabled", "budget_tokens": THINKING_BUDGET}
    assert found["max_tokens"] == 5 + 1024
    assert "chat_template_kwargs" not in found
    own = body("messages", thinking=True)
    assert (own["max_tokens"], own["chat_template_kwargs"]) == (5, {"enable_thinking": True})


@pytest.mark.parametrize(
    ("messages", "marked"),
    [
        ([{"role": "user", "content": "q"}], {"type": "text", "text": "q"}),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            {"type": "text", "text": "b"},
        ),
        (AGENT[:4], {"type": "tool_result", "tool_use_id": "c1", "content": "seven"}),
    ],
)
def test_the_cache_mark_ends_the_conversation(messages: Any, marked: dict[str, Any]) -> None:
    """On the last part of the last message, and on no other."""
    found = body("messages", messages=messages, anthropic=True, cache=True)
    assert found["messages"][-1]["content"][-1] == marked | {"cache_control": {"type": "ephemeral"}}
    assert json.dumps(found).count("cache_control") == 1
    assert "cache_control" not in json.dumps(body("messages", messages=messages, cache=True))


def test_a_system_prompt_alone_has_nowhere_to_be_marked() -> None:
    """The API refuses it in its own words; it is no reason to fail before."""
    found = body("messages", messages=[{"role": "system", "content": "s"}], anthropic=True, cache=True)
    assert (found["system"], found["messages"]) == ("s", [])
    for empty in ({"role": "user"}, {"role": "user", "content": None}, {"role": "user", "content": []}):
        assert body("messages", messages=[empty], anthropic=True, cache=True)["messages"] == [empty]


@pytest.mark.parametrize(
    ("choice", "written"),
    [(None, "auto"), ("auto", "auto"), ("required", "any"), ("none", "none")],
)
def test_a_tool_choice_has_another_name_there(choice: Any, written: str) -> None:
    """``required`` is ``any``; chat and responses keep the word."""
    assert body("messages", tools=(TOOL,), tool_choice=choice)["tool_choice"] == {"type": written}
    assert body("chat", tools=(TOOL,), tool_choice=choice)["tool_choice"] == (choice or "auto")
    assert body("responses", tools=(TOOL,), tool_choice=choice)["tool_choice"] == (choice or "auto")


@pytest.mark.parametrize("tool", [TOOL, {"name": "read"}])
def test_a_tool_in_three_forms(tool: dict[str, Any]) -> None:
    """Wrapped, flat, and with a schema that must be there."""
    assert body("chat", tools=(tool,))["tools"] == [{"type": "function", "function": tool}]
    assert body("responses", tools=(tool,))["tools"] == [{"type": "function", **tool}]
    schema = {"type": "object", "properties": {}}
    assert body("messages", tools=(tool,))["tools"] == [
        {"name": "read", "description": tool.get("description", ""), "input_schema": schema}
    ]


@pytest.mark.parametrize("endpoint", DIALECTS)
@pytest.mark.parametrize("temperature", [None, 0.0, 0.7])
def test_a_temperature_is_sent_where_one_is_given(endpoint: Any, temperature: float | None) -> None:
    """Zero is a temperature."""
    assert body(endpoint, temperature=temperature).get("temperature", "none") == (
        "none" if temperature is None else temperature
    )


@pytest.mark.parametrize(
    ("endpoint", "key", "anthropic", "names"),
    [
        ("chat", None, False, []),
        ("chat", "k", False, ["Authorization"]),
        ("messages", None, False, ["anthropic-version"]),
        ("messages", "k", False, ["Authorization", "anthropic-version", "x-api-key"]),
        ("messages", "k", True, ["anthropic-version", "x-api-key"]),
    ],
)
def test_each_server_gets_its_key_in_its_own_way(
    endpoint: Any, key: str | None, names: list[str], *, anthropic: bool
) -> None:
    """Claude's API takes a bearer for another kind of key, and so gets none."""
    assert [name for name, _ in auth_headers(endpoint, key, anthropic=anthropic)] == names


# --------------------------------------------------------------------------- the user's file


def lines(folder: Path, *rows: Any) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"content": "x"}, "message 2: no role"),
        ({"role": None, "content": "x"}, "message 2: no role"),
        ({"role": "tool", "content": "x"}, "message 2: a result of a tool without tool_call_id"),
        ({"role": "tool", "tool_call_id": 7}, "message 2: a result of a tool without tool_call_id"),
        (
            {"role": "assistant", "tool_calls": [{"function": CALL["function"]}]},
            "missing required field `id`",
        ),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "missing required field `function`"),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
            "missing required field `arguments`",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]},
            "Expected `str`, got `object`",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]},
            "Input data was truncated",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[]"}}]},
            "Expected `object`, got `array`",
        ),
        ({"role": "assistant", "tool_calls": "f"}, "Expected `array`, got `str`"),
    ],
)
def test_a_message_that_no_dialect_can_write_is_named(tmp_path: Path, message: Any, said: str) -> None:
    """With file, line and place, before anything is sent."""
    file = lines(tmp_path, {"prompt": "fine"}, {"messages": [{"role": "user", "content": "q"}, message]})
    with pytest.raises(BadInputError) as caught:
        read_lines(file)
    assert str(caught.value).startswith(f"{file}, line 2: message 2: ")
    assert said in str(caught.value)
    assert caught.value.remedy


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "developer", "tool"])},
        optional={
            "content": st.one_of(
                st.none(), st.text(max_size=5),
                st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=3)}),
                         max_size=2),
            ),
            "tool_call_id": st.text(max_size=3),
            "tool_calls": st.one_of(st.none(), st.lists(st.just(CALL), max_size=2)),
            "name": st.text(max_size=3),
        },
    ),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(max_examples=80)
@given(messages=MESSAGES, endpoint=st.sampled_from(DIALECTS), images=st.booleans(), own=st.booleans())
def test_what_the_reader_lets_through_every_dialect_can_write(
    tmp_path_factory: pytest.TempPathFactory, messages: Any, endpoint: Any, *, images: bool, own: bool
) -> None:
    """Any mixture of roles, parts, calls and gaps: refused by line, or a JSON body comes out."""
    file = lines(tmp_path_factory.mktemp("drawn"), {"messages": messages})
    refused, entries = "", []
    try:
        entries = read_lines(file)
    except BadInputError as error:
        refused = str(error)
    if refused:
        assert f"{file}, line 1: message" in refused
        return
    (entry,) = entries
    found = body(
        endpoint, messages=entry.messages, images=(PICTURE,) * images, anthropic=own, cache=own, thinking=own
    )
    assert found["stream"] is True


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no prompts"),
        ("\n\n", "no prompts"),
        ("[]", "no prompts"),
        ('{"prompt": "a", "messages": []}\n', "line 1: exactly one of prompt, messages and conversations"),
        ('{"prompt": "a"}\n{}\n', "line 2: exactly one of"),
        ('{"messages": []}\n', "line 1: no messages"),
        ('[{"prompt": "a"}, {"prompt": 5}]', "entry 2: Expected `str | null`, got `int`"),
        ('[{"prompt": "a"}', "Input data was truncated"),
        ('{"prompt": "a"}\nplain text\n', "line 2: JSON is malformed"),
        ('{"conversations": [{"from": "gpt", "value": "only the model"}]}\n', "no prompts"),
        ('{"conversations": [{"value": "who?"}]}\n', "line 1: Object missing required field `from`"),
        (b'{"prompt": "\xff\xfe"}\n', "line 1:"),
        ("[" * 3000, "prompts.jsonl"),
    ],
)
def test_another_file_is_refused_by_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    """Each with its place and what is expected."""
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInputError) as caught:
        read_lines(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Or is a folder."""
    with pytest.raises(BadInputError, match="No such file"):
        read_lines(tmp_path / "none.jsonl")
    with pytest.raises(BadInputError, match="Is a directory"):
        read_lines(tmp_path)


def test_blank_lines_do_not_count(tmp_path: Path) -> None:
    """Neither do the model's own openings; the line number is the file's."""
    file = lines(
        tmp_path, "\n", {"prompt": "a"}, "   \n",
        {"conversations": [{"from": "gpt", "value": "hi"}]}, {"prompt": "b"},
    )  # fmt: skip
    assert [entry.prompt for entry in read_lines(file)] == ["a", "b"]


def test_a_conversations_answers_give_the_lengths(tmp_path: Path) -> None:
    """400 letters are 100 tokens; one letter is one; no answer, or the user's own next, takes the default."""
    file = lines(
        tmp_path,
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "one"}, {"from": "gpt", "value": "x" * 400},
                {"from": "user", "value": "two"}, {"from": "assistant", "value": "y"},
                {"from": "human", "value": "three"},
                {"from": "human", "value": "four"}, {"from": "gpt", "value": ""},
            ]
        },
    )  # fmt: skip
    turns = FilePrompts(file, max_tokens=33).turns(0, 9)
    assert [(turn.text, turn.max_tokens) for turn in turns] == [
        ("one", 100), ("two", 1), ("three", 33), ("four", 33),
    ]  # fmt: skip
    assert [len(turn.answer) for turn in turns] == [400, 1, 0, 0]


def test_messages_are_played_by_turns_as_well(tmp_path: Path) -> None:
    """What is not plain text of the user or the model is left out, ``max_tokens`` of the line rules."""
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "a" * 40},
        {"role": "user", "content": [{"type": "text", "text": "parts"}]},
        {"role": "user", "content": "two"},
    ]  # fmt: skip
    file = lines(tmp_path, {"messages": messages, "max_tokens": 6})
    turns = FilePrompts(file, max_tokens=33).turns(0, 9)
    assert [(turn.text, turn.max_tokens) for turn in turns] == [("one", 6), ("two", 6)]
    assert len(FilePrompts(file, max_tokens=33).turns(0, 1)) == 1


def test_messages_in_which_the_user_says_nothing_make_no_session(tmp_path: Path) -> None:
    """Named by its entry."""
    file = lines(tmp_path, {"prompt": "a"}, {"messages": [{"role": "system", "content": "s"}]})
    with pytest.raises(BadInputError, match="entry 2 of the prompts: the user says nothing"):
        FilePrompts(file, max_tokens=5).turns(1, 3)


def test_each_round_of_a_file_has_a_mark_of_its_own(tmp_path: Path) -> None:
    """Three lines: 0..2 are marked alike, 3..5 otherwise; what lines of a round share stays shared."""
    file = lines(
        tmp_path, {"prompt": "a"}, {"messages": [{"role": "user", "content": "b"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "c"}]}]},
    )  # fmt: skip
    prompts = FilePrompts(file, max_tokens=5, seed=4)
    texts = [json.dumps(prompts[i].messages) + prompts[i].text for i in range(6)]
    assert prompts.mark(0) == prompts.mark(2) != prompts.mark(3)
    assert all(prompts.mark(i).strip() in text for i, text in enumerate(texts))
    assert FilePrompts(file, max_tokens=5)[0].text == "a"
    assert FilePrompts(file, max_tokens=5, seed=5).mark(0) != prompts.mark(0)


# --------------------------------------------------------------------------- answers as history


def test_an_answer_goes_back_without_its_thinking() -> None:
    """From each server's own stream: text, calls, and arguments put together again."""

    def said(stream: Any) -> Said:
        line = Line(whole=True).receive(wire_of(stream).data)
        return read_answer(stream.endpoint, line.exchange)

    assert said(VLLM_CHAT).message == {"role": "assistant", "content": 'It\'s "so"\n 日本 🦜'}
    assert said(OPENAI_TOOLS).message == {
        "role": "assistant",
        "content": "Looking",
        "tool_calls": [
            {
                "id": "call_a1",
                "type": "function",
                "function": {"name": "read_file", "arguments": '{"id":"7"}'},
            },
            {"id": "call_a2", "type": "function", "function": {"name": "list_file", "arguments": "{}"}},
        ],
    }
    assert said(ANTHROPIC) == Said(
        text="Okay 👋", calls=[Call(id="toolu_1", name="get_weather", arguments='{"location": "SF"}')]
    )
    assert said(OPENAI_RESPONSES) == Said(text="Grüß Gott", calls=[Call(id="c1", name="f", arguments="{}")])


@pytest.mark.parametrize("arguments", ['{"a": ', "", "7", "[]", "{" * 3000])
def test_arguments_that_were_cut_off_go_back_empty(arguments: str) -> None:
    """The server would refuse the next turn over them; a call without a name or id gets one."""
    message = Said(calls=[Call(arguments=arguments)]).message
    (call,) = message["tool_calls"]
    assert call == {"id": "call_0", "type": "function", "function": {"name": "unnamed", "arguments": "{}"}}
    assert msgspec.json.decode(request_body("messages", Ask(
        model="m", prompt="", max_tokens=1, messages=[{"role": "user", "content": "q"}, message]
    )))  # fmt: skip

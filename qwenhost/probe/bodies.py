"""What is sent: one conversation, in OpenAI's chat form, written in each of the four dialects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.probe.endpoints import Endpoint

ANTHROPIC_VERSION: Final = "2023-06-01"
THINKING_BUDGET: Final = 1024
"""The least that Claude's API takes; it is added to the tokens of the answer."""
_BREAKPOINT: Final = {"cache_control": {"type": "ephemeral"}}

Message = dict[str, Any]
ToolChoice = Literal["auto", "required", "none"]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A picture as it travels."""

    media_type: str
    base64: str


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for."""

    model: str
    prompt: str
    max_tokens: int
    exact_output: bool = False
    """Ask vLLM to go on to exactly ``max_tokens``: no stop at the end-of-sequence token."""
    thinking: bool | None = None
    """None leaves the server's default."""
    temperature: float | None = None
    messages: list[Message] | None = None
    """A conversation, in place of ``prompt``."""
    images: tuple[Image, ...] = ()
    """Shown before the text of the last user message."""
    tools: tuple[dict[str, Any], ...] = ()
    """Functions in OpenAI's form: name, description, parameters."""
    tool_choice: ToolChoice | None = None
    anthropic: bool = False
    """For Claude's own API, which refuses fields that it does not know."""
    extra_body: Mapping[str, Any] = {}
    """Further fields, merged in last."""
    cache: bool = False
    """Mark the end of the conversation for Claude's prompt cache; others need no mark."""


def request_body(endpoint: Endpoint, ask: Ask) -> bytes:
    """The JSON body of a streaming request."""
    body: dict[str, Any] = {"model": ask.model, "stream": True}
    if ask.temperature is not None:
        body["temperature"] = ask.temperature
    body |= _WRITERS[endpoint](ask)
    if ask.exact_output:
        body |= {"ignore_eos": True, "min_tokens": ask.max_tokens}
    if ask.thinking is not None and endpoint != "completions" and not ask.anthropic:
        body["chat_template_kwargs"] = {"enable_thinking": ask.thinking}
    return msgspec.json.encode(_merged(body, ask.extra_body))


def _merged(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Objects within objects are merged, all else is replaced."""
    merged = dict(body)
    for name, value in extra.items():
        inner = merged.get(name)
        both = isinstance(inner, dict) and isinstance(value, dict)
        merged[name] = _merged(inner, value) if both else value  # type: ignore[arg-type] # both looked at them
    return merged


def auth_headers(
    endpoint: Endpoint, api_key: str | None, *, anthropic: bool = False
) -> list[tuple[str, str]]:
    """Bearer token for all (vLLM takes nothing else), Anthropic's own headers besides for messages.

    Claude's API takes a bearer for another kind of key, so it gets ``x-api-key`` alone.
    """
    headers = [("Authorization", f"Bearer {api_key}")] if api_key and not anthropic else []
    if endpoint == "messages":
        headers.append(("anthropic-version", ANTHROPIC_VERSION))
        if api_key:
            headers.append(("x-api-key", api_key))
    return headers


def conversation(ask: Ask) -> list[Message]:
    """The messages in OpenAI's chat form, without the images."""
    return ask.messages or [{"role": "user", "content": ask.prompt}]


# --------------------------------------------------------------------------- the dialects


def _chat(ask: Ask) -> dict[str, Any]:
    images = [
        {"type": "image_url", "image_url": {"url": f"data:{image.media_type};base64,{image.base64}"}}
        for image in ask.images
    ]
    body: dict[str, Any] = {
        "messages": _with_parts(conversation(ask), images, "text"),
        "max_completion_tokens": ask.max_tokens,
        "stream_options": {"include_usage": True},
    }
    if ask.tools:
        body["tools"] = [{"type": "function", "function": tool} for tool in ask.tools]
        body["tool_choice"] = ask.tool_choice or "auto"
    return body


def _completions(ask: Ask) -> dict[str, Any]:
    return {
        "prompt": ask.prompt if ask.messages is None else _as_text(ask.messages),
        "max_tokens": ask.max_tokens,
        "stream_options": {"include_usage": True},
    }


def _responses(ask: Ask) -> dict[str, Any]:
    images = [
        {"type": "input_image", "detail": "auto", "image_url": f"data:{i.media_type};base64,{i.base64}"}
        for i in ask.images
    ]
    items: list[Message] = []
    for message in _with_parts(conversation(ask), images, "input_text"):
        items += _response_items(message)
    body: dict[str, Any] = {"input": items, "max_output_tokens": ask.max_tokens}
    if ask.tools:
        body["tools"] = [{"type": "function", **tool} for tool in ask.tools]
        body["tool_choice"] = ask.tool_choice or "auto"
    return body


def _response_items(message: Message) -> list[Message]:
    if message["role"] == "tool":
        call_id, output = message["tool_call_id"], message.get("content") or ""
        return [{"type": "function_call_output", "call_id": call_id, "output": output}]
    calls = [
        {"type": "function_call", "call_id": call["id"], **call["function"]}
        for call in message.get("tool_calls") or ()
    ]
    said = {key: value for key, value in message.items() if key != "tool_calls"}
    return ([said] if said.get("content") else []) + calls


def _messages(ask: Ask) -> dict[str, Any]:
    images = [
        {"type": "image", "source": {"type": "base64", "media_type": i.media_type, "data": i.base64}}
        for i in ask.images
    ]
    said = _with_parts(conversation(ask), images, "text")
    system = [message for message in said if message["role"] == "system"]
    messages = [_anthropic_message(message) for message in said if message["role"] != "system"]
    body: dict[str, Any] = {"messages": messages, "max_tokens": ask.max_tokens}
    if system:
        body["system"] = _as_text(system)
    if ask.tools:
        body["tools"] = [
            {"name": tool["name"], "description": tool.get("description", ""),
             "input_schema": tool.get("parameters") or {"type": "object", "properties": {}}}
            for tool in ask.tools
        ]  # fmt: skip
        body["tool_choice"] = {
            "type": {"required": "any"}.get(str(ask.tool_choice), ask.tool_choice or "auto")
        }
    if ask.anthropic and ask.thinking:
        body["thinking"] = {"type": "enabled", "budget_tokens": THINKING_BUDGET}
        body["max_tokens"] = ask.max_tokens + THINKING_BUDGET
    if ask.anthropic and ask.cache and messages and messages[-1].get("content"):
        _mark_for_cache(messages[-1])
    return body


def _anthropic_message(message: Message) -> Message:
    """Calls and results of tools are content of their own kind, and results are said by the user."""
    if message["role"] == "tool":
        result = {
            "type": "tool_result",
            "tool_use_id": message["tool_call_id"],
            "content": message.get("content") or "",
        }
        return {"role": "user", "content": [result]}
    if not message.get("tool_calls"):
        return message
    content: list[Message] = []
    if isinstance(message.get("content"), list):
        content += message["content"]
    elif message.get("content"):
        content.append({"type": "text", "text": message["content"]})
    for call in message["tool_calls"]:
        function = call["function"]
        content.append(
            {"type": "tool_use", "id": call["id"], "name": function["name"],
             "input": msgspec.Raw(function["arguments"].encode() or b"{}")}
        )  # fmt: skip
    return {"role": "assistant", "content": content}


def _mark_for_cache(message: Message) -> None:
    if isinstance(message["content"], str):
        message["content"] = [{"type": "text", "text": message["content"]}]
    message["content"] = [*message["content"][:-1], message["content"][-1] | _BREAKPOINT]


_WRITERS: Final = {"chat": _chat, "completions": _completions, "responses": _responses, "messages": _messages}


def _with_parts(messages: Sequence[Message], images: list[Message], text_type: str) -> list[Message]:
    """The images put before the text of the last user message; no message is changed in place."""
    copied = [dict(message) for message in messages]
    if images:
        last = next((m for m in reversed(copied) if m["role"] == "user"), None)
        if last is None:
            last = {"role": "user", "content": None}
            copied.append(last)
        content = last.get("content")
        parts = [{"type": text_type, "text": content}] if isinstance(content, str) else list(content or ())
        last["content"] = [*images, *parts]
    return copied


def _as_text(messages: Sequence[Message]) -> str:
    return "\n".join(_text_of(message.get("content")) for message in messages)


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return "" if content is None else str(content)

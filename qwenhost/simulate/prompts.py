"""The stand-in for the chat template: messages, tools and images as tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.simulate.text import (
    TEMPLATE_TOKENS_PER_MESSAGE,
    TEMPLATE_TOKENS_PER_PROMPT,
    TOKENS_PER_IMAGE,
    tokenize,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Content = str | list[dict[str, Any]] | None
BILLING_HEADER = "x-anthropic-billing-header"


class Message(msgspec.Struct):
    """One turn."""

    role: str
    content: Content = None
    tool_calls: list[dict[str, Any]] | None = None


def system_texts(content: Content) -> list[str]:
    """Texts of a system prompt, without the line in which a client names each request anew."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    texts = [str(block.get("text") or "") for block in blocks if block.get("type") == "text"]
    return [text for text in texts if text and not text.startswith(BILLING_HEADER)]


def tool_messages(tools: list[dict[str, Any]] | None) -> list[Message]:
    """Definitions of tools are part of the prompt: a system message of their JSON."""
    return [Message("system", msgspec.json.encode(tools).decode())] if tools else []


def chat_tokens(messages: Sequence[Message]) -> list[str]:
    """Tokens of a conversation with the template's marks around each message."""
    tokens: list[str] = []
    for message in messages:
        content = [*_content_tokens(message.content), *_call_tokens(message.tool_calls)]
        tokens += ["<|im_start|>", message.role, *content, "<|im_end|>", "\n"]
    return [*tokens, "<|im_start|>", "assistant", "\n"]


def item_message(item: dict[str, Any]) -> Message:
    """An item of ``/v1/responses``: a message, a call of a tool, or what it gave."""
    if item.get("type") == "function_call":
        return Message("assistant", tool_calls=[{"function": item}])
    if item.get("type") == "function_call_output":
        return Message("tool", item.get("output"))
    return Message(str(item.get("role", "user")), item.get("content"))


def _call_tokens(calls: list[dict[str, Any]] | None) -> list[str]:
    tokens: list[str] = []
    for call in calls or ():
        function = call.get("function") or {}
        tokens += tokenize(f"{function.get('name')} {function.get('arguments')}")
    return tokens


def _content_tokens(content: Content) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return tokenize(content)
    tokens: list[str] = []
    for part in content:
        tokens += _part_tokens(part)
    return tokens


def _part_tokens(part: dict[str, Any]) -> list[str]:
    kind = str(part.get("type"))
    if "image" in kind:
        return ["<|image_pad|>"] * TOKENS_PER_IMAGE
    if kind == "tool_use":
        return tokenize(f"{part.get('name')} {msgspec.json.encode(part.get('input')).decode()}")
    inner = part.get("content")
    if isinstance(inner, list):  # what a tool gave: texts and images of its own
        return [token for each in inner if isinstance(each, dict) for token in _part_tokens(each)]
    return tokenize(str(part.get("text") or part.get("thinking") or inner or ""))


assert len(chat_tokens([Message("user")])) - TEMPLATE_TOKENS_PER_PROMPT == TEMPLATE_TOKENS_PER_MESSAGE  # noqa: S101

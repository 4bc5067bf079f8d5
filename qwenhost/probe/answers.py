"""What an answer said, to go on with the conversation; read only where something follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.files import NOT_JSON
from qwenhost.probe.sse import events

if TYPE_CHECKING:
    from qwenhost.probe.bodies import Message
    from qwenhost.probe.endpoints import Endpoint
    from qwenhost.probe.exchange import Exchange


class Call(msgspec.Struct):
    """One call of a tool."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class Said(msgspec.Struct):
    """An answer without its thinking, which chat templates leave out of later turns."""

    text: str = ""
    calls: list[Call] = msgspec.field(default_factory=list)

    @property
    def message(self) -> Message:
        """As a message of the conversation, in OpenAI's form."""
        if not self.calls:
            return {"role": "assistant", "content": self.text}
        calls = [
            {"id": call.id or f"call_{i}", "type": "function",
             "function": {"name": call.name or "unnamed", "arguments": _json_object(call.arguments)}}
            for i, call in enumerate(self.calls)
        ]  # fmt: skip
        return {"role": "assistant", "content": self.text, "tool_calls": calls}


def read_answer(endpoint: Endpoint, exchange: Exchange) -> Said:
    """The answer of an exchange whose stream was decoded without error."""
    said = Said()
    take = {"messages": _take_messages, "responses": _take_responses}.get(endpoint, _take_openai)
    for _, data in events(exchange.body, exchange.times, exchange.ends):
        if data != b"[DONE]":
            take(said, msgspec.json.decode(data))
    return said


def _take_openai(said: Said, chunk: dict[str, Any]) -> None:
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        said.text += delta.get("content") or choice.get("text") or ""
        for piece in delta.get("tool_calls") or ():
            index = piece.get("index") or 0
            while len(said.calls) <= index:
                said.calls.append(Call())
            _add(said.calls[index], piece.get("id"), piece.get("function") or {})


def _take_messages(said: Said, event: dict[str, Any]) -> None:
    block, delta = event.get("content_block") or {}, event.get("delta") or {}
    if event.get("type") == "content_block_start" and block.get("type") == "tool_use":
        said.calls.append(Call(id=block.get("id") or "", name=block.get("name") or ""))
    elif event.get("type") == "content_block_delta":
        said.text += delta.get("text") or ""
        if said.calls:
            said.calls[-1].arguments += delta.get("partial_json") or ""


def _take_responses(said: Said, event: dict[str, Any]) -> None:
    kind, item = event.get("type"), event.get("item") or {}
    if kind == "response.output_text.delta":
        said.text += event.get("delta") or ""
    elif kind == "response.output_item.added" and item.get("type") == "function_call":
        said.calls.append(Call(id=item.get("call_id") or "", name=item.get("name") or ""))
    elif kind == "response.function_call_arguments.delta" and said.calls:
        said.calls[-1].arguments += event.get("delta") or ""


def _add(call: Call, id_: str | None, function: dict[str, Any]) -> None:
    call.id = call.id or id_ or ""
    call.name += function.get("name") or ""
    call.arguments += function.get("arguments") or ""


def _json_object(arguments: str) -> str:
    """Arguments that were cut off or malformed would be refused in the next request."""
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except NOT_JSON:
        return "{}"
    return arguments

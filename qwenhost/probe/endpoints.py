"""The four dialects: their paths, and what a streamed answer says.

Chat and completions follow OpenAI, responses OpenAI's newer API, messages Anthropic. A decoder is fed
one event at a time and notes when text arrived, whether it was thinking, and the server's own token
counts. A chunk may carry several tokens (speculative decoding, stream intervals), so tokens are the
server's ``usage`` and chunks only give the times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from qwenhost.files import NOT_JSON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Endpoint = Literal["chat", "completions", "responses", "messages"]

PATHS: Final[Mapping[str, str]] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


class StreamDecoder(ABC):
    """What a streamed answer said, event by event."""

    def __init__(self) -> None:
        self.chunk_times: list[float] = []
        """Arrival of every event that carried text, in the order of the stream."""
        self.first_visible: float | None = None
        self.prompt_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cached_tokens = 0
        self.reasoning_tokens: int | None = None
        self.tool_calls = 0
        self.cache_written_tokens = 0
        """Claude bills what it writes into its cache apart."""
        self.ended = False
        """The stream said that it is over."""
        self.error: str | None = None
        self.detail = ""

    def feed(self, arrival: float, data: bytes) -> None:
        """Take one event; a malformed one or a reported error is noted, never raised."""
        try:
            self.decode(arrival, data)
        except NOT_JSON as error:
            self.fail("malformed_event", f"{error}: {data[:120]!r}")

    @abstractmethod
    def decode(self, arrival: float, data: bytes) -> None:
        """Take one event.

        Raises:
            msgspec.DecodeError: not the JSON expected.
        """

    def text(self, arrival: float, *, visible: bool) -> None:
        """Note a chunk that carried text."""
        self.chunk_times.append(arrival)
        if visible and self.first_visible is None:
            self.first_visible = arrival

    def fail(self, kind: str, detail: str) -> None:
        """Note the first thing that went wrong."""
        if self.error is None:
            self.error, self.detail = kind, detail[:300]


_ABSENT: Final = msgspec.Raw()
_EMPTY: Final = (b"", b"null", b"[]", b"{}", b'""')


def _carries(raw: msgspec.Raw) -> bool:
    """Whether an undecoded value is there and not empty."""
    return len(raw) > 0 and bytes(raw) not in _EMPTY


class _CachedDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _ReasoningDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _ChatUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedDetails | None = None
    completion_tokens_details: _ReasoningDetails | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None

    @property
    def begins(self) -> bool:
        """Whether a call begins here; what follows are pieces of its arguments."""
        return self.function is not None and bool(self.function.name)


_tool_calls = msgspec.json.Decoder(tuple[_ToolCall, ...]).decode


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw = _ABSENT


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _OpenAiChunk(msgspec.Struct, gc=False):
    choices: tuple[_Choice, ...] | None = None
    usage: _ChatUsage | None = None
    error: msgspec.Raw = _ABSENT


class _OpenAiDecoder(StreamDecoder):
    """Chat completions and completions."""

    _decode: Callable[[bytes], _OpenAiChunk] = msgspec.json.Decoder(_OpenAiChunk).decode

    def decode(self, arrival: float, data: bytes) -> None:
        if data == b"[DONE]":
            self.ended = True
            return
        chunk = self._decode(data)
        for choice in chunk.choices or ():
            delta = choice.delta
            if delta is None:
                if choice.text:
                    self.text(arrival, visible=True)
            elif _carries(delta.tool_calls):  # Text may come with them: still one chunk.
                self._take_calls(arrival, delta.tool_calls)
            elif delta.content:
                self.text(arrival, visible=True)
            elif delta.reasoning or delta.reasoning_content:
                self.text(arrival, visible=False)
            if choice.finish_reason is not None:
                self.ended = True
        if chunk.usage is not None or len(chunk.error):
            self._take_rest(chunk)

    def _take_rest(self, chunk: _OpenAiChunk) -> None:
        if chunk.usage is not None:
            self._take_usage(chunk.usage)
        if _carries(chunk.error):
            self.fail("server_error", bytes(chunk.error).decode(errors="replace"))

    def _take_calls(self, arrival: float, calls: msgspec.Raw) -> None:
        self.text(arrival, visible=True)
        self.tool_calls += sum(call.begins for call in _tool_calls(calls))

    def _take_usage(self, usage: _ChatUsage) -> None:
        self.prompt_tokens, self.output_tokens = usage.prompt_tokens, usage.completion_tokens
        if usage.prompt_tokens_details is not None:
            self.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0
        if usage.completion_tokens_details is not None:
            self.reasoning_tokens = usage.completion_tokens_details.reasoning_tokens


class _ResponsesUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _CachedDetails | None = None
    output_tokens_details: _ReasoningDetails | None = None


class _Response(msgspec.Struct):
    usage: _ResponsesUsage | None = None
    error: msgspec.Raw = _ABSENT


class _Item(msgspec.Struct):
    type: str = ""


class _ResponsesEvent(msgspec.Struct):
    type: str = ""
    item: _Item | None = None
    delta: msgspec.Raw = _ABSENT
    response: _Response | None = None
    message: str | None = None


_VISIBLE_RESPONSE_DELTAS: Final = frozenset(
    {"response.output_text.delta", "response.function_call_arguments.delta", "response.refusal.delta"}
)
_THINKING_RESPONSE_DELTAS: Final = frozenset(
    {"response.reasoning_text.delta", "response.reasoning_summary_text.delta", "response.reasoning.delta"}
)


class _ResponsesDecoder(StreamDecoder):
    _decode: Callable[[bytes], _ResponsesEvent] = msgspec.json.Decoder(_ResponsesEvent).decode

    def decode(self, arrival: float, data: bytes) -> None:
        if data == b"[DONE]":
            return
        event = self._decode(data)
        if event.type in _VISIBLE_RESPONSE_DELTAS or event.type in _THINKING_RESPONSE_DELTAS:
            if _carries(event.delta):
                self.text(arrival, visible=event.type in _VISIBLE_RESPONSE_DELTAS)
        elif event.type == "response.output_item.added":
            if event.item is not None and event.item.type == "function_call":
                self.tool_calls += 1
                self.text(arrival, visible=True)  # A call without arguments has no further event.
        elif event.type in ("response.completed", "response.incomplete", "response.failed"):
            self.ended = True
            if event.response is not None and event.response.usage is not None:
                self._take_usage(event.response.usage)
            if event.type == "response.failed":
                self.fail("server_error", data.decode(errors="replace"))
        elif event.type == "error":
            self.fail("server_error", event.message or data.decode(errors="replace"))

    def _take_usage(self, usage: _ResponsesUsage) -> None:
        self.prompt_tokens, self.output_tokens = usage.input_tokens, usage.output_tokens
        if usage.input_tokens_details is not None:
            self.cached_tokens = usage.input_tokens_details.cached_tokens or 0
        if usage.output_tokens_details is not None:
            self.reasoning_tokens = usage.output_tokens_details.reasoning_tokens


class _MessagesUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Message(msgspec.Struct):
    usage: _MessagesUsage | None = None


class _MessagesDelta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _MessagesBlock(msgspec.Struct):
    type: str = ""


class _MessagesError(msgspec.Struct):
    type: str = ""


class _MessagesEvent(msgspec.Struct):
    type: str = ""
    content_block: _MessagesBlock | None = None
    delta: _MessagesDelta | None = None
    message: _Message | None = None
    usage: _MessagesUsage | None = None
    error: _MessagesError | None = None


class _MessagesDecoder(StreamDecoder):
    _decode: Callable[[bytes], _MessagesEvent] = msgspec.json.Decoder(_MessagesEvent).decode

    def decode(self, arrival: float, data: bytes) -> None:
        if data == b"[DONE]":
            return
        event = self._decode(data)
        if event.type == "content_block_delta" and event.delta is not None:
            if event.delta.text or event.delta.partial_json:
                self.text(arrival, visible=True)
            elif event.delta.thinking:
                self.text(arrival, visible=False)
        elif event.type == "message_start" and event.message is not None:
            self._take_usage(event.message.usage)
        elif event.type == "message_delta":
            self._take_usage(event.usage)
        elif event.type == "message_stop":
            self.ended = True
        else:
            self._take_rare(arrival, event, data)

    def _take_rare(self, arrival: float, event: _MessagesEvent, data: bytes) -> None:
        block = event.content_block
        if event.type == "content_block_start" and block is not None and block.type == "tool_use":
            self.tool_calls += 1
            self.text(arrival, visible=True)  # A call without arguments has no further event.
        elif event.type == "error":
            kind = "" if event.error is None else event.error.type
            said = data.decode(errors="replace")
            self.fail("overloaded" if kind == "overloaded_error" else "server_error", said)

    def _take_usage(self, usage: _MessagesUsage | None) -> None:
        """Anthropic counts cached and uncached input apart; the prompt is their sum."""
        if usage is None:
            return
        read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        prompt_tokens = (usage.input_tokens or 0) + read + written
        if prompt_tokens:
            self.prompt_tokens, self.cached_tokens, self.cache_written_tokens = prompt_tokens, read, written
        if usage.output_tokens is not None:
            self.output_tokens = usage.output_tokens


_DECODERS: Final[Mapping[str, type[StreamDecoder]]] = {
    "chat": _OpenAiDecoder,
    "completions": _OpenAiDecoder,
    "responses": _ResponsesDecoder,
    "messages": _MessagesDecoder,
}


def decoder(endpoint: Endpoint) -> StreamDecoder:
    """A fresh decoder for one answer."""
    return _DECODERS[endpoint]()

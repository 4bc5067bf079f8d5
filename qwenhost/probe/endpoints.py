"""The four dialects: what to send, and what the streamed answer says.

Chat and completions follow OpenAI, responses OpenAI's newer API, messages Anthropic. A decoder is fed
one event at a time and notes when text arrived, whether it was thinking, and the server's own token
counts. A chunk may carry several tokens (speculative decoding, stream intervals), so tokens are the
server's ``usage`` and chunks only give the times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Endpoint = Literal["chat", "completions", "responses", "messages"]

PATHS: Final[Mapping[str, str]] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


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
    messages: list[dict[str, Any]] | None = None
    """The user's own conversation, in place of ``prompt``."""


def request_body(endpoint: Endpoint, ask: Ask) -> bytes:
    """The JSON body of a streaming request."""
    body: dict[str, Any] = {"model": ask.model, "stream": True}
    if ask.temperature is not None:
        body["temperature"] = ask.temperature
    messages = ask.messages or [{"role": "user", "content": ask.prompt}]
    if endpoint == "chat":
        body |= {
            "messages": messages,
            "max_completion_tokens": ask.max_tokens,
            "stream_options": {"include_usage": True},
        }
    elif endpoint == "completions":
        body |= {
            "prompt": ask.prompt if ask.messages is None else _as_text(ask.messages),
            "max_tokens": ask.max_tokens,
            "stream_options": {"include_usage": True},
        }
    elif endpoint == "responses":
        body |= {"input": messages, "max_output_tokens": ask.max_tokens}
    else:
        body |= {"messages": messages, "max_tokens": ask.max_tokens}
    if ask.exact_output:
        body |= {"ignore_eos": True, "min_tokens": ask.max_tokens}
    if ask.thinking is not None and endpoint != "completions":
        body["chat_template_kwargs"] = {"enable_thinking": ask.thinking}
    return msgspec.json.encode(body)


def auth_headers(endpoint: Endpoint, api_key: str | None) -> list[tuple[str, str]]:
    """Bearer token for all (vLLM takes nothing else), Anthropic's own headers besides for messages."""
    headers = [("Authorization", f"Bearer {api_key}")] if api_key else []
    if endpoint == "messages":
        headers.append(("anthropic-version", "2023-06-01"))
        if api_key:
            headers.append(("x-api-key", api_key))
    return headers


def _as_text(messages: list[dict[str, Any]]) -> str:
    return "\n".join(str(message.get("content", "")) for message in messages)


# --------------------------------------------------------------------------- the answer


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
        self.ended = False
        """The stream said that it is over."""
        self.error: str | None = None
        self.detail = ""

    def feed(self, arrival: float, data: bytes) -> None:
        """Take one event; a malformed one or a reported error is noted, never raised."""
        try:
            self.decode(arrival, data)
        except msgspec.DecodeError as error:
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
            elif delta.content or _carries(delta.tool_calls):
                self.text(arrival, visible=True)
            elif delta.reasoning or delta.reasoning_content:
                self.text(arrival, visible=False)
            if choice.finish_reason is not None:
                self.ended = True
        if chunk.usage is not None:
            self._take_usage(chunk.usage)
        if _carries(chunk.error):
            self.fail("server_error", bytes(chunk.error).decode(errors="replace"))

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


class _ResponsesEvent(msgspec.Struct):
    type: str = ""
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


class _MessagesEvent(msgspec.Struct):
    type: str = ""
    delta: _MessagesDelta | None = None
    message: _Message | None = None
    usage: _MessagesUsage | None = None
    error: msgspec.Raw = _ABSENT


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
        elif event.type == "error":
            self.fail("server_error", data.decode(errors="replace"))

    def _take_usage(self, usage: _MessagesUsage | None) -> None:
        """Anthropic counts cached and uncached input apart; the prompt is their sum."""
        if usage is None:
            return
        read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        prompt_tokens = (usage.input_tokens or 0) + read + written
        if prompt_tokens:
            self.prompt_tokens, self.cached_tokens = prompt_tokens, read
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

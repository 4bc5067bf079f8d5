"""What clients send, in the fields that matter to a simulated engine; the rest is accepted and ignored."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from qwenhost.files import NOT_JSON
from qwenhost.simulate.text import (
    TEMPLATE_TOKENS_PER_MESSAGE,
    TEMPLATE_TOKENS_PER_PROMPT,
    TOKENS_PER_IMAGE,
    tokenize,
)

T = TypeVar("T")
Content = str | list[dict[str, Any]] | None


class RequestError(Exception):
    """A request vLLM would refuse: status, its name of the error, and the text."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind


class Message(msgspec.Struct):
    """One turn."""

    role: str
    content: Content = None


class Ask(msgspec.Struct, kw_only=True):
    """Fields the four APIs share."""

    model: str | None = None
    stream: bool | None = False
    min_tokens: int | None = None
    ignore_eos: bool | None = False
    n: int | None = 1
    stop: str | list[str] | None = None
    stop_sequences: list[str] | None = None
    stream_options: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings under either API's name."""
        given = [self.stop] if isinstance(self.stop, str) else (self.stop or [])
        return (*given, *(self.stop_sequences or ()))

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage event."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def output_limit(self) -> int | None:
        """Most tokens to answer with."""
        return None

    @property
    def thinks(self) -> bool:
        """Qwen3.5 thinks unless told otherwise."""
        return bool((self.chat_template_kwargs or {}).get("enable_thinking", True))

    def prompt(self) -> list[str]:
        """Tokens of the prompt."""
        raise NotImplementedError


class ChatAsk(Ask, kw_only=True):
    """``/v1/chat/completions``."""

    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None

    @property
    def output_limit(self) -> int | None:
        """The newer name goes first."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def prompt(self) -> list[str]:
        """Through the stand-in for the chat template."""
        return chat_tokens(self.messages)


class CompletionAsk(Ask, kw_only=True):
    """``/v1/completions``."""

    prompt_: str | list[Any] = msgspec.field(name="prompt", default="")
    max_tokens: int | None = 16

    @property
    def output_limit(self) -> int | None:
        """16 unless said otherwise, as in OpenAI's API."""
        return self.max_tokens

    @property
    def thinks(self) -> bool:
        """No template, no thinking."""
        return False

    def prompt(self) -> list[str]:
        """Text, or token numbers as they are."""
        given: Any = self.prompt_
        if isinstance(given, list) and len(given) == 1 and not isinstance(given[0], int):
            given = given[0]
        if isinstance(given, str):
            return tokenize(given)
        if all(isinstance(token, int) for token in given):
            return [str(token) for token in given]
        raise RequestError(400, "several prompts in one request are not simulated; send one each")


class MessagesAsk(Ask, kw_only=True):
    """Anthropic's ``/v1/messages``."""

    messages: list[Message]
    max_tokens: int | None = None
    system: Content = None
    thinking: dict[str, Any] | None = None

    @property
    def output_limit(self) -> int | None:
        """Required in Anthropic's API; vLLM insists as well."""
        return self.max_tokens

    @property
    def thinks(self) -> bool:
        """``thinking: {"type": "disabled"}`` turns it off, and so does the chat template's switch."""
        off = (self.thinking or {}).get("type") == "disabled"
        return not off and bool((self.chat_template_kwargs or {}).get("enable_thinking", True))

    def prompt(self) -> list[str]:
        """The system text is a message of its own."""
        system = [Message("system", self.system)] if self.system else []
        return chat_tokens([*system, *self.messages])


class ResponsesAsk(Ask, kw_only=True):
    """``/v1/responses``."""

    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    max_output_tokens: int | None = None

    @property
    def output_limit(self) -> int | None:
        """Thinking included."""
        return self.max_output_tokens

    def prompt(self) -> list[str]:
        """Instructions are a system message; items are messages."""
        system = [Message("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return chat_tokens([*system, Message("user", self.input)])
        items = [Message(str(item.get("role", "user")), item.get("content")) for item in self.input]
        return chat_tokens([*system, *items])


class TokenizeAsk(CompletionAsk, kw_only=True):
    """``/tokenize``: a prompt or messages."""

    messages: list[Message] | None = None

    def prompt(self) -> list[str]:
        """Counted as the other endpoints count."""
        return chat_tokens(self.messages) if self.messages is not None else super().prompt()


def decode(body: bytes, kind: type[T]) -> T:
    """A request's body.

    Raises:
        RequestError: not JSON, or a field of the wrong type.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except NOT_JSON as error:
        raise RequestError(400, str(error)) from error


def chat_tokens(messages: list[Message]) -> list[str]:
    """Tokens of a conversation with the template's marks around each message."""
    tokens: list[str] = []
    for message in messages:
        tokens += ["<|im_start|>", message.role, *_content_tokens(message.content), "<|im_end|>", "\n"]
    return [*tokens, "<|im_start|>", "assistant", "\n"]


def _content_tokens(content: Content) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return tokenize(content)
    tokens: list[str] = []
    for part in content:
        if "image" in str(part.get("type")):
            tokens += ["<|image_pad|>"] * TOKENS_PER_IMAGE
        else:
            tokens += tokenize(str(part.get("text") or part.get("thinking") or part.get("content") or ""))
    return tokens


assert len(chat_tokens([Message("user")])) - TEMPLATE_TOKENS_PER_PROMPT == TEMPLATE_TOKENS_PER_MESSAGE  # noqa: S101

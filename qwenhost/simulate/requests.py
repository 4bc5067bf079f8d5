"""What clients send, in the fields that matter to a simulated engine; the rest is accepted and ignored."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from qwenhost.files import NOT_JSON
from qwenhost.simulate.prompts import Content, Message, chat_tokens, item_message, system_texts, tool_messages
from qwenhost.simulate.text import tokenize

T = TypeVar("T")

INVALID = "Bad Request"
"""vLLM's name of what its request models refuse; what its sampling parameters refuse is a BadRequestError."""
COMPLETION_MAX_TOKENS = 16


class RequestError(Exception):
    """A request vLLM would refuse: status, its name of the error, the text, and the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "BadRequestError",
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param = status, message, kind, param
        self.retry_after_s = retry_after_s


def invalid(message: str, param: str | None = None) -> RequestError:
    """What vLLM's request models refuse, before any handler sees it."""
    return RequestError(400, f"1 validation error:\n  {message}", INVALID, param=param)


class Turn(msgspec.Struct):
    """One turn as Anthropic has it."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


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
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[dict[str, Any]] | None = None

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
    def continuous_usage(self) -> bool:
        """Whether every event of the stream carries the usage so far."""
        return self.include_usage and bool((self.stream_options or {}).get("continuous_usage_stats"))

    @property
    def effort(self) -> str | None:
        """Reasoning effort asked for; ``none`` switches thinking off."""
        return None

    @property
    def output_limit(self) -> int | None:
        """Most tokens to answer with."""
        return None

    @property
    def thinks(self) -> bool:
        """Qwen3.5 thinks unless told otherwise; the template's own switch goes before the effort."""
        switch = (self.chat_template_kwargs or {}).get("enable_thinking")
        return self.effort != "none" if switch is None else bool(switch)

    def prompt(self) -> list[str]:
        """Tokens of the prompt."""
        raise NotImplementedError


class ChatAsk(Ask, kw_only=True):
    """``/v1/chat/completions``."""

    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning_effort: str | None = None

    @property
    def effort(self) -> str | None:
        """OpenAI's field."""
        return self.reasoning_effort

    @property
    def output_limit(self) -> int | None:
        """The newer name goes first."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def prompt(self) -> list[str]:
        """Through the stand-in for the chat template."""
        return chat_tokens([*tool_messages(self.tools), *self.messages])


class CompletionAsk(Ask, kw_only=True):
    """``/v1/completions``."""

    prompt_: str | list[Any] = msgspec.field(name="prompt", default="")
    max_tokens: int | None = COMPLETION_MAX_TOKENS
    logprobs: int | None = None

    @property
    def output_limit(self) -> int | None:
        """16 unless said otherwise, as in OpenAI's API; null says nothing."""
        return COMPLETION_MAX_TOKENS if self.max_tokens is None else self.max_tokens

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


class CountAsk(Ask, kw_only=True):
    """Anthropic's ``/v1/messages/count_tokens``."""

    model: str
    messages: list[Turn]
    system: Content = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    tool_choice: dict[str, Any] | None = None

    @property
    def effort(self) -> str | None:
        """``thinking: {"type": "disabled"}`` is the effort ``none``."""
        if (self.thinking or {}).get("type") == "disabled":
            return "none"
        effort = (self.output_config or {}).get("effort")
        return effort if isinstance(effort, str) else None

    def prompt(self) -> list[str]:
        """System texts go first as one message, wherever they stood: Qwen's template takes no other."""
        texts = system_texts(self.system)
        for turn in self.messages:
            texts += system_texts(turn.content) if turn.role == "system" else []
        turns = [Message(turn.role, turn.content) for turn in self.messages if turn.role != "system"]
        system = [Message("system", "".join(texts))] if texts else []
        return chat_tokens([*tool_messages(self.tools), *system, *turns])


class MessagesAsk(CountAsk, kw_only=True):
    """Anthropic's ``/v1/messages``."""

    max_tokens: int

    @property
    def output_limit(self) -> int | None:
        """Required in Anthropic's API; vLLM insists as well."""
        return self.max_tokens


class ResponsesAsk(Ask, kw_only=True):
    """``/v1/responses``."""

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = True
    previous_response_id: str | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: str = "auto"
    text: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] = "auto"
    truncation: str | None = "disabled"
    user: str | None = None

    @property
    def effort(self) -> str | None:
        """Within ``reasoning``."""
        return (self.reasoning or {}).get("effort")

    @property
    def output_limit(self) -> int | None:
        """Thinking included."""
        return self.max_output_tokens

    def prompt(self) -> list[str]:
        """Instructions are a system message; items are messages."""
        first = tool_messages(self.tools)
        first += [Message("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return chat_tokens([*first, Message("user", self.input)])
        return chat_tokens([*first, *map(item_message, self.input)])


class TokenizeAsk(CompletionAsk, kw_only=True):
    """``/tokenize``: a prompt or messages."""

    messages: list[Message] | None = None
    return_token_strs: bool | None = False

    def prompt(self) -> list[str]:
        """Counted as the other endpoints count."""
        if self.messages is None:
            return super().prompt()
        return chat_tokens([*tool_messages(self.tools), *self.messages])


class DetokenizeAsk(msgspec.Struct):
    """``/detokenize``: token numbers."""

    tokens: list[Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]]
    model: str | None = None


def decode(body: bytes, kind: type[T]) -> T:
    """A request's body.

    Raises:
        RequestError: not JSON, or a field of the wrong type.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except NOT_JSON as error:
        raise invalid(str(error), _param(str(error))) from error


def _param(message: str) -> str:
    """The field a decoding error names, as vLLM writes it: ``body.messages.0.role``."""
    missing = re.search(r"missing required field `(\w+)`", message)
    path = re.search(r"at `\$(.*)`$", message)
    parts = [
        "body",
        *re.findall(r"\w+", path.group(1) if path else ""),
        *(missing.groups() if missing else ()),
    ]
    return ".".join(parts)

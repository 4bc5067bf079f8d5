"""The shapes in which an answer leaves: chat and completions; the others have files of their own.

A dialect turns tokens into bytes of a server-sent event stream, or a finished generation into one JSON
object. The fixed parts of an event are encoded once per request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.simulate.replies import refuse

if TYPE_CHECKING:
    from qwenhost.simulate.generation import Generation
    from qwenhost.simulate.requests import Ask, RequestError

UNFILLED: Final = (
    "service_tier", "system_fingerprint", "kv_transfer_params", "ec_transfer_params", "metrics",
)  # fmt: skip
"""Fields vLLM 0.33 sends as null where no option of the request or of the server fills them."""
UNFILLED_CHAT: Final = ("prompt_logprobs", "prompt_token_ids", "prompt_text")
MARK = "\x00"  # stands for the changing part while an event's frame is encoded


def split_event(event: dict[str, Any], name: str | None = None) -> tuple[bytes, bytes]:
    """The bytes before and after ``MARK`` in an encoded event."""
    before, after = msgspec.json.encode(event).split(b"\\u0000")
    head = f"event: {name}\ndata: ".encode() if name else b"data: "
    return head + before, after + b"\n\n"


def encode_event(event: dict[str, Any], *, named: bool = False) -> bytes:
    """One server-sent event; Anthropic's and the responses' carry their type as its name."""
    name = f"event: {event['type']}\n".encode() if named else b""
    return name + b"data: " + msgspec.json.encode(event) + b"\n\n"


class Dialect(ABC):
    """One API's way of saying it.

    Args:
        generation: the answer.
        ask: the request, for what the answer says of it.
    """

    def __init__(self, generation: Generation, ask: Ask) -> None:
        self.generation = generation
        self.include_usage = ask.include_usage
        self.continuous_usage = ask.continuous_usage

    @abstractmethod
    def begin(self) -> bytes:
        """Sent just before the first token."""

    @abstractmethod
    def tokens(self, start: int, end: int) -> bytes:
        """Events of tokens ``start`` to ``end``, none of them beyond a change from thinking to answer."""

    @abstractmethod
    def end(self) -> bytes:
        """Sent after the last token."""

    @abstractmethod
    def whole(self) -> dict[str, Any]:
        """The answer to a request without streaming."""

    def advance(self, start: int, end: int) -> bytes:
        """Bytes of the next tokens, with all that belongs around them."""
        generation = self.generation
        turn = generation.reasoning_tokens
        parts = [self.begin()] if start == 0 else []
        if start < turn < end:
            parts += [self.tokens(start, turn), self.tokens(turn, end)]
        else:
            parts.append(self.tokens(start, end))
        if end >= generation.output_tokens:
            parts.append(self.end())
        return b"".join(parts)

    def failure(self, error: RequestError, done: int) -> bytes:
        """The end of a stream that breaks off after ``done`` tokens."""
        del done
        return b"data: " + bytes(refuse(error, "").body) + b"\n\ndata: [DONE]\n\n"

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage object as vLLM fills it."""
        g = self.generation
        details = {"prompt_tokens_details": {"cached_tokens": g.cached_tokens}}
        return self.usage_so_far(g.output_tokens) | details

    def usage_so_far(self, done: int) -> dict[str, Any]:
        """The counts after ``done`` tokens."""
        prompt = self.generation.prompt_tokens
        return {"prompt_tokens": prompt, "total_tokens": prompt + done, "completion_tokens": done}


class Chat(Dialect):
    """``/v1/chat/completions``."""

    def __init__(self, generation: Generation, ask: Ask) -> None:
        super().__init__(generation, ask)
        self._frames = {
            (field, last): split_event(self._chunk({field: MARK}, last=last))
            for field in ("reasoning", "content")
            for last in (False, True)
        }

    def begin(self) -> bytes:
        """The role comes first, with empty content."""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}}
        choice |= {"logprobs": None, "finish_reason": None}
        chunk = self._frame([choice]) | {"prompt_token_ids": None, "prompt_text": None}
        return encode_event(chunk | ({"usage": self.usage_so_far(0)} if self.continuous_usage else {}))

    def tokens(self, start: int, end: int) -> bytes:
        """One chunk; the last one says why it ended."""
        g = self.generation
        field = "reasoning" if start < g.reasoning_tokens else "content"
        if self.continuous_usage:
            chunk = self._chunk({field: g.text(start, end)}, last=end >= g.output_tokens)
            return encode_event(chunk | {"usage": self.usage_so_far(end)})
        head, tail = self._frames[field, end >= g.output_tokens]
        return b"".join((head, g.json_text(start, end), tail))

    def end(self) -> bytes:
        """Usage where asked for, then the end mark."""
        usage = encode_event(self._frame([]) | {"usage": self.usage()}) if self.include_usage else b""
        return usage + b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        """A chat completion."""
        g = self.generation
        message = {
            "role": "assistant", "content": g.content or None, "refusal": None, "annotations": None,
            "audio": None, "function_call": None, "reasoning": g.reasoning or None,
        }  # fmt: skip
        choice = {
            "index": 0, "message": message, "logprobs": None,
            "finish_reason": g.finish_reason, "stop_reason": g.stop_sequence, "token_ids": None,
            "routed_experts": None, "weight_versions": None,
        }  # fmt: skip
        named = {"object": "chat.completion", "usage": self.usage()}
        return self._frame([choice]) | named | dict.fromkeys((*UNFILLED, *UNFILLED_CHAT))

    def usage_so_far(self, done: int) -> dict[str, Any]:
        """Tokens spent thinking are counted apart."""
        spent = {"reasoning_tokens": min(done, self.generation.reasoning_tokens)}
        return super().usage_so_far(done) | {"completion_tokens_details": spent}

    def _chunk(self, delta: dict[str, Any], *, last: bool = False) -> dict[str, Any]:
        g = self.generation
        choice = {
            "index": 0, "delta": delta, "logprobs": None,
            "finish_reason": g.finish_reason if last else None, "token_ids": None,
        }  # fmt: skip
        choice |= {"stop_reason": g.stop_sequence, "weight_versions": None} if last else {}
        return self._frame([choice]) | {"kv_transfer_params": None}

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        g = self.generation
        return {
            "id": f"chatcmpl-{g.id}", "object": "chat.completion.chunk", "created": g.created,
            "model": g.model, "choices": choices,
        }  # fmt: skip


class Completions(Dialect):
    """``/v1/completions``: text without roles; thinking is part of the text."""

    def __init__(self, generation: Generation, ask: Ask) -> None:
        super().__init__(generation, ask)
        self._frames = [split_event(self._chunk(MARK, last=last)) for last in (False, True)]

    def begin(self) -> bytes:
        """Nothing precedes the text."""
        return b""

    def tokens(self, start: int, end: int) -> bytes:
        """One chunk of text."""
        if self.continuous_usage:
            chunk = self._chunk(self.generation.text(start, end), last=end >= self.generation.output_tokens)
            return encode_event(chunk | {"usage": self.usage_so_far(end)})
        head, tail = self._frames[end >= self.generation.output_tokens]
        return b"".join((head, self.generation.json_text(start, end), tail))

    def end(self) -> bytes:
        """Usage where asked for, then the end mark."""
        usage = encode_event(self._frame([]) | {"usage": self.usage()}) if self.include_usage else b""
        return usage + b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        """A text completion."""
        text = self.generation.text(0, self.generation.output_tokens)
        choice = self._choice(text, last=True) | {"prompt_logprobs": None, "routed_experts": None}
        usage = self.usage() | {"completion_tokens_details": None}
        return self._frame([choice]) | {"usage": usage} | dict.fromkeys(UNFILLED)

    def _chunk(self, text: str, *, last: bool) -> dict[str, Any]:
        return self._frame([self._choice(text, last=last)]) | {"kv_transfer_params": None}

    def _choice(self, text: str, *, last: bool) -> dict[str, Any]:
        g = self.generation
        return {
            "index": 0, "text": text, "logprobs": None,
            "finish_reason": g.finish_reason if last else None,
            "stop_reason": g.stop_sequence if last else None, "token_ids": None,
            "prompt_token_ids": None, "weight_versions": None,
        }  # fmt: skip

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        g = self.generation
        return {
            "id": f"cmpl-{g.id}", "object": "text_completion", "created": g.created,
            "model": g.model, "choices": choices,
        }  # fmt: skip

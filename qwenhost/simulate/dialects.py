"""The four shapes in which an answer leaves: chat, completions, responses, and Anthropic messages.

A dialect turns tokens into bytes of a server-sent event stream, or a finished generation into one JSON
object. The fixed parts of an event are encoded once per request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from qwenhost.simulate.generation import Generation

MARK = "\x00"  # stands for the changing part while an event's frame is encoded


def _split(event: dict[str, Any], name: str | None = None) -> tuple[bytes, bytes]:
    """The bytes before and after ``MARK`` in an encoded event."""
    before, after = msgspec.json.encode(event).split(b"\\u0000")
    head = f"event: {name}\ndata: ".encode() if name else b"data: "
    return head + before, after + b"\n\n"


def _event(event: dict[str, Any], *, named: bool = False) -> bytes:
    name = f"event: {event['type']}\n".encode() if named else b""
    return name + b"data: " + msgspec.json.encode(event) + b"\n\n"


class Dialect(ABC):
    """One API's way of saying it.

    Args:
        generation: the answer.
        include_usage: whether a chat or completions stream ends with a usage event.
    """

    def __init__(self, generation: Generation, *, include_usage: bool = False) -> None:
        self.generation = generation
        self.include_usage = include_usage

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

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage object as vLLM fills it."""
        g = self.generation
        return {
            "prompt_tokens": g.prompt_tokens,
            "total_tokens": g.prompt_tokens + g.output_tokens,
            "completion_tokens": g.output_tokens,
            "prompt_tokens_details": {"cached_tokens": g.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": g.reasoning_tokens},
        }


class Chat(Dialect):
    """``/v1/chat/completions``."""

    def __init__(self, generation: Generation, *, include_usage: bool = False) -> None:
        super().__init__(generation, include_usage=include_usage)
        self._frames = {
            (field, last): _split(self._chunk({field: MARK}, last=last))
            for field in ("reasoning", "content")
            for last in (False, True)
        }

    def begin(self) -> bytes:
        """The role comes first, with empty content."""
        return _event(self._chunk({"role": "assistant", "content": ""}))

    def tokens(self, start: int, end: int) -> bytes:
        """One chunk; the last one says why it ended."""
        g = self.generation
        field = "reasoning" if start < g.reasoning_tokens else "content"
        head, tail = self._frames[field, end >= g.output_tokens]
        return b"".join((head, g.json_text(start, end), tail))

    def end(self) -> bytes:
        """Usage where asked for, then the end mark."""
        usage = _event(self._frame([]) | {"usage": self.usage()}) if self.include_usage else b""
        return usage + b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        """A chat completion."""
        g = self.generation
        message: dict[str, Any] = {
            "role": "assistant",
            "content": g.content or None,
            "refusal": None,
            "tool_calls": [],
            "reasoning": g.reasoning or None,
        }
        choice = {
            "index": 0, "message": message, "logprobs": None,
            "finish_reason": g.finish_reason, "stop_reason": g.stop_sequence, "token_ids": None,
        }  # fmt: skip
        return self._frame([choice]) | {"object": "chat.completion", "usage": self.usage()}

    def _chunk(self, delta: dict[str, Any], *, last: bool = False) -> dict[str, Any]:
        g = self.generation
        choice = {
            "index": 0, "delta": delta, "logprobs": None,
            "finish_reason": g.finish_reason if last else None, "token_ids": None,
        }  # fmt: skip
        return self._frame([choice | ({"stop_reason": g.stop_sequence} if last else {})])

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        g = self.generation
        return {
            "id": f"chatcmpl-{g.id}", "object": "chat.completion.chunk", "created": g.created,
            "model": g.model, "choices": choices,
        }  # fmt: skip


class Completions(Dialect):
    """``/v1/completions``: text without roles; thinking is part of the text."""

    def __init__(self, generation: Generation, *, include_usage: bool = False) -> None:
        super().__init__(generation, include_usage=include_usage)
        self._frames = [_split(self._frame([self._choice(MARK, last=last)])) for last in (False, True)]

    def begin(self) -> bytes:
        """Nothing precedes the text."""
        return b""

    def tokens(self, start: int, end: int) -> bytes:
        """One chunk of text."""
        head, tail = self._frames[end >= self.generation.output_tokens]
        return b"".join((head, self.generation.json_text(start, end), tail))

    def end(self) -> bytes:
        """Usage where asked for, then the end mark."""
        usage = _event(self._frame([]) | {"usage": self.usage()}) if self.include_usage else b""
        return usage + b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        """A text completion."""
        text = self.generation.text(0, self.generation.output_tokens)
        return self._frame([self._choice(text, last=True)]) | {"usage": self.usage()}

    def _choice(self, text: str, *, last: bool) -> dict[str, Any]:
        g = self.generation
        return {
            "index": 0, "text": text, "logprobs": None,
            "finish_reason": g.finish_reason if last else None,
            "stop_reason": g.stop_sequence if last else None, "token_ids": None,
        }  # fmt: skip

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        g = self.generation
        return {
            "id": f"cmpl-{g.id}", "object": "text_completion", "created": g.created,
            "model": g.model, "choices": choices,
        }  # fmt: skip


class Messages(Dialect):
    """Anthropic's ``/v1/messages``: content blocks, thinking in one of its own."""

    def __init__(self, generation: Generation, *, include_usage: bool = False) -> None:
        super().__init__(generation, include_usage=include_usage)
        self._answer_index = 1 if generation.reasoning_tokens else 0
        self._frames = {
            False: _split(
                self._delta(0, {"type": "thinking_delta", "thinking": MARK}), "content_block_delta"
            ),
            True: _split(
                self._delta(self._answer_index, {"type": "text_delta", "text": MARK}), "content_block_delta"
            ),
        }

    def begin(self) -> bytes:
        """The message without content yet."""
        g = self.generation
        usage = {
            "input_tokens": g.prompt_tokens,
            "output_tokens": 0,
            "cache_read_input_tokens": g.cached_tokens,
        }
        message = self._message([]) | {"stop_reason": None, "usage": usage}
        return _event({"type": "message_start", "message": message}, named=True)

    def tokens(self, start: int, end: int) -> bytes:
        """A delta, with the block's start before its first and its stop after its last."""
        g = self.generation
        answer = start >= g.reasoning_tokens
        index = self._answer_index if answer else 0
        parts = []
        if start in (0, g.reasoning_tokens):
            block = (
                {"type": "text", "text": ""}
                if answer
                else {"type": "thinking", "thinking": "", "signature": ""}
            )
            parts.append(
                _event({"type": "content_block_start", "index": index, "content_block": block}, named=True)
            )
        head, tail = self._frames[answer]
        parts += [head, g.json_text(start, end), tail]
        if end in (g.reasoning_tokens, g.output_tokens):
            parts.append(_event({"type": "content_block_stop", "index": index}, named=True))
        return b"".join(parts)

    def end(self) -> bytes:
        """Why it stopped, and the count."""
        delta = {"stop_reason": self._stop_reason, "stop_sequence": self.generation.stop_sequence}
        closing = {"type": "message_delta", "delta": delta, "usage": self._usage()}
        return _event(closing, named=True) + _event({"type": "message_stop"}, named=True)

    def whole(self) -> dict[str, Any]:
        """A message."""
        g = self.generation
        blocks: list[dict[str, Any]] = []
        if g.reasoning_tokens:
            blocks.append({"type": "thinking", "thinking": g.reasoning, "signature": ""})
        if g.output_tokens > g.reasoning_tokens:
            blocks.append({"type": "text", "text": g.content})
        return self._message(blocks) | {"stop_reason": self._stop_reason, "usage": self._usage()}

    @property
    def _stop_reason(self) -> str:
        g = self.generation
        if g.stop_sequence is not None:
            return "stop_sequence"
        return "max_tokens" if g.finish_reason == "length" else "end_turn"

    def _usage(self) -> dict[str, Any]:
        g = self.generation
        return {
            "input_tokens": g.prompt_tokens,
            "output_tokens": g.output_tokens,
            "cache_read_input_tokens": g.cached_tokens,
        }

    def _delta(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": delta}

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        g = self.generation
        return {
            "id": f"msg_{g.id}", "type": "message", "role": "assistant", "model": g.model,
            "content": content, "stop_sequence": g.stop_sequence,
        }  # fmt: skip

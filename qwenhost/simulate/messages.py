"""Anthropic's ``/v1/messages`` as vLLM speaks it: content blocks, thinking in one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from qwenhost.simulate.dialects import MARK, Dialect, encode_event, split_event
from qwenhost.simulate.replies import anthropic_error

if TYPE_CHECKING:
    from qwenhost.simulate.generation import Generation
    from qwenhost.simulate.requests import Ask, RequestError


class Messages(Dialect):
    """A thinking block where there is thinking, then a text block where there is text."""

    def __init__(self, generation: Generation, ask: Ask) -> None:
        super().__init__(generation, ask)
        g = generation
        self._answer_index = 1 if g.reasoning_tokens else 0
        self._has_text = bool(g.content) or not g.reasoning_tokens
        kinds = {False: ("thinking_delta", "thinking"), True: ("text_delta", "text")}
        self._frames = {
            answer: split_event(
                _delta(self._answer_index if answer else 0, {"type": kind, field: MARK}),
                "content_block_delta",
            )
            for answer, (kind, field) in kinds.items()
        }

    def begin(self) -> bytes:
        """The message without content yet; what was cached is told at the end."""
        g = self.generation
        usage = {"input_tokens": g.prompt_tokens, "output_tokens": 0}
        message = self._message([]) | {"stop_reason": None, "stop_sequence": None, "usage": usage}
        return encode_event({"type": "message_start", "message": message}, named=True)

    def tokens(self, start: int, end: int) -> bytes:
        """A delta, with the block's start before its first and its stop after its last."""
        g = self.generation
        answer = start >= g.reasoning_tokens
        if answer and not self._has_text:
            return b""
        index = self._answer_index if answer else 0
        parts = []
        if start in (0, g.reasoning_tokens):
            block = {"type": "text", "text": ""} if answer else {"type": "thinking", "thinking": ""}
            opening = {"type": "content_block_start", "index": index, "content_block": block}
            parts.append(encode_event(opening, named=True))
        text = g.json_text(start, end)
        if text:  # what a stop string hides has no delta
            head, tail = self._frames[answer]
            parts += [head, text, tail]
        if end in (g.reasoning_tokens, g.output_tokens):
            parts.append(self._close(answer=answer))
        return b"".join(parts)

    def end(self) -> bytes:
        """Why it stopped, and the count."""
        stop = self.generation.stop_sequence
        delta = {"stop_reason": self._stop_reason, "stop_sequence": stop}
        closing = {"type": "message_delta", "delta": delta, "usage": self._usage()}
        return encode_event(closing, named=True) + encode_event({"type": "message_stop"}, named=True)

    def failure(self, error: RequestError, done: int) -> bytes:
        """The open block is closed, then comes an event of the error."""
        g = self.generation
        open_block = 0 < done < g.output_tokens and done != g.reasoning_tokens
        closing = self._close(answer=done > g.reasoning_tokens) if open_block else b""
        return closing + encode_event(anthropic_error(error), named=True)

    def whole(self) -> dict[str, Any]:
        """A message; fields without a value are left out, as vLLM does."""
        g = self.generation
        blocks: list[dict[str, Any]] = []
        if g.reasoning:
            blocks.append({"type": "thinking", "thinking": g.reasoning, "signature": self._signature})
        if g.content or not blocks:
            blocks.append({"type": "text", "text": g.content})
        stop = {} if g.stop_sequence is None else {"stop_sequence": g.stop_sequence}
        return self._message(blocks) | {"stop_reason": self._stop_reason, **stop, "usage": self._usage()}

    def _close(self, *, answer: bool) -> bytes:
        index = self._answer_index if answer else 0
        stop = encode_event({"type": "content_block_stop", "index": index}, named=True)
        if answer:
            return stop
        signed = {"type": "signature_delta", "signature": self._signature}
        return encode_event(_delta(index, signed), named=True) + stop

    @property
    def _signature(self) -> str:
        """As long as vLLM's; the same for the same thinking."""
        return f"{crc32(self.generation.reasoning.encode()):032x}"

    @property
    def _stop_reason(self) -> str:
        g = self.generation
        if g.stop_sequence is not None:
            return "stop_sequence"
        return "max_tokens" if g.finish_reason == "length" else "end_turn"

    def _usage(self) -> dict[str, Any]:
        """Anthropic counts cached input apart."""
        g = self.generation
        return {
            "input_tokens": g.prompt_tokens - g.cached_tokens,
            "output_tokens": g.output_tokens,
            "cache_read_input_tokens": g.cached_tokens,
        }

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        g = self.generation
        return {
            "id": f"chatcmpl-{g.id}", "type": "message", "role": "assistant", "model": g.model,
            "content": content,
        }  # fmt: skip


def _delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}

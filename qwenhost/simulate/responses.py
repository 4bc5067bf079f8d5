"""OpenAI's ``/v1/responses``: numbered events around output items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qwenhost.simulate.dialects import Dialect, encode_event
from qwenhost.simulate.requests import ResponsesAsk

if TYPE_CHECKING:
    from qwenhost.simulate.generation import Generation
    from qwenhost.simulate.requests import Ask


UNFILLED: Final = (
    "prompt", "prompt_cache_options", "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
    "top_logprobs", "kv_transfer_params", "ec_transfer_params", "input_messages", "output_messages",
)  # fmt: skip
"""Fields vLLM 0.33 sends as null where no option of the request or of the server fills them."""


class Responses(Dialect):
    """A reasoning item where there is thinking, then a message item."""

    def __init__(self, generation: Generation, ask: Ask) -> None:
        super().__init__(generation, ask)
        assert isinstance(ask, ResponsesAsk)  # noqa: S101 - the route decodes nothing else
        self._ask = ask
        self._sequence = -1
        self._message_index = 1 if generation.reasoning_tokens else 0

    def begin(self) -> bytes:
        """The response without output yet."""
        response = self._response("in_progress", [])
        return self._say("response.created", response=response) + self._say(
            "response.in_progress", response=response
        )

    def tokens(self, start: int, end: int) -> bytes:
        """A delta, with the item's opening before its first and its closing after its last."""
        g = self.generation
        parts = []
        if start in (0, g.reasoning_tokens):
            parts.append(self._open(thinking=start < g.reasoning_tokens))
        thinking = start < g.reasoning_tokens
        kind = "response.reasoning_text.delta" if thinking else "response.output_text.delta"
        more: dict[str, Any] = {} if thinking else {"logprobs": []}
        place = self._place(thinking=thinking)
        parts.append(self._say(kind, content_index=0, delta=g.text(start, end), **place, **more))
        if end in (g.reasoning_tokens, g.output_tokens):
            parts.append(self._close(thinking=thinking))
        return b"".join(parts)

    def end(self) -> bytes:
        """The finished response."""
        kind = "response.incomplete" if self._cut_short else "response.completed"
        return self._say(kind, response=self.whole())

    def whole(self) -> dict[str, Any]:
        """A response."""
        g = self.generation
        items = [self._item(thinking=True, done=True)] if g.reasoning_tokens else []
        if g.output_tokens > g.reasoning_tokens:
            items.append(self._item(thinking=False, done=True))
        return self._response("incomplete" if self._cut_short else "completed", items)

    @property
    def _cut_short(self) -> bool:
        return self.generation.finish_reason == "length"

    def _open(self, *, thinking: bool) -> bytes:
        place = self._place(thinking=thinking)
        item = self._item(thinking=thinking, done=False)
        opening = self._say("response.output_item.added", output_index=place["output_index"], item=item)
        part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
        if not thinking:
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return opening + self._say("response.content_part.added", content_index=0, part=part, **place)

    def _close(self, *, thinking: bool) -> bytes:
        g, place = self.generation, self._place(thinking=thinking)
        item = self._item(thinking=thinking, done=True)
        said: dict[str, Any] = {"text": g.reasoning} if thinking else {"text": g.content, "logprobs": []}
        events = [
            (
                f"response.{'reasoning' if thinking else 'output'}_text.done",
                {"content_index": 0, **said, **place},
            ),
            ("response.content_part.done", {"content_index": 0, "part": item["content"][0], **place}),
            ("response.output_item.done", {"output_index": place["output_index"], "item": item}),
        ]
        return b"".join(self._say(kind, **fields) for kind, fields in events)

    def _place(self, *, thinking: bool) -> dict[str, Any]:
        index = 0 if thinking else self._message_index
        return {"item_id": self._item_id(thinking=thinking), "output_index": index}

    def _item_id(self, *, thinking: bool) -> str:
        return f"{'rs' if thinking else 'msg'}_{self.generation.id}"

    def _item(self, *, thinking: bool, done: bool) -> dict[str, Any]:
        g = self.generation
        cut = self._cut_short and thinking == (g.output_tokens == g.reasoning_tokens)
        status = ("incomplete" if cut else "completed") if done else "in_progress"
        item: dict[str, Any] = {"id": self._item_id(thinking=thinking), "status": status}
        if thinking:
            content = [{"type": "reasoning_text", "text": g.reasoning}] if done else []
            return item | {"type": "reasoning", "summary": [], "content": content}
        part = {"type": "output_text", "text": g.content, "annotations": [], "logprobs": []}
        return item | {"type": "message", "role": "assistant", "content": [part] if done else []}

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        g = self.generation
        done = status != "in_progress"
        usage = {
            "input_tokens": g.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": g.cached_tokens, "cache_write_tokens": 0,
                "input_tokens_per_turn": [], "cached_tokens_per_turn": [],
            },
            "output_tokens": g.output_tokens,
            "output_tokens_details": {
                "reasoning_tokens": g.reasoning_tokens, "tool_output_tokens": 0,
                "output_tokens_per_turn": [], "tool_output_tokens_per_turn": [],
            },
            "total_tokens": g.prompt_tokens + g.output_tokens,
        }  # fmt: skip
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{g.id}", "object": "response", "created_at": g.created, "model": g.model,
            "status": status, "output": output, "incomplete_details": incomplete,
            "usage": usage if done else None, **self._echo(), **dict.fromkeys(UNFILLED),
        }  # fmt: skip

    def _echo(self) -> dict[str, Any]:
        """What the request asked for, with vLLM's defaults."""
        ask, g = self._ask, self.generation
        parallel = True if ask.parallel_tool_calls is None else ask.parallel_tool_calls
        # vLLM reads both "auto" and "none" as "none" where there are no tools.
        choice = ask.tool_choice if ask.tools else "none"
        return {
            "instructions": ask.instructions, "metadata": ask.metadata, "parallel_tool_calls": parallel,
            "temperature": 1.0 if ask.temperature is None else ask.temperature,
            "top_p": 1.0 if ask.top_p is None else ask.top_p, "tool_choice": choice,
            "tools": ask.tools or [], "background": False, "max_output_tokens": g.limit,
            "max_tool_calls": ask.max_tool_calls, "previous_response_id": None,
            "reasoning": ask.reasoning, "service_tier": ask.service_tier, "text": ask.text,
            "truncation": ask.truncation, "user": ask.user,
            "presence_penalty": 0.0, "frequency_penalty": 0.0,
        }  # fmt: skip

    def _say(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        return encode_event({"type": kind, "sequence_number": self._sequence, **fields}, named=True)

"""OpenAI's ``/v1/responses``: numbered events around output items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwenhost.simulate.dialects import Dialect, _event

if TYPE_CHECKING:
    from qwenhost.simulate.generation import Generation


class Responses(Dialect):
    """A reasoning item where there is thinking, then a message item."""

    def __init__(self, generation: Generation, *, include_usage: bool = False) -> None:
        super().__init__(generation, include_usage=include_usage)
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
        if thinking:
            return opening
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return opening + self._say("response.content_part.added", content_index=0, part=part, **place)

    def _close(self, *, thinking: bool) -> bytes:
        g, place = self.generation, self._place(thinking=thinking)
        item = self._item(thinking=thinking, done=True)
        if thinking:
            events = [("response.reasoning_text.done", {"content_index": 0, "text": g.reasoning, **place})]
        else:
            text = {"content_index": 0, "text": g.content, "logprobs": [], **place}
            part = {"content_index": 0, "part": item["content"][0], **place}
            events = [("response.output_text.done", text), ("response.content_part.done", part)]
        events.append(("response.output_item.done", {"output_index": place["output_index"], "item": item}))
        return b"".join(self._say(kind, **fields) for kind, fields in events)

    def _place(self, *, thinking: bool) -> dict[str, Any]:
        index = 0 if thinking else self._message_index
        return {"item_id": self._item_id(thinking=thinking), "output_index": index}

    def _item_id(self, *, thinking: bool) -> str:
        return f"{'rs' if thinking else 'msg'}_{self.generation.id}"

    def _item(self, *, thinking: bool, done: bool) -> dict[str, Any]:
        g = self.generation
        status = "completed" if done else "in_progress"
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
            "input_tokens_details": {"cached_tokens": g.cached_tokens},
            "output_tokens": g.output_tokens,
            "output_tokens_details": {"reasoning_tokens": g.reasoning_tokens},
            "total_tokens": g.prompt_tokens + g.output_tokens,
        }
        return {
            "id": f"resp_{g.id}", "object": "response", "created_at": g.created, "model": g.model,
            "status": status, "output": output, "error": None, "instructions": None, "metadata": {},
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "parallel_tool_calls": True, "temperature": None, "tool_choice": "auto", "tools": [],
            "top_p": None, "usage": usage if done else None,
        }  # fmt: skip

    def _say(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        return _event({"type": kind, "sequence_number": self._sequence, **fields}, named=True)

"""One answer in the making: its sizes, its words, and where thinking ends."""

from __future__ import annotations

import time
import uuid
from zlib import crc32

import msgspec

from qwenhost.simulate.text import JSON_PIECES, PIECES


class Generation:
    """What will be answered; decided before the first token, since the words are not the point.

    Args:
        model: name to answer under.
        prompt_tokens: as counted.
        output_tokens: in all, thinking included.
        reasoning_tokens: leading ones spent thinking.
        finish_reason: ``stop`` or ``length``.
        seed_text: picks where in the filler text to begin.
        stop: strings that end the visible text.
        limit: most tokens it may have.
    """

    def __init__(
        self,
        *,
        model: str,
        prompt_tokens: int,
        output_tokens: int,
        reasoning_tokens: int,
        finish_reason: str,
        seed_text: str,
        stop: tuple[str, ...] = (),
        limit: int | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.created = int(time.time())
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.limit = output_tokens if limit is None else limit
        self.reasoning_tokens = min(reasoning_tokens, output_tokens)
        self.finish_reason = finish_reason
        self.stop_sequence: str | None = None
        self.cached_tokens = 0
        self._offset = crc32(seed_text.encode())
        self._blank_from = output_tokens
        self._last_piece: str | None = None
        if stop:
            self._cut_at(stop)

    def text(self, start: int, end: int) -> str:
        """The words of tokens ``start`` to ``end``."""
        return "".join(self._piece(index) for index in range(start, end))

    def json_text(self, start: int, end: int) -> bytes:
        """The same, as the inside of a JSON string."""
        if end - start == 1 and end < self._blank_from and start not in (0, self.reasoning_tokens):
            return JSON_PIECES[(self._offset + start) % len(JSON_PIECES)]
        return msgspec.json.encode(self.text(start, end))[1:-1]

    @property
    def reasoning(self) -> str:
        """The thinking."""
        return self.text(0, self.reasoning_tokens)

    @property
    def content(self) -> str:
        """The visible answer."""
        return self.text(self.reasoning_tokens, self.output_tokens)

    def _piece(self, index: int) -> str:
        if index >= self._blank_from:
            return ""
        if self._last_piece is not None and index == self._blank_from - 1:
            return self._last_piece
        piece = PIECES[(self._offset + index) % len(PIECES)]
        return piece.lstrip() if index in (0, self.reasoning_tokens) else piece

    def _cut_at(self, stop: tuple[str, ...]) -> None:
        """End with the token that completes a stop string; the string itself is not shown."""
        seen = ""
        for index in range(self.reasoning_tokens, self.output_tokens):
            seen += self._piece(index)
            found = next((text for text in stop if text and text in seen), None)
            if found is not None:
                self.output_tokens = index + 1
                self.finish_reason, self.stop_sequence = "stop", found
                self._hide_after(seen.index(found))
                return

    def _hide_after(self, characters: int) -> None:
        left = characters
        for index in range(self.reasoning_tokens, self.output_tokens):
            piece = self._piece(index)
            if left <= len(piece):
                self._last_piece, self._blank_from = piece[:left], index + 1
                return
            left -= len(piece)

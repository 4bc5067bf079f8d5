"""Stand-in text: a tokenizer anyone can recompute, and filler words that are one token each.

A token is a run of up to four letters, digits or underscores, or one other visible character; white space
counts for nothing. It gives about as many tokens for English as Qwen's tokenizer and never depends on a
download.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PIECE = re.compile(r"\w{1,4}|[^\w\s]")

TEMPLATE_TOKENS_PER_MESSAGE = 4
TEMPLATE_TOKENS_PER_PROMPT = 3
TOKENS_PER_IMAGE = 1024

# Words of at most four letters: each is one token, before and after white space.
_WORDS = (
    "this text is not by a real llm but made to fill the time so that each word will be one more unit of "
    "work . a plan can run well when load and size fit what the host has to give , and what you read here "
    "says just that : time per step , size per page , cost per hour . none of it has any use past that , so "
    "do not keep it or take it as true . each line like this one ends and the next one goes on as it did ."
)


def tokenize(text: str) -> list[str]:
    """The tokens of a text."""
    return _PIECE.findall(text)


def _with_spaces(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word if word in ".,:" else f" {word}" for word in words)


PIECES = _with_spaces(_WORDS.split())
"""Output tokens in order; a generation starts anywhere and goes round."""
JSON_PIECES = tuple(json.dumps(piece)[1:-1].encode() for piece in PIECES)


def block_hashes(tokens: Sequence[str], block_size: int) -> tuple[int, ...]:
    """Identity of the content up to the end of each full block; equal within one process only."""
    hashes, previous = [], 0
    for end in range(block_size, len(tokens) + 1, block_size):
        previous = hash((previous, *tokens[end - block_size : end]))
        hashes.append(previous)
    return tuple(hashes)

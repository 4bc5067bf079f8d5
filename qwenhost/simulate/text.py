"""Stand-in text: a tokenizer anyone can recompute, and filler words that are one token each.

A token is a run of up to four letters, digits or underscores, or one other visible character; white space
counts for nothing. It gives about as many tokens for English as Qwen's tokenizer and never depends on a
download.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PIECE = re.compile(r"\w{1,4}|[^\w\s]")

TEMPLATE_TOKENS_PER_MESSAGE = 4
TEMPLATE_TOKENS_PER_PROMPT = 3
TOKENS_PER_IMAGE = 1024
MAX_TOKEN_BYTES = 7

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


def token_id(token: str) -> int:
    """A token's number: its bytes read as one, so that it can be told back.

    Tokens of more than seven bytes (four letters beyond the Latin ones) have a number that cannot.
    """
    raw = token.encode(errors="surrogatepass")
    return int.from_bytes(raw) if len(raw) <= MAX_TOKEN_BYTES else (1 << 8 * MAX_TOKEN_BYTES) + crc32(raw)


def token_text(number: int) -> str:
    """The token of a number; U+FFFD where the number is of no token."""
    raw = number.to_bytes(8).lstrip(b"\0")
    return raw.decode(errors="replace") if len(raw) <= MAX_TOKEN_BYTES else "\ufffd"


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

"""How many tokens two tokenizers make of the same text, and the ratio that follows.

Stable JSON: the ``qwenhost.token_counts/1`` contract. Written by ``qwenhost count-tokens``, read by
``compare --token-counts``.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.facts import Basis, Positive, Value
from qwenhost.files import encode_document, read_document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA: Final = "qwenhost.token_counts/1"
LEVEL: Final = 0.95
_DRAWS: Final = 2000
_FEWEST: Final = 10
"""Fewer requests tell too little of how requests vary: the interval is then the range of single ones."""
_SEED: Final = 20

Pair = tuple[int, int]
"""(Qwen's tokens, Sonnet's tokens) of one request."""


class TokenizerCount(Value, frozen=True, kw_only=True):
    """What one tokenizer counted over all requests of the sample."""

    model: str
    """The model whose tokenizer it is, e.g. ``claude-sonnet-4-6``."""
    name: str
    """Who counted: an endpoint or a file, e.g. ``https://api.anthropic.com/v1/messages/count_tokens``."""
    requests: int
    input_tokens: int
    """Whole prompts, chat template, system prompt and tool definitions included."""
    output_tokens: int | None = None
    """Of the recorded answers; None where the sample has none."""
    basis: Basis
    date: dt.date


class TokenRatio(Value, frozen=True, kw_only=True):
    """Sonnet's tokens per token of Qwen, over the same requests."""

    value: Positive
    """Ratio of the sums: long requests weigh as much as they cost."""
    low: Positive
    high: Positive
    interval: Literal["bootstrap", "range"]
    """``bootstrap``: 95 % over requests; ``range``: of single requests, where they are fewer than ten."""
    requests: int


class TokenCounts(Value, frozen=True, kw_only=True):
    """One sample through both tokenizers."""

    schema: str = SCHEMA
    sample: str
    """The file that was counted."""
    qwen: TokenizerCount
    sonnet: TokenizerCount
    input_ratio: TokenRatio
    output_ratio: TokenRatio | None = None
    """None where the sample holds no answers."""
    warnings: tuple[str, ...] = ()


def token_ratio(pairs: Sequence[Pair]) -> TokenRatio:
    """Sum of Sonnet's over sum of Qwen's, with its interval.

    Raises:
        ValueError: no request, or one without a token.
    """
    if not pairs or any(qwen <= 0 or sonnet <= 0 for qwen, sonnet in pairs):
        raise ValueError("every request needs at least one token in both tokenizers")
    value = _ratio_of_sums(pairs)
    if len(pairs) < _FEWEST:
        single = [sonnet / qwen for qwen, sonnet in pairs]
        return TokenRatio(
            value=value, low=min(single), high=max(single), interval="range", requests=len(pairs)
        )
    random_ = random.Random(_SEED)  # noqa: S311 - chance, not secrets
    drawn = sorted(_ratio_of_sums(random_.choices(pairs, k=len(pairs))) for _ in range(_DRAWS))
    cut = round(_DRAWS * (1 - LEVEL) / 2)
    return TokenRatio(
        value=value, low=drawn[cut], high=drawn[-1 - cut], interval="bootstrap", requests=len(pairs)
    )


def _ratio_of_sums(pairs: Sequence[Pair]) -> float:
    return sum(sonnet for _, sonnet in pairs) / sum(qwen for qwen, _ in pairs)


def token_counts_to_json(counts: TokenCounts) -> bytes:
    """Indented JSON."""
    return encode_document(counts)


def load_token_counts(path: Path) -> TokenCounts:
    """Read saved counts.

    Raises:
        BadInputError: missing, unreadable, or not a file of token counts.
    """
    remedy = "Count with: qwenhost count-tokens SAMPLE --url URL --save counts.json"
    return read_document(path, TokenCounts, schema=SCHEMA, what="a file of token counts", remedy=remedy)

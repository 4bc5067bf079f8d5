"""Tokens gained per decode step under speculative decoding, without a draw per step.

A sequence reads a long table of steps from an offset of its own, so that its progress after any number of
steps, and the steps it needs for any number of tokens, are one subtraction or one binary search.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

TABLE_STEPS = 1 << 14


class Acceptance:
    """Tokens emitted by decode steps: one each, plus the accepted drafts.

    Args:
        rates: accepted share by draft position, over drafts made; not increasing.
        rng: draws the table and the offsets.
    """

    def __init__(self, rates: Sequence[float], rng: random.Random) -> None:
        self._rng = rng
        self.speculative = bool(rates)
        draws = (rng.random() for _ in range(TABLE_STEPS if rates else 0))
        # One draw decides all positions: draft i stands where the draw is below its rate, so that a later
        # draft stands only with the earlier ones and each position keeps its own rate.
        steps = [1 + sum(draw < rate for rate in rates) for draw in draws]
        self._cumulative = [0, *accumulate(steps)]
        self.mean_tokens = self._cumulative[-1] / TABLE_STEPS if rates else 1.0

    def offset(self) -> int:
        """Where a new sequence begins to read."""
        return self._rng.randrange(TABLE_STEPS) if self.speculative else 0

    def tokens(self, offset: int, steps: int) -> int:
        """Tokens a sequence gains in its first ``steps`` steps."""
        if not self.speculative:
            return steps
        rounds, end = divmod(offset + steps, TABLE_STEPS)
        return rounds * self._cumulative[-1] + self._cumulative[end] - self._cumulative[offset]

    def steps_for(self, offset: int, tokens: int) -> int:
        """Fewest steps that gain at least ``tokens``."""
        if not self.speculative:
            return tokens
        rounds, rest = divmod(tokens + self._cumulative[offset], self._cumulative[-1])
        return rounds * TABLE_STEPS + bisect_left(self._cumulative, rest) - offset

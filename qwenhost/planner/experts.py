"""How many distinct experts a batch touches when some are more popular than others."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

_STEPS_PER_OCTAVE: Final = 4
_OCTAVES: Final = 17  # up to 131,072 tokens; beyond, all experts
_SIZES: Final = tuple(2 ** (step / _STEPS_PER_OCTAVE) for step in range(_OCTAVES * _STEPS_PER_OCTAVE + 1))


class DistinctExperts:
    """Expected distinct experts hit by so many tokens, each taking ``top_k`` of ``num_experts``.

    Expert i is taken with p_i = 1 - exp(-lam * exp(-decay * i / num_experts)), sum p_i = top_k;
    D(n) = sum 1 - (1 - p_i)^n. ``decay`` 0 is uniform routing. Exponential, since training balances the
    load: no expert serves most tokens, as a power law's first would, but many are seldom needed.
    Interpolated in n between quarter octaves: D bends downwards, so the chord is never above it, and
    at most 0.3 % below.
    """

    __slots__ = ("table", "top_k")

    sizes: Final = _SIZES
    """The numbers of tokens that ``table`` is for, ascending from 1."""

    def __init__(self, num_experts: int, top_k: int, decay: float) -> None:
        self.top_k = top_k
        self.table = _table(num_experts, top_k, decay)
        """D at ``sizes``."""

    def __call__(self, tokens: float) -> float:
        """For one number of tokens; below one, its share of ``top_k``."""
        if tokens <= 1:
            return self.top_k * tokens
        index = int(math.log2(tokens) * _STEPS_PER_OCTAVE)
        table = self.table
        if index + 1 >= len(table):
            return table[-1]
        share = (tokens - _SIZES[index]) / (_SIZES[index + 1] - _SIZES[index])
        return table[index] + (table[index + 1] - table[index]) * share


@lru_cache(maxsize=16)
def _table(num_experts: int, top_k: int, decay: float) -> tuple[float, ...]:
    log_misses = [math.log1p(-p) for p in _inclusion(num_experts, top_k, decay)]
    return tuple(-math.fsum(math.expm1(n * miss) for miss in log_misses) for n in _SIZES)


def _inclusion(num_experts: int, top_k: int, decay: float) -> list[float]:
    """Probabilities that sum to ``top_k``, by bisection on lam."""
    weights = [math.exp(-decay * i / num_experts) for i in range(num_experts)]
    low, high = 0.0, 1.0
    while _expected(weights, high) < top_k:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _expected(weights, middle) < top_k else (low, middle)
    return [-math.expm1(-high * weight) for weight in weights]


def _expected(weights: list[float], lam: float) -> float:
    return -math.fsum(math.expm1(-lam * weight) for weight in weights)

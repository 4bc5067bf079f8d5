"""The start-up log's memory figures beside the plan's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.launcher.state import Deviation
from qwenhost.units import gib

if TYPE_CHECKING:
    from qwenhost.launcher.phases import LogFigures
    from qwenhost.plan import Candidate

TOLERANCE: Final = 0.05
"""Deviations below this share of the planned figure are not worth a word."""


def deviations(
    figures: LogFigures, candidate: Candidate | None, *, tolerance: float = TOLERANCE
) -> tuple[Deviation, ...]:
    """Figures per GPU that differ from the plan by more than ``tolerance``."""
    if candidate is None:
        return ()
    memory, cache = candidate.memory_per_gpu, candidate.kv_cache
    pairs = (
        ("weights", gib(memory.weights_bytes), figures.model_loading_gib, "GiB"),
        ("available KV cache", gib(memory.kv_cache_bytes), figures.available_kv_gib, "GiB"),
        ("KV cache", cache.tokens, figures.kv_cache_tokens, "tokens"),
        ("block size", cache.block_size, figures.block_size, "tokens"),
    )
    found = [
        Deviation(name=name, planned=round(planned, 3), observed=observed, unit=unit)
        for name, planned, observed, unit in pairs
        if observed is not None
    ]
    return tuple(d for d in found if abs(d.relative) > tolerance)


def describe(deviation: Deviation) -> str:
    """For people: ``KV cache: 90,000 tokens, planned 100,000 tokens (-10.0%)``."""
    return (
        f"{deviation.name}: {deviation.observed:,g} {deviation.unit}, "
        f"planned {deviation.planned:,g} {deviation.unit} "
        f"({deviation.relative:+.1%})"
    )

"""One combination under consideration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from qwenhost.plan import Parallelism


class Option(NamedTuple):
    """One combination under consideration."""

    checkpoint: str
    layout: Parallelism
    kv_cache_dtype: str
    num_speculative_tokens: int
    enable_prefix_caching: bool

    @property
    def label(self) -> str:
        """E.g. ``fp8 TP2``."""
        return f"{self.checkpoint} {self.layout.label}"

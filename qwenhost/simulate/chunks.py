"""How much of a prompt a step computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwenhost.simulate.config import EngineConfig


def prompt_chunk(config: EngineConfig, computed: int, target: int, budget: int) -> int:
    """Tokens of a prompt to compute in this step.

    Where states are cached, a chunk ends at a block boundary (vLLM's ``_mamba_block_aligned_split``).

    Args:
        config: block size, and whether chunks are aligned.
        computed: tokens computed before.
        target: tokens of the prompt.
        budget: tokens left in the step.
    """
    tokens = max(0, min(budget, target - computed))
    if not config.align_prefill:
        return tokens
    size = config.block_size
    last_boundary = target - target % size
    if computed + tokens < last_boundary:
        aligned = (computed + tokens) // size * size
        # A block too wide for any step is entered piece by piece, and the next piece ends with it.
        if aligned > computed or size <= config.max_num_batched_tokens:
            return aligned - computed
        return tokens
    if computed < last_boundary < computed + tokens:
        return last_boundary - computed
    return tokens

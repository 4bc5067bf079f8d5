"""How much of a prompt a step computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from qwenhost.simulate.config import EngineConfig


class Prefill(NamedTuple):
    """A prompt on its way."""

    computed: int
    """Tokens computed, or found in the cache."""
    target: int
    """Tokens to compute: the prompt, and after a preemption what had been generated."""
    prompt: int
    """Tokens of the prompt."""
    junction: int = 0
    """Tokens of a prefix shared with another prompt, whose state was not kept."""

    @property
    def end(self) -> int:
        """Where vLLM says the prompt's computation ends: a repeated answer's last token is a decode."""
        return max(self.prompt, self.target - 1)


def prompt_chunk(config: EngineConfig, prefill: Prefill, budget: int) -> int:
    """Tokens of a prompt to compute in this step.

    Where states are cached, a chunk ends where one must be kept (vLLM's ``_mamba_block_aligned_split``).

    Args:
        config: block size, and whether chunks are aligned.
        prefill: what there is to compute.
        budget: tokens left in the step.
    """
    start = prefill.computed
    tokens = max(0, min(budget, prefill.target - start))
    if not config.align_prefill or start >= prefill.end:
        return tokens
    size, end = config.block_size, start + tokens
    exported = end >= prefill.end and exports_checkpoint(config, start, end, prefill.end)
    if end < prefill.end:
        aligned = end // size * size
        # A block too wide for any step is entered piece by piece, and the next piece ends with it.
        if aligned > start or size <= config.max_num_batched_tokens:
            end = aligned
    stops = [
        0 if exported or start % size == 0 else (start // size + 1) * size,
        0 if exported else (prefill.target - 1) // size * size,
        start + (prefill.junction - start) // size * size if start < prefill.junction < end else 0,
    ]
    end = min((stop for stop in stops if start < stop < end), default=end)
    return max(0, end - start)


def exports_checkpoint(config: EngineConfig, start: int, end: int, last: int) -> bool:
    """Whether the prefill kernel can give out the state behind the last whole block before ``last``.

    Rules: ``is_mamba_prefill_checkpoint_valid`` with hashes of whole blocks, ``v1/kv_cache_interface.py``.
    """
    size = config.block_size
    position = (last - 1) // size * size
    return (
        config.exports_states
        and start % size == 0
        and -(-end // size) - 2 > (start - 1) // size
        and start + size <= position < end
    )

"""Step time with decode context parallelism: ranks read different tokens and exchange partial results.

In every full-attention layer vLLM gathers the queries of the group, each rank attends to its share of the
tokens, and the outputs are scattered back, weighted by their log-sum-exp (``cp_lse_ag_out_rs`` in vLLM 0.33
``v1/attention/ops/dcp.py``): three collectives. No run of this model family with it is known, so this is
arithmetic alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.plan import StepShape
from qwenhost.planner.performance import BF16_BYTES, StepModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from qwenhost.planner.tally import StepCost


class ContextParallelModel(StepModel):
    """Step time of one data-parallel rank whose tensor-parallel ranks share its tokens."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        arch, tp = self._arch, self._tp
        self._context_ranks = self._parallel.decode_context_parallel_size
        heads = arch.num_attention_heads / tp * self._context_ranks
        self._exchanged_bytes_per_token = heads * arch.head_dim * BF16_BYTES

    def cost_of(self, shape: StepShape, distinct: Callable[[float], float]) -> StepCost:
        """Each rank reads its share of the cached tokens; then the exchange, layer by layer."""
        mine = StepShape(
            prefill_tokens=shape.prefill_tokens,
            prefill_context_tokens=shape.prefill_context_tokens,
            prefill_sequences=shape.prefill_sequences,
            decode_sequences=shape.decode_sequences,
            decode_context_tokens=shape.decode_context_tokens // self._context_ranks,
        )
        found = super().cost_of(mine, distinct)
        tokens = shape.decode_sequences * (1 + self._options.num_speculative_tokens) + shape.prefill_tokens
        size = tokens * self._exchanged_bytes_per_token
        each = self._collective.gather_and_scatter(size, self._context_ranks)
        each += self._constants["nccl_collective_t0_s"]  # of the log-sum-exps, a few bytes a token
        return found._replace(link_s=found.link_s + self._arch.num_full_attention_layers * each)

"""What the models of memory and speed say about one way to run it."""

from __future__ import annotations

from typing import Literal

from qwenhost.facts import AtLeastOne, Basis, NotNegative, Value

Bound = Literal["hbm", "flops", "link", "host", "kv", "none"]


class Estimate(Value, frozen=True, kw_only=True):
    """A number that knows its basis."""

    value: float
    low: float
    high: float
    basis: Basis
    bound: Bound = "none"
    """What limits it."""
    source: str = ""


class MemoryBreakdown(Value, frozen=True, kw_only=True):
    """One GPU's memory, in bytes; the parts sum to ``usable_bytes``."""

    total_bytes: int
    usable_bytes: int
    """total * gpu_memory_utilization, as vLLM rounds it."""
    weights_bytes: int
    activation_bytes: int
    cudagraph_bytes: int
    non_torch_bytes: int
    kv_cache_bytes: int
    """What is left for the cache; negative where the model does not fit."""
    margin_bytes: int = 0
    """Part of ``kv_cache_bytes`` that limits were not planned on, since the memory model is not exact."""
    lora_bytes: int = 0
    """Slots of LoRA adapters; vLLM's log counts them as part of the loaded model."""
    outside_bytes: int = 0
    """Held beside ``usable_bytes``: CUDA context and NCCL, taken before vLLM measures."""


class KvCache(Value, frozen=True, kw_only=True):
    """The block pool of one GPU (one data-parallel rank), as vLLM lays it out."""

    num_blocks: NotNegative
    block_size: AtLeastOne
    """Tokens per attention block on one rank."""
    block_bytes: NotNegative
    tokens: NotNegative
    """What vLLM logs as "GPU KV cache size"."""
    max_concurrency_at_max_model_len: float
    bytes_per_token: NotNegative
    """Per GPU, all attention layers."""
    state_bytes_per_sequence: NotNegative
    """Gated DeltaNet state blocks held by a running sequence, per GPU."""
    state_blocks_per_sequence: NotNegative
    """Steady state of a running request."""
    reserved_blocks_per_sequence: NotNegative
    """What vLLM charges a request in its concurrency figure, state blocks only."""
    context_parallel_size: AtLeastOne = 1
    """Ranks that hold different tokens of one block."""
    prefix_match_unit: AtLeastOne | None = None
    """Tokens at whose multiples prefix hits end; None = what a block stands for."""

    @property
    def hit_tokens(self) -> int:
        """Tokens at whose multiples prefix hits end."""
        return self.prefix_match_unit or self.block_size * self.context_parallel_size

    def blocks_for(self, tokens: int) -> int:
        """Blocks a running request of this many tokens holds."""
        span = self.block_size * self.context_parallel_size
        return -(-tokens // span) + self.state_blocks_per_sequence

    def concurrency_at(self, tokens: int) -> int:
        """Requests of this length in flight at once, one data-parallel rank; block 0 is vLLM's null block."""
        return max(0, (self.num_blocks - 1) // self.blocks_for(tokens))


class SpeedEstimate(Value, frozen=True, kw_only=True):
    """Predicted service of the whole node (all replicas) under the workload."""

    output_tokens_per_s: Estimate
    input_tokens_per_s: Estimate
    requests_per_s: Estimate
    ttft_ms: Estimate
    tpot_ms: Estimate
    concurrency: Estimate
    """Requests in flight on the whole node."""
    meets_slo: bool
    speed_of_light_fraction: float
    """Predicted output rate over the rate with ideal bandwidth and no overheads."""


class StepShape(Value, frozen=True, kw_only=True):
    """One engine step, as the speed model and the simulator exchange it."""

    prefill_tokens: int = 0
    """Prompt tokens computed in this step, all requests."""
    prefill_context_tokens: int = 0
    """Sum over prefill tokens' chunks of the context already cached before the chunk."""
    prefill_sequences: int = 1
    """Chunks (requests) among which the prefill tokens are shared evenly."""
    decode_sequences: int = 0
    """Sequences that advance by one (or, with speculation, verify one draft)."""
    decode_context_tokens: int = 0
    """Sum of their context lengths."""

"""What the simulated scheduler needs to know of an engine, drawn from a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.errors import BadInputError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.plan import Candidate, KvCache


class EngineConfig(Value, frozen=True, kw_only=True):
    """One data-parallel rank, in vLLM's words."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    """Token budget of a step."""
    num_blocks: int
    """Blocks of the pool, vLLM's null block included."""
    block_size: int
    """Tokens per attention block; also the prefix-cache granularity."""
    state_blocks_per_sequence: int = 0
    """Gated DeltaNet state blocks a running sequence holds."""
    num_speculative_tokens: int = 0
    acceptance_rates: tuple[float, ...] = ()
    """Accepted drafts at each position over drafts made, as vLLM's per-position counters give it."""
    enable_prefix_caching: bool = True
    exports_states: bool = False
    """The prefill kernel gives out the state behind a prompt's last whole block while it computes the rest
    (FlashInfer from vLLM 0.33 on); elsewhere the prompt is cut there."""
    async_scheduling: bool = False
    """A step is scheduled while the one before it runs: vLLM's way on GPUs, and off on CPUs."""
    data_parallel_size: int = 1

    @property
    def tokens_per_decode(self) -> int:
        """Budget a decoding sequence takes in a step: its token and its drafts."""
        return 1 + self.num_speculative_tokens

    @property
    def usable_blocks(self) -> int:
        """Block 0 is vLLM's null block."""
        return self.num_blocks - 1

    @property
    def max_decoding(self) -> int:
        """Sequences that fit a step, by ``max_num_seqs`` and by the token budget."""
        return min(self.max_num_seqs, self.max_num_batched_tokens // self.tokens_per_decode)

    @property
    def state_groups(self) -> int:
        """Blocks of one Gated DeltaNet state: one of each group."""
        return self.state_blocks_per_sequence // self.tokens_per_decode

    @property
    def align_prefill(self) -> bool:
        """Whether states are cached: chunks then end at block boundaries (mamba cache mode ``align``)."""
        return self.enable_prefix_caching and self.state_groups > 0

    @property
    def most_state_blocks(self) -> int:
        """State blocks a sequence holds at most.

        Where states are cached, also the one before it and the one that the prefill kernel gives out.
        """
        if not self.align_prefill:
            return self.state_blocks_per_sequence
        return self.state_blocks_per_sequence + self.state_groups * (1 + self.exports_states)

    def blocks_for(self, tokens: int) -> int:
        """Blocks a running sequence of this many tokens holds."""
        return -(-tokens // self.block_size) + self.state_blocks_per_sequence

    def slots(self, tokens: int) -> int:
        """Token slots kept for a sequence that will have computed so many: drafts are written behind them."""
        return min(tokens + self.num_speculative_tokens, self.max_model_len)

    def refusal(self, prompt_tokens: int, output_tokens: int) -> str | None:
        """Why a request of this size can never be served; None where it can."""
        total = prompt_tokens + output_tokens
        if total > self.max_model_len:
            return (
                f"This model's maximum context length is {self.max_model_len} tokens. However, you "
                f"requested {output_tokens} output tokens and your prompt contains at least "
                f"{prompt_tokens} input tokens, for a total of at least {total} tokens."
            )
        need = -(-self.slots(total + self.num_speculative_tokens) // self.block_size) + self.most_state_blocks
        if need > self.usable_blocks:
            return f"The request needs {need} cache blocks, the engine has {self.usable_blocks}."
        return None


def engine_config(candidate: Candidate, acceptance_rates: Sequence[float] = ()) -> EngineConfig:
    """The scheduler's view of a planned engine (one data-parallel rank of it).

    Args:
        candidate: chosen or alternative configuration of a plan.
        acceptance_rates: accepted share by draft position; needed where the plan speculates.

    Raises:
        BadInputError: too few acceptance rates, or a cache without room for one sequence.
    """
    args, cache = candidate.engine_args, candidate.kv_cache
    drafts = args.num_speculative_tokens
    if len(acceptance_rates) < drafts:
        raise BadInputError(
            f"the plan drafts {drafts} tokens a step, {len(acceptance_rates)} acceptance rates are known",
            remedy="Give one rate per draft position with --acceptance 0.93,0.80.",
        )
    config = EngineConfig(
        max_model_len=args.max_model_len,
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens,
        num_blocks=cache.num_blocks,
        block_size=cache.block_size * cache.context_parallel_size,
        state_blocks_per_sequence=cache.state_blocks_per_sequence,
        num_speculative_tokens=drafts,
        acceptance_rates=tuple(acceptance_rates[:drafts]),
        enable_prefix_caching=args.enable_prefix_caching,
        exports_states=cache.reserved_blocks_per_sequence > _kept_states(cache, drafts),
        async_scheduling=True,
        data_parallel_size=candidate.parallelism.serving_groups,
    )
    if 1 + config.most_state_blocks > config.usable_blocks or config.max_decoding < 1:
        raise BadInputError(
            f"the plan's cache of {cache.num_blocks} blocks holds no sequence",
            remedy="Make a new plan with: qwenhost plan --save plan.json",
        )
    return config


def _kept_states(cache: KvCache, drafts: int) -> int:
    """State blocks of a sequence where prefixes are cached, without one for the prefill kernel's."""
    return cache.state_blocks_per_sequence // (1 + drafts) * (2 + drafts)

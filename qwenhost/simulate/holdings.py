"""What sequences hold of the block pool, and what they find in it.

Rules: vLLM ``v1/core/kv_cache_manager.py`` and ``kv_cache_coordinator.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qwenhost.simulate.blocks import Block, BlockPool, evictable
from qwenhost.simulate.chunks import Prefill
from qwenhost.simulate.states import Entries, StateCache, States

if TYPE_CHECKING:
    from qwenhost.simulate.config import EngineConfig
    from qwenhost.simulate.sequence import Sequence


class Hit(NamedTuple):
    """What a waiting request finds in the cache."""

    tokens: int = 0
    """To go on behind."""
    blocks: tuple[Block, ...] | list[Block] = ()
    state: Entries | None = None
    junction: int = 0
    """Tokens whose attention blocks are there and whose state is not."""


class Holdings:
    """Attention and state blocks of all sequences.

    Args:
        config: of the engine.
    """

    def __init__(self, config: EngineConfig) -> None:
        cached = config.align_prefill
        self.pool = BlockPool(config.usable_blocks, 1 + (config.state_groups if cached else 0))
        self._config = config
        self._size = config.block_size
        self._states = StateCache(config, self.pool) if cached else None
        self._fixed_states = 0 if cached else config.state_blocks_per_sequence
        # A block's hash covers the token behind it where an MTP layer reads that (0.33).
        self._hash_ahead = min(1, config.num_speculative_tokens)

    def begin_step(self) -> None:
        """A scheduling begins."""
        if self._states:
            self._states.begin_step()

    def look_up(self, sequence: Sequence) -> Hit:
        """Cache entries to go on behind; the last token is always computed."""
        if not self._config.enable_prefix_caching:
            return Hit()
        request = sequence.request
        most = (sequence.target - 1) // self._size
        assumed = 0 if request.block_hashes else min(request.assumed_cached_tokens // self._size, most)
        if not request.block_hashes and not sequence.preemptions:
            return Hit(assumed * self._size)
        known = request.block_hashes[:most] if request.block_hashes else ()
        own = range(max(len(known), assumed), most) if sequence.preemptions else ()
        blocks = self.pool.prefix([*known, *map(sequence.key, own)])
        if self._states is None or not blocks:
            return Hit((assumed + len(blocks)) * self._size, blocks)
        for found in range(len(blocks), 0, -1):
            state = self._states.find(blocks[found - 1].key)
            if state is not None:
                junction = len(blocks) if found < len(blocks) else 0
                return Hit(
                    (assumed + found) * self._size,
                    blocks[:found],
                    state,
                    (assumed + junction) * self._size if junction else 0,
                )
        return Hit(assumed * self._size, junction=(assumed + len(blocks)) * self._size)

    def fits(self, sequence: Sequence, hit: Hit, tokens: int) -> bool:
        """Whether a waiting request can begin with so many tokens.

        The whole prompt must fit, not just this chunk (``scheduler_reserve_full_isl``).
        """
        if hit.state and self._states and self._states.is_fresh(hit.state[-1].key):
            return False  # computed by a step that has not run
        end = max(sequence.request.prompt_tokens, sequence.target - 1)
        reused = len(hit.blocks) - evictable(hit.blocks)
        for computed, slots in (
            (sequence.target, sequence.target),
            (hit.tokens + tokens, self._config.slots(hit.tokens + tokens)),
        ):
            need = -(-slots // self._size) - reused + self._fixed_states
            if self._states:
                states = States()
                if not hit.state:
                    self._states.skip(states, hit.tokens)
                need += self._states.need(states, hit.tokens, computed, end, hit.state)
            if need > self.pool.free:
                return False
        return True

    def admit(self, sequence: Sequence, hit: Hit, tokens: int) -> None:
        """Hold what a request found and what its first chunk needs."""
        sequence.computed = hit.tokens
        sequence.junction = hit.junction
        if self._states:
            sequence.states = States()
            if hit.state:
                self._states.resume(sequence.states, hit.state, hit.tokens)
            else:
                self._states.skip(sequence.states, hit.tokens)
        self.pool.reference(hit.blocks)
        sequence.entries = list(hit.blocks)
        sequence.published = hit.tokens // self._size
        sequence.blocks = len(hit.blocks)
        taken = self.pool.take(self._fixed_states)
        self._take(sequence, hit.tokens, hit.tokens + tokens)
        assert taken, "found to fit"  # noqa: S101 - our own arithmetic
        self._offer(sequence, hit.tokens + tokens)

    def hold(self, sequence: Sequence, start: int, tokens: int, processed: int) -> bool:
        """Hold what a running sequence's next tokens need; False where that many blocks are not free.

        Args:
            sequence: running.
            start: tokens computed before.
            tokens: to compute.
            processed: of those computed, what no running step reads any more.
        """
        if self._states and sequence.states:
            self._states.drop_passed(sequence.states, processed)
        if self._need(sequence, start, start + tokens) > self.pool.free:
            return False
        self._take(sequence, start, start + tokens)
        if start < sequence.target:
            self._offer(sequence, start + tokens)
        return True

    def prefill(self, sequence: Sequence) -> Prefill:
        """A running prompt's state."""
        return Prefill(sequence.computed, sequence.target, sequence.request.prompt_tokens, sequence.junction)

    def next_change(self, sequence: Sequence, in_flight: int) -> int:
        """Computed tokens at which a decoding sequence takes or gives blocks."""
        drafts = self._config.num_speculative_tokens
        changes = sequence.blocks * self._size - 2 * drafts
        if self._states and sequence.states:
            changes = min(changes, self._states.next_change(sequence.states, in_flight))
        if self._config.enable_prefix_caching and sequence.published < len(sequence.request.block_hashes):
            offers = (sequence.published + 1) * self._size - (not drafts) + in_flight
            changes = min(changes, offers)
        return changes

    def offer_answer(self, sequence: Sequence, start: int, in_flight: int) -> None:
        """What others may ask for of a running answer, known up to the step at hand."""
        if self._config.enable_prefix_caching:
            known = start - in_flight + (not self._config.num_speculative_tokens)
            self._publish(sequence, min(known // self._size, len(sequence.request.block_hashes)))

    def give_back(self, sequence: Sequence, tokens: int) -> None:
        """Free everything a sequence holds; its first ``tokens`` tokens can be found while that lasts."""
        if self._config.enable_prefix_caching:
            self._publish(sequence, tokens // self._size)
        if self._states and sequence.states:
            self._states.release(sequence.states)
        self.pool.give(self._fixed_states + sequence.blocks - len(sequence.entries))
        self.pool.release(reversed(sequence.entries))
        sequence.entries = []
        sequence.states = None
        sequence.blocks = sequence.computed = 0

    def _need(self, sequence: Sequence, start: int, end: int) -> int:
        need = max(0, -(-self._config.slots(end) // self._size) - sequence.blocks)
        if self._states and sequence.states:
            need += self._states.need(sequence.states, start, end, self.prefill(sequence).end)
        return need

    def _take(self, sequence: Sequence, start: int, end: int) -> None:
        if self._states and sequence.states:
            self._states.take(sequence.states, start, end, self.prefill(sequence).end)
        blocks = max(sequence.blocks, -(-self._config.slots(end) // self._size))
        taken = self.pool.take(blocks - sequence.blocks)
        assert taken, "found to be free"  # noqa: S101 - our own arithmetic
        sequence.blocks = blocks

    def _offer(self, sequence: Sequence, tokens: int) -> None:
        """What a prompt's chunk computes can be found from now on, though it runs only now."""
        if not self._config.enable_prefix_caching:
            return
        full = min(tokens, sequence.target - self._hash_ahead) // self._size
        self._publish(sequence, min(full, len(sequence.request.block_hashes)))
        if self._states and sequence.states:
            prompt = (sequence.request.prompt_tokens - 1) // self._size * self._size
            boundaries = (prompt, sequence.junction // self._size * self._size)
            self._states.publish(sequence.states, full * self._size, boundaries, sequence.key)

    def _publish(self, sequence: Sequence, full: int) -> None:
        """Offer leading blocks to others. What nobody else can ask for is offered when it comes free."""
        for block in range(sequence.published, full):
            sequence.entries.append(self.pool.publish(sequence.key(block)))
        sequence.published = max(sequence.published, full)

"""Gated DeltaNet state blocks of sequences where prefixes are cached.

A sequence holds a state behind the tokens it has computed, the one before it until the step after, and slots
for drafts. vLLM addresses them by the position of the attention block they end with; the states between are
null. A state stays as a cache entry behind the last block boundary of the prompt and behind a prefix that two
prompts share (``prefix_cache_retention_interval`` 0). All groups of states hold blocks at the same positions.

Rules: vLLM 0.33 ``MambaManager`` in mode ``align``, ``v1/core/single_type_kv_cache_manager.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.simulate.blocks import Block, BlockPool, evictable
from qwenhost.simulate.chunks import exports_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from qwenhost.simulate.config import EngineConfig

Entries = tuple[Block, ...]
"""One state as cache entries: its block of each group."""


class States:
    """The state blocks of one sequence, alike in every group."""

    __slots__ = ("allocated", "checkpoint", "held", "length", "published")

    def __init__(self) -> None:
        self.length = 0
        """Positions, null ones included."""
        self.held: dict[int, Entries | None] = {}
        """By position, in ascending order but for drafts; None where no cache entries."""
        self.published = 0
        """Leading positions offered to the cache."""
        self.allocated = False
        self.checkpoint: int | None = None
        """Position that the prefill kernel exports a state to, in this step."""


class StateCache:
    """What the states of sequences hold of the pool.

    Args:
        config: groups, block size, drafts.
        pool: where blocks come from.
    """

    def __init__(self, config: EngineConfig, pool: BlockPool) -> None:
        self.groups = config.state_groups
        self._config = config
        self._pool = pool
        self._size = config.block_size
        self._drafts = config.num_speculative_tokens
        self._fresh: set[Hashable] = set()

    def begin_step(self) -> None:
        """States published from here on cannot be resumed from before the next step."""
        self._fresh.clear()

    def is_fresh(self, key: Hashable) -> bool:
        """Whether the state was published in this step."""
        return key in self._fresh

    def find(self, key: Hashable) -> Entries | None:
        """A state, where all groups' blocks of it are still there."""
        found = []
        for group in range(1, self.groups + 1):
            block = self._pool.find(key, group)
            if block is None:
                return None
            found.append(block)
        return tuple(found)

    def need(self, states: States, start: int, end: int, prefill_end: int, hit: Entries | None = None) -> int:
        """Blocks that computing the tokens from ``start`` to ``end`` takes; below 0 where some are left over.

        Args:
            states: of the sequence, before anything of the hit is held.
            start: tokens computed before.
            end: tokens computed after.
            prefill_end: where the prompt's computation ends.
            hit: state resumed from, behind ``start``.
        """
        required = -(-end // self._size) + self._drafts
        new = required - states.length - (start // self._size if hit else 0)
        if new > 0:
            exported = self._checkpoint(states, start, end, prefill_end) is not None
            new = min(new, 1 + exported + (0 if states.allocated else self._drafts))
        return new * self.groups + (evictable(hit) if hit else 0)

    def resume(self, states: States, hit: Entries, tokens: int) -> None:
        """Hold the state behind so many tokens."""
        self._pool.reference(hit)
        position = tokens // self._size - 1
        states.held[position] = hit
        states.length = states.published = position + 1

    def skip(self, states: States, tokens: int) -> None:
        """Begin behind so many tokens without a block for them."""
        states.length = states.published = tokens // self._size

    def take(self, states: States, start: int, end: int, prefill_end: int) -> None:
        """Hold what computing the tokens from ``start`` to ``end`` needs; found to be free before."""
        states.checkpoint = self._checkpoint(states, start, end, prefill_end)
        required = -(-end // self._size) + self._drafts
        exported = states.checkpoint is not None
        if required > states.length or exported:
            before = states.length
            passed = required - self._drafts - 1 - exported
            states.length = max(before, passed)
            for position in range(before - self._drafts, before) if states.allocated else ():
                if position >= passed:
                    break
                states.held[states.length] = states.held.pop(position)  # a draft's slot moves along
                states.length += 1
            new = max(0, required - states.length)
            for position in range(states.length, states.length + new):
                states.held[position] = None
            states.length += new
            taken = self._pool.take(new * self.groups)
            assert taken, "found to be free"  # noqa: S101 - our own arithmetic
        states.allocated = True

    def drop_passed(self, states: States, processed: int) -> None:
        """Free the states behind which ``processed`` tokens have gone on."""
        passed = (processed - 1) // self._size
        positions = [position for position in states.held if position < passed]
        if positions:
            self._release([states.held.pop(position) for position in sorted(positions, reverse=True)])

    def release(self, states: States) -> None:
        """Free all."""
        self._release([states.held[position] for position in sorted(states.held, reverse=True)])
        states.held.clear()

    def publish(
        self, states: States, tokens: int, boundaries: tuple[int, int], key: Callable[[int], Hashable]
    ) -> None:
        """Keep the states that can be resumed from.

        Args:
            states: of the sequence.
            tokens: computed once the step ends, whole blocks of known content.
            boundaries: tokens up to the last boundary that a repeated prompt resumes at, and of the prefix
                shared with another prompt (0 = none).
            key: of the content up to the end of a block.
        """
        prompt, junction = (tokens // self._size - 1 for tokens in boundaries)
        full = tokens // self._size
        for position in sorted({prompt, junction}):
            if states.published <= position < full:
                self._offer(states, position, key)
        states.published = max(states.published, full)
        if states.checkpoint is None:
            if full - 1 == prompt:
                self._offer(states, prompt, key)
        elif states.checkpoint in (prompt, junction):
            self._offer(states, states.checkpoint, key)

    def next_change(self, states: States, in_flight: int) -> int:
        """Computed tokens at which a decoding sequence takes or gives a state."""
        grows = (states.length - self._drafts) * self._size - self._drafts
        gives = (min(states.held) + 1) * self._size + 1 + in_flight if states.held else grows
        return min(grows, gives)

    def _offer(self, states: States, position: int, key: Callable[[int], Hashable]) -> None:
        if position in states.held and states.held[position] is None:
            found = key(position)
            states.held[position] = tuple(
                self._pool.publish(found, group) for group in range(1, self.groups + 1)
            )
            self._fresh.add(found)

    def _release(self, held: list[Entries | None]) -> None:
        entries = [found for found in held if found is not None]
        self._pool.give((len(held) - len(entries)) * self.groups)
        for group in range(self.groups) if entries else ():
            self._pool.release(found[group] for found in entries)

    def _checkpoint(self, states: States, start: int, end: int, prefill_end: int) -> int | None:
        if end < prefill_end or not exports_checkpoint(self._config, start, end, end):
            return None
        position = -(-end // self._size) - 2
        null = position >= states.length or position not in states.held
        draft = states.allocated and position >= states.length - self._drafts
        return position if position >= 0 and (null or draft) else None

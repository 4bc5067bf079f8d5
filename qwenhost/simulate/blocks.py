"""The block pool: how many blocks are held, and which prefixes can still be found in it.

Blocks carry no number here. A block is either held (by one sequence alone, or as a cache entry that one
or more sequences reference), or kept (a cache entry nobody references, evicted least recently used
first), or blank. Held + kept + blank = capacity; kept and blank are free to take.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class BlockPool:
    """Counts of blocks, and an LRU cache of prefix blocks and Gated DeltaNet checkpoints.

    Args:
        capacity: usable blocks.
        checkpoint_blocks: blocks of one cached state; 0 where the model keeps no state.
    """

    def __init__(self, capacity: int, checkpoint_blocks: int) -> None:
        self.capacity = capacity
        self.held = 0
        self._checkpoint_blocks = checkpoint_blocks
        self._references: dict[int, int] = {}
        self._kept: OrderedDict[tuple[int, bool], int] = OrderedDict()  # (hash, is a checkpoint) -> blocks
        self._kept_blocks = 0

    @property
    def free(self) -> int:
        """Blocks that can be taken, kept ones included, as vLLM counts them."""
        return self.capacity - self.held

    @property
    def kept(self) -> int:
        """Blocks of cache entries nobody references."""
        return self._kept_blocks

    @property
    def usage(self) -> float:
        """Held share of the pool, vLLM's ``kv_cache_usage_perc``."""
        return self.held / self.capacity

    def take(self, blocks: int) -> bool:
        """Hold more blocks if that many are free, evicting kept ones as needed."""
        if self.held + blocks > self.capacity:
            return False
        self.held += blocks
        self._evict()
        return True

    def give(self, blocks: int) -> None:
        """Blank blocks that were held by one sequence alone."""
        self.held -= blocks

    def match(self, hashes: Sequence[int]) -> tuple[int, int]:
        """Leading blocks found, and leading blocks a sequence can resume behind.

        A hybrid model resumes only where the recurrent state was kept as well.
        """
        found = 0
        for key in hashes:
            if key not in self._references:
                break
            found += 1
        if not self._checkpoint_blocks:
            return found, found
        resume = found
        while resume and (hashes[resume - 1], True) not in self._kept:
            resume -= 1
        return found, resume

    def blocks_to_hold(self, hashes: Sequence[int]) -> int:
        """Free blocks that referencing these entries would hold."""
        return sum(self._references[key] == 0 for key in hashes)

    def reference(self, hashes: Sequence[int]) -> None:
        """Hold cache entries for one more sequence; all must be present."""
        for key in hashes:
            if self._references[key] == 0:
                self._kept_blocks -= self._kept.pop((key, False))
                self.held += 1
            self._references[key] += 1
        if hashes and (hashes[-1], True) in self._kept:
            self._kept.move_to_end((hashes[-1], True))
        self._evict()

    def publish(self, key: int) -> bool:
        """Turn a block held by one sequence alone into a referenced cache entry.

        False where the entry exists: two sequences computed the same block, and the second copy stays
        private, as in vLLM.
        """
        if key in self._references:
            return False
        self._references[key] = 1
        return True

    def release(self, hashes: Sequence[int]) -> None:
        """Drop one reference each; the tail of a prefix is evicted before its head."""
        for key in reversed(hashes):
            self._references[key] -= 1
            if self._references[key] == 0:
                self.held -= 1
                self._kept[key, False] = 1
                self._kept_blocks += 1

    def checkpoint(self, key: int) -> None:
        """Keep the recurrent state behind a block, room permitting."""
        blocks = self._checkpoint_blocks
        if not blocks or self.held + blocks > self.capacity:
            return
        if (key, True) in self._kept:
            self._kept.move_to_end((key, True))
            return
        self._kept[key, True] = blocks
        self._kept_blocks += blocks
        self._evict()

    def _evict(self) -> None:
        while self.held + self._kept_blocks > self.capacity:
            (key, is_checkpoint), blocks = self._kept.popitem(last=False)
            self._kept_blocks -= blocks
            if not is_checkpoint:
                del self._references[key]

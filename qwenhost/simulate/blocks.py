"""The block pool: how many blocks are held, and which prefixes can still be found in it.

A block is either held (by one sequence alone, or as a cache entry that one or more sequences reference), or
kept (a cache entry nobody references, evicted least recently used first), or blank. Held + kept + blank =
capacity; kept and blank are free to take. Only cache entries are objects: the others are a count.

Rules: vLLM ``v1/core/block_pool.py``. Blank blocks are taken before any entry is evicted, and equal blocks
computed by two sequences are two entries.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

ATTENTION = 0
"""Group of the attention blocks; Gated DeltaNet states are groups 1, 2..."""


class Block:
    """A cache entry: one block whose content can be found."""

    __slots__ = ("group", "key", "references", "twin")

    def __init__(self, key: Hashable, group: int) -> None:
        self.key = key
        self.group = group
        self.references = 1
        self.twin: Block | None = None
        """The next entry of the same content."""


class BlockPool:
    """Counts of blocks, and an LRU cache of prefix blocks and Gated DeltaNet states.

    Args:
        capacity: usable blocks.
        groups: attention and the groups of states; each content is looked up by group.
    """

    def __init__(self, capacity: int, groups: int = 1) -> None:
        self.capacity = capacity
        self.held = 0
        self._found: tuple[dict[Hashable, Block], ...] = tuple({} for _ in range(groups))
        self._kept: OrderedDict[Block, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Blocks that can be taken, kept ones included, as vLLM counts them."""
        return self.capacity - self.held

    @property
    def kept(self) -> int:
        """Blocks of cache entries nobody references."""
        return len(self._kept)

    @property
    def usage(self) -> float:
        """Held share of the pool, vLLM's ``kv_cache_usage_perc``."""
        return self.held / self.capacity

    def take(self, blocks: int) -> bool:
        """Hold more blocks if that many are free, evicting kept ones as needed."""
        if self.held + blocks > self.capacity:
            return False
        self.held += blocks
        while self.held + len(self._kept) > self.capacity:
            block, _ = self._kept.popitem(last=False)
            self._forget(block)
        return True

    def give(self, blocks: int) -> None:
        """Blank blocks that were held by one sequence alone."""
        self.held -= blocks

    def find(self, key: Hashable, group: int = ATTENTION) -> Block | None:
        """The oldest entry of this content."""
        return self._found[group].get(key)

    def prefix(self, keys: Sequence[Hashable]) -> list[Block]:
        """Attention blocks of the leading keys that are found."""
        found = self._found[ATTENTION]
        blocks = []
        for key in keys:
            block = found.get(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def reference(self, blocks: Iterable[Block]) -> None:
        """Hold cache entries for one more sequence."""
        for block in blocks:
            if block.references == 0:
                del self._kept[block]
                self.held += 1
            block.references += 1

    def publish(self, key: Hashable, group: int = ATTENTION) -> Block:
        """Turn a block held by one sequence alone into a referenced cache entry."""
        block = Block(key, group)
        found = self._found[group]
        last = found.setdefault(key, block)
        if last is not block:
            while last.twin is not None:
                last = last.twin
            last.twin = block
        return block

    def withdraw(self, block: Block) -> None:
        """Make an entry of one sequence's a block held by it alone again."""
        self._forget(block)

    def release(self, blocks: Iterable[Block]) -> None:
        """Drop one reference each; what comes first is evicted first."""
        for block in blocks:
            block.references -= 1
            if block.references == 0:
                self.held -= 1
                self._kept[block] = None

    def _forget(self, block: Block) -> None:
        found = self._found[block.group]
        first = found[block.key]
        if first is block:
            if block.twin is None:
                del found[block.key]
            else:
                found[block.key] = block.twin
            return
        while first.twin is not block:
            assert first.twin is not None  # noqa: S101 - our own bookkeeping
            first = first.twin
        first.twin = block.twin


def evictable(blocks: Iterable[Block]) -> int:
    """Free blocks that referencing these entries would hold."""
    return sum(block.references == 0 for block in blocks)

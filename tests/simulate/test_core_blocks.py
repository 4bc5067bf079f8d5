"""The block pool by hand, and against a plain model of it that keeps every block."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qwenhost.simulate.blocks import Block, BlockPool, evictable

CAPACITY = 6


class TestByHand:
    def test_an_empty_pool_is_all_free(self) -> None:
        """Nothing held, nothing kept."""
        pool = BlockPool(8)
        assert (pool.held, pool.kept, pool.free, pool.usage) == (0, 0, 8, 0.0)

    @pytest.mark.parametrize(("blocks", "given"), [(0, True), (7, True), (8, True), (9, False)])
    def test_no_more_than_there_are(self, blocks: int, *, given: bool) -> None:
        """Eight of eight; nine are refused and nothing is held for them."""
        pool = BlockPool(8)
        assert pool.take(blocks) is given
        assert pool.held == (blocks if given else 0)

    def test_kept_blocks_count_as_free(self) -> None:
        """The usage that vLLM reports leaves out what only the cache still knows."""
        pool = BlockPool(4)
        pool.take(2)
        blocks = [pool.publish(key) for key in "ab"]
        pool.release(blocks)
        assert (pool.held, pool.kept, pool.free, pool.usage) == (0, 2, 4, 0.0)

    def test_blank_blocks_go_before_kept_ones(self) -> None:
        """Two kept of four: two can be taken without evicting, the third costs the oldest."""
        pool = BlockPool(4)
        pool.take(2)
        pool.release([pool.publish(key) for key in "ab"])
        assert pool.take(2)
        assert (pool.find("a"), pool.find("b")) != (None, None)
        assert pool.take(1)
        assert pool.find("a") is None
        assert pool.find("b") is not None

    def test_a_reference_saves_from_eviction(self) -> None:
        """A block found by a second request is held again, and others are evicted."""
        pool = BlockPool(3)
        pool.take(2)
        first, second = pool.publish("a"), pool.publish("b")
        pool.release([first, second])
        pool.reference([first])
        assert (pool.held, pool.kept) == (1, 1)
        assert pool.take(2)
        assert pool.find("a") is first
        assert pool.find("b") is None

    def test_released_again_it_is_the_youngest(self) -> None:
        """First a, then b is kept; a is used once more, so that b goes first."""
        pool = BlockPool(2)
        pool.take(2)
        first, second = pool.publish("a"), pool.publish("b")
        pool.release([first, second])
        pool.reference([first])
        pool.release([first])
        pool.take(1)
        assert pool.find("b") is None
        assert pool.find("a") is first

    def test_equal_blocks_are_two_entries(self) -> None:
        """Two sequences computed the same block; when the older copy is evicted the younger is found."""
        pool = BlockPool(3)
        pool.take(2)
        older, younger = pool.publish("a"), pool.publish("a")
        assert pool.find("a") is older
        pool.release([older])
        pool.take(2)  # one blank, and the older copy's
        assert pool.find("a") is younger
        assert pool.held == 3

    def test_the_younger_of_three_copies_can_go_first(self) -> None:
        """The middle one is evicted; the chain of copies stays whole."""
        pool = BlockPool(3)
        pool.take(3)
        copies = [pool.publish("a") for _ in range(3)]
        pool.release([copies[1]])
        pool.take(1)
        assert pool.find("a") is copies[0]
        pool.release([copies[0]])
        pool.take(1)
        assert pool.find("a") is copies[2]
        pool.release([copies[2]])
        pool.take(1)
        assert pool.find("a") is None

    def test_groups_are_looked_up_apart(self) -> None:
        """A state and an attention block of one content are different entries."""
        pool = BlockPool(4, groups=2)
        pool.take(2)
        attention, state = pool.publish("a", 0), pool.publish("a", 1)
        assert (pool.find("a", 0), pool.find("a", 1)) == (attention, state)

    def test_a_prefix_ends_with_the_first_miss(self) -> None:
        """Found a, not b: c does not count."""
        pool = BlockPool(4)
        pool.take(2)
        first, _ = pool.publish("a"), pool.publish("c")
        assert pool.prefix("abc") == [first]
        assert pool.prefix("") == []

    def test_withdrawn_it_is_a_block_like_any_other(self) -> None:
        """Held as before, no longer found."""
        pool = BlockPool(2)
        pool.take(1)
        block = pool.publish("a")
        pool.withdraw(block)
        assert (pool.held, pool.kept, pool.find("a")) == (1, 0, None)

    def test_evictable_are_those_nobody_references(self) -> None:
        """One of two."""
        pool = BlockPool(2)
        pool.take(2)
        blocks = [pool.publish(key) for key in "ab"]
        pool.release(blocks[:1])
        assert evictable(blocks) == 1


class PoolLaws(RuleBasedStateMachine):
    """Any order of calls; the model is a list of all free blocks, as vLLM's free queue."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(CAPACITY)
        self.queue: list[Block | None] = [None] * CAPACITY  # taken from the front
        self.private = 0
        self.entries: list[Block] = []  # with a reference each

    @rule(blocks=st.integers(1, 3))
    def take(self, blocks: int) -> None:
        """From the front of the queue."""
        enough = len(self.queue) >= blocks
        assert self.pool.take(blocks) is enough
        if enough:
            del self.queue[:blocks]
            self.private += blocks

    @precondition(lambda self: self.private)
    @rule()
    def give(self) -> None:
        """Blank, to the front."""
        self.pool.give(1)
        self.private -= 1
        self.queue.insert(0, None)

    @precondition(lambda self: self.private)
    @rule(key=st.sampled_from("abc"))
    def publish(self, key: str) -> None:
        """A held block becomes an entry."""
        self.entries.append(self.pool.publish(key))
        self.private -= 1

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """To the end of the queue with the last reference."""
        block = self.entries.pop(data.draw(st.integers(0, len(self.entries) - 1)))
        self.pool.release([block])
        if block not in self.entries:
            self.queue.append(block)

    @rule(key=st.sampled_from("abc"))
    def reference(self, key: str) -> None:
        """Out of the queue."""
        block = self.pool.find(key)
        if block is not None:
            self.pool.reference([block])
            self.entries.append(block)
            if block in self.queue:
                self.queue.remove(block)

    @invariant()
    def counts_agree(self) -> None:
        """Held, kept and free are those of the queue."""
        assert self.pool.free == len(self.queue)
        assert self.pool.kept == sum(block is not None for block in self.queue)
        assert self.pool.held == CAPACITY - len(self.queue)

    @invariant()
    def what_is_found_is_there(self) -> None:
        """A key is found while, and only while, an entry of it is held or kept."""
        alive = {block.key for block in [*self.queue, *self.entries] if block is not None}
        assert {key for key in "abc" if self.pool.find(key)} == alive


TestPoolLaws = PoolLaws.TestCase
TestPoolLaws.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

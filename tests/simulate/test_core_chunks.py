"""How prompts are cut, by hand and by law."""

from __future__ import annotations

import pytest
from core_kit import hybrid, small
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.simulate.chunks import Prefill, exports_checkpoint, prompt_chunk


def prefill(computed: int, target: int, *, prompt: int | None = None, junction: int = 0) -> Prefill:
    """A prompt that was not preempted, where nothing else is said."""
    return Prefill(computed, target, target if prompt is None else prompt, junction)


@pytest.mark.parametrize(
    ("computed", "target", "budget", "tokens"),
    [
        (0, 10, 16, 10),  # fits
        (0, 10, 4, 4),  # cut by the budget
        (7, 10, 16, 3),  # the rest
        (0, 10, 0, 0),  # nothing left of the step
        (10, 10, 5, 0),  # nothing left of the prompt
        (0, 10, -3, 0),  # more decode than the budget has
    ],
)
def test_without_states_only_the_budget_cuts(computed: int, target: int, budget: int, tokens: int) -> None:
    """Whatever the blocks are."""
    assert prompt_chunk(small(), prefill(computed, target), budget) == tokens


@pytest.mark.parametrize(
    ("computed", "target", "budget", "tokens"),
    [
        (0, 11, 16, 8),  # to the last whole block: its state is kept
        (8, 11, 16, 3),  # and the rest
        (0, 11, 7, 4),  # a step that ends inside a block is cut to its boundary
        (0, 12, 16, 8),  # a prompt of whole blocks leaves one out, since its last token is computed again
        (8, 12, 16, 4),
        (0, 4, 16, 4),  # one block: nothing before it to keep
        (0, 3, 16, 3),  # less than one
        (0, 11, 3, 0),  # not a block's worth of budget left in this step: another step
        (5, 11, 16, 3),  # from within a block to its end
        (0, 11, 0, 0),
    ],
)
def test_with_states_chunks_end_where_one_is_kept(
    computed: int, target: int, budget: int, tokens: int
) -> None:
    """Blocks of 4, steps of 16."""
    assert prompt_chunk(hybrid(), prefill(computed, target), budget) == tokens


def test_a_block_wider_than_a_step_is_entered() -> None:
    """Blocks of 4, steps of 3: 3 tokens and then 1."""
    wide = hybrid(max_num_batched_tokens=3)
    assert [prompt_chunk(wide, prefill(at, 11), 3) for at in (0, 3, 4, 7, 8)] == [3, 1, 3, 1, 3]


def test_a_shared_prefix_is_a_stop() -> None:
    """12 of 23 tokens are shared with another prompt, whose state there was not kept."""
    assert prompt_chunk(hybrid(max_num_batched_tokens=64), prefill(0, 23, junction=12), 64) == 12
    assert prompt_chunk(hybrid(max_num_batched_tokens=64), prefill(12, 23, junction=12), 64) == 8
    assert prompt_chunk(hybrid(max_num_batched_tokens=64), prefill(20, 23, junction=12), 64) == 3


def test_a_kernel_that_exports_states_needs_no_cut() -> None:
    """The same prompt of 11 in one step; one that does not reach its end is still cut."""
    exporting = hybrid(exports_states=True)
    assert prompt_chunk(exporting, prefill(0, 11), 16) == 11
    assert prompt_chunk(exporting, prefill(0, 19), 16) == 16
    assert prompt_chunk(exporting, prefill(0, 23), 19) == 16


@pytest.mark.parametrize(
    ("start", "end", "exported"),
    [
        (0, 11, True),  # 4 <= 8 < 11
        (0, 8, True),  # behind the first of two blocks
        (0, 4, False),  # nothing before the only block
        (4, 8, False),  # the state behind 4 is where it begins
        (4, 11, True),
        (5, 11, False),  # from within a block
    ],
)
def test_when_a_state_can_be_exported(start: int, end: int, *, exported: bool) -> None:
    """Only behind a whole block that this chunk computes, and not the one it begins behind."""
    assert exports_checkpoint(hybrid(exports_states=True), start, end, end) is exported
    assert not exports_checkpoint(hybrid(), start, end, end)


def test_a_recomputed_answer_is_cut_like_a_prompt() -> None:
    """After a preemption 5 of 13 tokens were answered; the last one alone is a decode, not a prompt."""
    assert prefill(0, 13, prompt=8).end == 12
    assert prefill(0, 8, prompt=8).end == 8
    assert prompt_chunk(hybrid(), prefill(0, 13, prompt=8), 16) == 12
    assert prompt_chunk(hybrid(), prefill(12, 13, prompt=8), 16) == 1


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 60),
    st.lists(st.integers(1, 20), min_size=1, max_size=200),
    st.integers(0, 12),
    st.booleans(),
    st.integers(1, 20),
)
def test_every_prompt_is_computed_once(
    target: int,
    budgets: list[int],
    junction_blocks: int,
    exports: bool,
    widest: int,
) -> None:
    """Chunks never pass the budget or the end, and steps of full width always come to the end."""
    config = hybrid(exports_states=exports, max_num_batched_tokens=widest)
    junction = min(4 * junction_blocks, target // 4 * 4)
    computed = 0
    for budget in [min(one, widest) for one in budgets] + [widest] * 100:
        tokens = prompt_chunk(config, prefill(computed, target, junction=junction), budget)
        assert 0 <= tokens <= budget
        assert budget < widest or tokens or computed == target
        computed += tokens
    assert computed == target


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(4, 30))
def test_a_chunk_before_the_end_ends_at_a_boundary(target: int, budget: int) -> None:
    """So that the state behind it can be kept."""
    config = hybrid(max_num_batched_tokens=budget)
    computed = 0
    while computed < target:
        computed += prompt_chunk(config, prefill(computed, target), budget)
        assert computed == target or computed % 4 == 0

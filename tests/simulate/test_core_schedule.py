"""Schedules by hand: order, budget, preemption, prefixes, states, steps scheduled ahead, drafts."""

from __future__ import annotations

import pytest
from core_kit import by_tokens, content, drive, hybrid, one_second, small, submit

from qwenhost.simulate.engine import Engine, Request


class TestOrder:
    def test_an_unfinished_prompt_comes_before_those_admitted_after_it(self) -> None:
        """Blocks of 4, budget 7: the first prompt takes 4 each time, the second its 3 and then a token."""
        engine = Engine(hybrid(max_num_batched_tokens=7), one_second, seed=0)
        submit(engine, [Request(12, 3), Request(3, 3)])
        scheduled = []
        drive(engine, lambda r: scheduled.append(([n for _, n in r.chunks], r.decode_sequences)))
        assert scheduled[:2] == [([4, 3], 0), ([4], 1)]

    def test_decoding_ones_the_budget_does_not_reach_wait(self) -> None:
        """Budget 3, blocks of 4: the long prompt goes on by 3 and 1; the short one decodes beside the 1s."""
        engine = Engine(hybrid(max_num_batched_tokens=3), one_second, seed=0)
        _, short = submit(engine, [Request(12, 2), Request(2, 6)])
        steps = [([n for _, n in r.chunks], r.decode_sequences) for r in (engine.step(0.0) for _ in range(4))]
        assert steps == [([3], 0), ([1, 2], 0), ([3], 0), ([1], 1)]
        assert engine.generated(short) == 2
        assert engine.quiet_s() == 0.0
        drive(engine)
        assert short.finished

    def test_first_come_first_served_even_where_a_later_one_would_fit(self) -> None:
        """Twenty blocks: nine are left; the second needs ten and the third, behind it, one."""
        engine = Engine(small(max_num_batched_tokens=64, max_model_len=60), one_second, seed=0)
        submit(engine, [Request(44, 4), Request(40, 2), Request(4, 1)])
        assert [n for _, n in engine.step(0.0).chunks] == [44]
        assert engine.num_waiting == 2

    def test_two_chunks_of_one_step_share_the_budget(self) -> None:
        """Prompts of 10 and 10 under 16: 10 and 6, then 4 beside the first one's token."""
        engine = Engine(small(), one_second, seed=0)
        submit(engine, [Request(10, 3), Request(10, 3)])
        steps = [engine.step(0.0) for _ in range(2)]
        assert [[n for _, n in step.chunks] for step in steps] == [[10, 6], [4]]
        assert [step.decode_sequences for step in steps] == [0, 1]

    @pytest.mark.parametrize("ahead", [False, True])
    def test_equal_requests_end_in_the_order_they_came(self, ahead: bool) -> None:
        """Nine of them over four places."""
        engine = Engine(small(async_scheduling=ahead), by_tokens, seed=0)
        submit(engine, [Request(6, 5) for _ in range(9)])
        assert list(drive(engine)) == list(range(1, 10))


class TestPreemption:
    def test_the_last_admitted_gives_way_first_and_comes_back_first(self) -> None:
        """Six blocks, three prompts of 8: growing costs the third its place, then the second."""
        engine = Engine(small(num_blocks=7, max_num_batched_tokens=64, max_model_len=24), one_second, seed=0)
        first, second, third = submit(engine, [Request(8, 8) for _ in range(3)])
        gone = []
        drive(engine, lambda _: gone.append((first.preemptions, second.preemptions, third.preemptions)))
        assert gone[1] == (0, 0, 1)
        assert gone[-1][0] == 0
        assert engine.preemptions == sum(gone[-1])
        assert all(sequence.finished for sequence in (first, second, third))

    def test_what_had_been_generated_is_computed_again(self) -> None:
        """Four blocks, two prompts of 8 with 1 token each: 9 are computed at once later."""
        engine = Engine(small(num_blocks=5, max_num_batched_tokens=64, max_model_len=16), one_second, seed=0)
        _, second = submit(engine, [Request(8, 4), Request(8, 4)])
        chunks: list[list[int]] = []
        drive(engine, lambda r: chunks.append([n for s, n in r.chunks if s is second]))
        assert [c for c in chunks if c] == [[8], [9]]
        assert second.first_scheduled_s == 0.0

    def test_its_own_blocks_are_found_again(self) -> None:
        """With prefix caching what it held stays until somebody takes it: here one block of its two."""
        caching = small(num_blocks=5, max_num_batched_tokens=64, max_model_len=16, enable_prefix_caching=True)
        engine = Engine(caching, one_second, seed=0)
        _, second = submit(engine, [Request(8, 4), Request(8, 4)])
        chunks: list[int] = []
        drive(engine, lambda r: chunks.extend(n for s, n in r.chunks if s is second))
        assert chunks == [8, 5]
        assert (second.cached_tokens, engine.prefix_hits) == (0, 0)  # counted at first admissions only

    def test_nobody_is_admitted_in_a_step_with_a_preemption(self) -> None:
        """The blocks that came free would do for the third request."""
        engine = Engine(small(num_blocks=5, max_num_batched_tokens=64, max_model_len=16), one_second, seed=0)
        submit(engine, [Request(8, 4), Request(8, 4)])
        engine.step(0.0)
        engine.submit(Request(1, 1), 0.0)
        result = engine.step(0.0)
        assert (result.preempted, result.chunks) == (1, [])

    def test_an_abort_of_a_preempted_one_leaves_no_trace(self) -> None:
        """It waits, holds nothing, and is forgotten."""
        engine = Engine(small(num_blocks=5, max_num_batched_tokens=64, max_model_len=16), one_second, seed=0)
        first, second = submit(engine, [Request(8, 4), Request(8, 4)])
        engine.step(0.0)
        engine.step(0.0)
        assert second.preemptions == 1
        engine.abort(second)
        assert (engine.num_waiting, second.finished) == (0, True)
        assert list(drive(engine)) == [first.serial]


class TestPrefixes:
    def test_a_prompt_of_the_same_step_is_found(self) -> None:
        """Attention blocks can be found as soon as they are scheduled: the second prompt saves two."""
        engine = Engine(small(enable_prefix_caching=True, max_num_batched_tokens=64), one_second, seed=0)
        _, second = submit(engine, [Request(12, 1, 0, content(1, 3)) for _ in range(2)])
        assert [n for _, n in engine.step(0.0).chunks] == [12, 4]
        assert second.cached_tokens == 8

    def test_a_state_of_the_same_step_is_waited_for(self) -> None:
        """A hybrid prompt's state is there when the step has run: its repetition joins the next one."""
        engine = Engine(hybrid(max_num_batched_tokens=64), one_second, seed=0)
        _, second = submit(engine, [Request(11, 1, 0, content(1, 2)) for _ in range(2)])
        assert [n for _, n in engine.step(0.0).chunks] == [8]
        assert sorted(n for _, n in engine.step(0.0).chunks) == [3, 3]
        assert second.cached_tokens == 8

    def test_a_running_answer_is_found_as_it_grows(self) -> None:
        """8 prompt and 8 answered tokens are four blocks: the third is found once 12 tokens are known."""
        engine = Engine(small(enable_prefix_caching=True, max_num_batched_tokens=64), one_second, seed=0)
        engine.submit(Request(8, 12, 0, content(1, 5)), 0.0)
        for _ in range(5):
            engine.step(0.0)
        assert engine.pool.find(1002) is not None
        assert engine.pool.find(1003) is None
        follower = engine.submit(Request(16, 1, 0, content(1, 4)), 0.0)
        drive(engine)
        assert follower.cached_tokens == 12

    def test_an_unknown_prompt_meets_nobody(self) -> None:
        """Two requests of which nothing is known share nothing."""
        engine = Engine(small(enable_prefix_caching=True), one_second, seed=0)
        submit(engine, [Request(12, 2) for _ in range(2)])
        drive(engine)
        assert (engine.prefix_queries, engine.prefix_hits) == (24, 0)


class TestStates:
    def test_two_states_are_held_while_one_passes_into_the_next(self) -> None:
        """Blocks of 4, a prompt of 11: a state behind 8, one for the rest; the first goes later."""
        engine = Engine(hybrid(max_num_batched_tokens=64), one_second, seed=0)
        engine.submit(Request(11, 6), 0.0)
        held = [engine.step(0.0).kv_blocks_held for _ in range(4)]
        # 2 + 1, then 3 + 2, then 3 + 1; the 13th token takes a block and a state in the step after.
        assert held == [3, 5, 4, 6]

    def test_without_caching_they_are_a_constant(self) -> None:
        """Three groups: three blocks from the first step to the last."""
        engine = Engine(small(state_blocks_per_sequence=3), one_second, seed=0)
        engine.submit(Request(4, 6), 0.0)
        assert [engine.step(0.0).kv_blocks_held for _ in range(6)] == [4, 5, 5, 5, 5, 6]
        assert engine.idle

    def test_an_exported_state_costs_a_block_and_saves_a_step(self) -> None:
        """11 tokens at once: three attention blocks, the state at the end and the one behind 8."""
        engine = Engine(hybrid(exports_states=True, max_num_batched_tokens=64), one_second, seed=0)
        engine.submit(Request(11, 2, 0, content(1, 2)), 0.0)
        first = engine.step(0.0)
        assert (first.prefill_tokens, first.kv_blocks_held, len(first.first_tokens)) == (11, 5, 1)
        follower = engine.submit(Request(11, 1, 0, content(1, 2)), 0.0)
        drive(engine)
        assert follower.cached_tokens == 8

    @pytest.mark.parametrize(
        ("changes", "most"),
        [
            ({}, 2),  # the state and the one before it
            ({"exports_states": True}, 3),
            ({"enable_prefix_caching": False}, 1),
            ({"state_blocks_per_sequence": 6, "num_speculative_tokens": 1, "acceptance_rates": (0.5,)}, 9),
        ],
    )
    def test_what_a_sequence_holds_at_most(self, changes: dict[str, object], most: int) -> None:
        """Three groups with a draft are (1 + 1 + 1) x 3; what needs more than there is, is refused."""
        config = hybrid(**changes)
        assert config.most_state_blocks == most
        tight = hybrid(**changes, num_blocks=1 + most + 2)
        assert tight.refusal(4, 4 - 2 * tight.num_speculative_tokens) is None
        assert "cache blocks" in str(tight.refusal(8, 4))


class TestAhead:
    @pytest.mark.parametrize(("ahead", "overrun"), [(False, [0, 0, 0]), (True, [0, 0, 0, 1])])
    def test_an_overrun_takes_a_step(self, ahead: bool, overrun: list[int]) -> None:
        """All drafts accepted: 1 + 2 + 2 tokens; scheduled ahead, a third decode step runs for nothing."""
        config = small(num_speculative_tokens=1, acceptance_rates=(1.0,), async_scheduling=ahead)
        engine = Engine(config, one_second, seed=0)
        engine.submit(Request(4, 5), 0.0)
        seen: list[int] = []
        drive(engine, lambda r: seen.append(len(r.overrun)))
        assert seen == overrun
        assert engine.pool.held == 0

    def test_the_last_token_alone_is_known_ahead(self) -> None:
        """4 tokens: after 1 + 2 the next step surely ends it, whatever its draft does."""
        config = small(num_speculative_tokens=1, acceptance_rates=(1.0,), async_scheduling=True)
        engine = Engine(config, one_second, seed=0)
        engine.submit(Request(4, 4), 0.0)
        overrun: list[int] = []
        drive(engine, lambda r: overrun.append(len(r.overrun)))
        assert overrun == [0, 0, 0]

    def test_drafts_need_slots_before_they_are_accepted(self) -> None:
        """3 prompt tokens and a draft are one block of 4, in the next step 3 + 2 + 1 are two."""
        config = small(num_speculative_tokens=1, acceptance_rates=(0.0,))
        engine = Engine(config, one_second, seed=0)
        engine.submit(Request(3, 4), 0.0)
        assert [engine.step(0.0).kv_blocks_held for _ in range(2)] == [1, 2]

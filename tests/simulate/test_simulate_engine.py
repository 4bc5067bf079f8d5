"""The scheduler core: hand-checked schedules and laws that hold for every load."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.simulate.acceptance import TABLE_STEPS, Acceptance
from qwenhost.simulate.blocks import BlockPool
from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.engine import Engine, Request

if TYPE_CHECKING:
    from qwenhost.plan import StepShape


def config(**changes: object) -> EngineConfig:
    """Ten usable blocks of 4 tokens, budget 8, no state, no prefix caching."""
    values: dict[str, object] = {
        "max_model_len": 40, "max_num_seqs": 4, "max_num_batched_tokens": 8, "num_blocks": 11,
        "block_size": 4, "enable_prefix_caching": False,
    }  # fmt: skip
    return EngineConfig(**(values | changes))  # type: ignore[arg-type]


def seconds(shape: StepShape) -> float:
    """A step of 1 s, 0.1 s per prompt token, 0.01 s per token of context."""
    return 1 + 0.1 * shape.prefill_tokens + 0.01 * shape.decode_context_tokens


def run(engine: Engine, *, max_steps: int = 1, limit: int = 100_000) -> list[tuple[int, float]]:
    """(serial, end) of every request, in the order they finish."""
    now = 0.0
    ends: list[tuple[int, float]] = []
    for _ in range(limit):
        if engine.idle:
            return ends
        result = engine.step(now, max_steps=max_steps)
        now += result.duration_s
        ends += [(sequence.serial, now) for sequence in result.finished]
    raise AssertionError("the engine does not finish")


class TestSchedule:
    def test_a_prompt_then_one_token_a_step(self) -> None:
        """5 prompt and 3 output tokens: one step of 1.5 s, then decode at context 6 and 7."""
        engine = Engine(config(), seconds, seed=0)
        engine.submit(Request(5, 3), 0.0)
        shapes = [engine.step(0.0) for _ in range(3)]
        assert [s.duration_s for s in shapes] == pytest.approx([1.5, 1.06, 1.07])
        assert [len(s.first_tokens) for s in shapes] == [1, 0, 0]
        assert [len(s.finished) for s in shapes] == [0, 0, 1]
        assert engine.idle
        assert engine.pool.held == 0

    def test_the_budget_cuts_a_prompt_and_decoding_comes_first(self) -> None:
        """Budget 8, one decoding: a prompt of 20 gets 7, 7 and 6 tokens."""
        engine = Engine(config(), seconds, seed=0)
        engine.submit(Request(4, 9), 0.0)
        engine.step(0.0)
        engine.submit(Request(20, 1), 0.0)
        results = [engine.step(0.0) for _ in range(3)]
        assert [r.prefill_tokens for r in results] == [7, 7, 6]
        assert [r.decode_sequences for r in results] == [1, 1, 1]
        assert len(results[-1].finished) == 1

    def test_two_prompts_share_a_step(self) -> None:
        """Prompts of 5 and 9 under a budget of 8: 5 + 3, then 6 and the first one's token."""
        engine = Engine(config(), seconds, seed=0)
        engine.submit(Request(5, 9), 0.0)
        engine.submit(Request(9, 9), 0.0)
        first, second = engine.step(0.0), engine.step(0.0)
        assert (first.prefill_tokens, first.decode_sequences) == (8, 0)
        assert (second.prefill_tokens, second.decode_sequences) == (6, 1)

    def test_chunks_end_at_block_boundaries_where_states_are_cached(self) -> None:
        """Blocks of 4 and a prompt of 11 under a budget of 7: 4, then 4, then the last 3."""
        aligned = config(max_num_batched_tokens=7, enable_prefix_caching=True, state_blocks_per_sequence=1)
        engine = Engine(aligned, seconds, seed=0)
        engine.submit(Request(11, 1), 0.0)
        assert [engine.step(0.0).prefill_tokens for _ in range(3)] == [4, 4, 3]
        assert engine.idle

    def test_a_block_wider_than_a_step_is_entered_piece_by_piece(self) -> None:
        """Blocks of 4 and a prompt of 11 under a budget of 3: 3 and 1 to each boundary, then the last 3."""
        wide = config(max_num_batched_tokens=3, enable_prefix_caching=True, state_blocks_per_sequence=1)
        engine = Engine(wide, seconds, seed=0)
        engine.submit(Request(11, 1), 0.0)
        assert [engine.step(0.0).prefill_tokens for _ in range(5)] == [3, 1, 3, 1, 3]
        assert engine.idle

    def test_max_num_seqs_holds_the_rest_back(self) -> None:
        """Of three requests two run and one waits."""
        engine = Engine(config(max_num_seqs=2), seconds, seed=0)
        for _ in range(3):
            engine.submit(Request(2, 5), 0.0)
        engine.step(0.0)
        assert (engine.num_running, engine.num_waiting) == (2, 1)

    def test_a_prompt_is_admitted_only_when_all_of_it_fits(self) -> None:
        """8 + 1 of 10 blocks are taken; a prompt of 8 tokens (2 blocks) waits though a chunk would fit."""
        engine = Engine(config(max_num_batched_tokens=64), seconds, seed=0)
        engine.submit(Request(33, 3), 0.0)
        engine.submit(Request(8, 1), 0.0)
        engine.step(0.0)
        assert engine.num_waiting == 1
        assert [serial for serial, _ in run(engine)] == [1, 2]

    def test_state_blocks_are_held_per_sequence(self) -> None:
        """A prompt of 4 holds one attention and three state blocks, until it ends."""
        engine = Engine(config(state_blocks_per_sequence=3), seconds, seed=0)
        engine.submit(Request(4, 2), 0.0)
        engine.step(0.0)
        assert engine.pool.held == 4
        engine.step(0.0)
        assert engine.pool.held == 0

    def test_the_last_admitted_gives_way_and_starts_over(self) -> None:
        """Four blocks, two prompts of 8: the first needs a third block, the second is recomputed later."""
        engine = Engine(config(num_blocks=5, max_num_batched_tokens=64, max_model_len=16), seconds, seed=0)
        first = engine.submit(Request(8, 4), 0.0)
        second = engine.submit(Request(8, 4), 0.0)
        assert engine.step(0.0).preempted == 0
        assert engine.step(0.0).preempted == 1  # token 9 of the first
        assert (second.preemptions, second.base, second.target) == (1, 1, 9)
        assert [serial for serial, _ in run(engine)] == [1, 2]
        assert (first.preemptions, engine.preemptions) == (0, 1)

    def test_an_abort_frees_everything(self) -> None:
        """Running and waiting requests can be dropped."""
        engine = Engine(config(max_num_seqs=1), seconds, seed=0)
        running, waiting = engine.submit(Request(8, 8), 0.0), engine.submit(Request(8, 8), 0.0)
        engine.step(0.0)
        engine.abort(waiting)
        engine.abort(running)
        assert engine.idle
        assert engine.pool.held == 0

    def test_what_can_never_fit_is_refused(self) -> None:
        """Longer than the context, or than the pool."""
        assert "maximum context length is 40" in str(config().refusal(39, 2))
        assert config().refusal(39, 1) is None
        assert "needs 12 cache blocks" in str(config(state_blocks_per_sequence=2).refusal(39, 1))
        with pytest.raises(ValueError, match="maximum context length"):
            Engine(config(), seconds, seed=0).submit(Request(40, 2), 0.0)


class TestPrefixCache:
    CACHING: ClassVar = {"enable_prefix_caching": True, "max_num_batched_tokens": 64}

    def hits(self, engine: Engine, *requests: Request) -> list[int]:
        """Cached tokens of requests that run one after the other."""
        found = []
        for request in requests:
            sequence = engine.submit(request, 0.0)
            run(engine)
            found.append(sequence.cached_tokens)
        return found

    def test_full_blocks_of_an_equal_prefix_are_found(self) -> None:
        """14 tokens fill 3 blocks of 4; a second prompt sharing two of them saves 8 tokens."""
        engine = Engine(config(**self.CACHING), seconds, seed=0)
        assert self.hits(engine, Request(14, 1, 0, (1, 2, 3)), Request(14, 1, 0, (1, 2, 9))) == [0, 8]
        assert (engine.prefix_queries, engine.prefix_hits) == (28, 8)

    def test_the_last_token_is_always_computed(self) -> None:
        """A prompt of exactly 3 blocks, all of them cached, saves two blocks."""
        engine = Engine(config(**self.CACHING), seconds, seed=0)
        assert self.hits(engine, Request(12, 1, 0, (1, 2, 3)), Request(12, 1, 0, (1, 2, 3))) == [0, 8]

    def test_a_hybrid_model_resumes_where_its_state_was_kept(self) -> None:
        """The state is kept behind the prompt's last block; a branch before it is kept once seen twice."""
        hybrid = config(**self.CACHING, state_blocks_per_sequence=1, num_blocks=40)
        engine = Engine(hybrid, seconds, seed=0)
        first = Request(14, 1, 0, (1, 2, 3))
        branches = [Request(14, 1, 0, (1, 2, key)) for key in (7, 8, 9)]
        longer = Request(18, 1, 0, (1, 2, 3, 4))
        assert self.hits(engine, first, longer, *branches) == [0, 12, 0, 8, 8]

    def test_the_least_recently_used_goes_first(self) -> None:
        """Ten blocks: prompts of 5, 4 and 4 blocks push out the tail of the oldest, not its head."""
        engine = Engine(config(**self.CACHING), seconds, seed=0)
        requests = [Request(20, 1, 0, (1, 2, 3, 4, 5)), Request(16, 1, 0, (6, 7, 8, 9))]
        requests += [Request(16, 1, 0, (11, 12, 13, 14)), Request(24, 1, 0, (1, 2, 3, 4, 5))]
        assert self.hits(engine, *requests)[-1] == 8

    def test_an_assumed_share_counts_in_whole_blocks(self) -> None:
        """11 tokens assumed cached of 14 save two blocks of 4."""
        engine = Engine(config(**self.CACHING), seconds, seed=0)
        assert self.hits(engine, Request(14, 1, 11)) == [8]

    def test_nothing_is_found_with_caching_off(self) -> None:
        """The same prompt twice costs the same twice."""
        engine = Engine(config(max_num_batched_tokens=64), seconds, seed=0)
        assert self.hits(engine, Request(12, 1, 9, (1, 2)), Request(12, 1, 9, (1, 2))) == [0, 0]


class TestAcceptance:
    def test_each_position_keeps_its_rate(self) -> None:
        """Rates 0.9 and 0.5 give 2.4 tokens a step, within the error of 16,384 draws."""
        assert Acceptance((0.9, 0.5), RNG).mean_tokens == pytest.approx(2.4, abs=0.02)

    @given(st.integers(0, TABLE_STEPS - 1), st.integers(1, 100_000))
    def test_steps_and_tokens_invert_each_other(self, offset: int, tokens: int) -> None:
        """The steps found reach the tokens asked for, and one step less does not."""
        acceptance = SPECULATIVE
        steps = acceptance.steps_for(offset, tokens)
        assert acceptance.tokens(offset, steps) >= tokens > acceptance.tokens(offset, steps - 1)

    def test_speculation_finishes_in_fewer_steps(self) -> None:
        """With every draft accepted, 1 + 4 output tokens take one prefill and two decode steps."""
        engine = Engine(config(num_speculative_tokens=1, acceptance_rates=(1.0,)), seconds, seed=0)
        engine.submit(Request(4, 5), 0.0)
        results = [engine.step(0.0, collect=True) for _ in range(3)]
        assert [[n for _, n in r.emitted] for r in results] == [[1], [2], [2]]
        assert engine.idle


RNG = random.Random(3)  # noqa: S311 - a model's draws
SPECULATIVE = Acceptance((0.8, 0.6, 0.3), RNG)

LOADS = st.lists(
    st.tuples(st.integers(1, 25), st.integers(1, 15), st.integers(0, 3)), min_size=1, max_size=12
)
CONFIGS = st.builds(
    config,
    num_blocks=st.integers(18, 34),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(3, 30),
    state_blocks_per_sequence=st.sampled_from([0, 3]),
    enable_prefix_caching=st.booleans(),
    async_scheduling=st.booleans(),
)


def speculate(base: EngineConfig, drafts: int) -> EngineConfig:
    """The same engine with drafts."""
    values = {name: getattr(base, name) for name in base.__struct_fields__}
    states = 3 * (1 + drafts) if base.state_blocks_per_sequence else 0
    pool = max(base.num_blocks, 16 + states)
    return EngineConfig(
        **(
            values
            | {
                "num_speculative_tokens": drafts,
                "acceptance_rates": (0.8, 0.5)[:drafts],
                "state_blocks_per_sequence": states,
                "num_blocks": pool,
                "max_num_batched_tokens": base.max_num_batched_tokens + 4 * drafts,
            }
        )
    )


def requests(load: list[tuple[int, int, int]]) -> list[Request]:
    """Requests of four kinds of content."""
    return [
        Request(prompt, output, 0, tuple(kind * 100 + i for i in range((prompt + output) // 4)))
        for prompt, output, kind in load
    ]


@settings(max_examples=150, deadline=None)
@given(CONFIGS, LOADS, st.integers(0, 2), st.integers(0, 5))
def test_every_request_gets_its_tokens_and_blocks_are_conserved(
    base: EngineConfig, load: list[tuple[int, int, int]], drafts: int, seed: int
) -> None:
    """Whatever the load: all finish with exactly their tokens, and the pool is never overdrawn."""
    limits = speculate(base, drafts)
    engine = Engine(limits, seconds, seed=seed)
    sequences = [engine.submit(request, 0.0) for request in requests(load)]
    got = dict.fromkeys(sequences, 0)
    for _ in range(20_000):
        if engine.idle:
            break
        result = engine.step(0.0, collect=True)
        for sequence, tokens in result.emitted:
            got[sequence] += tokens
        assert 0 <= engine.pool.held <= engine.pool.held + engine.pool.kept <= limits.usable_blocks
        assert engine.num_running <= limits.max_num_seqs
        used = result.prefill_tokens + result.decode_sequences * limits.tokens_per_decode
        assert used <= limits.max_num_batched_tokens
    assert engine.idle
    assert all(sequence.finished for sequence in sequences)
    assert [got[s] for s in sequences] == [s.request.output_tokens for s in sequences]
    assert engine.pool.held == 0


@settings(max_examples=100, deadline=None)
@given(CONFIGS, LOADS, st.integers(0, 5))
def test_a_stretch_is_the_same_as_its_steps(
    base: EngineConfig, load: list[tuple[int, int, int]], seed: int
) -> None:
    """With a step time linear in the context, long stretches end every request at the same instant."""
    ends = []
    for max_steps in (1, 10**9):
        engine = Engine(base, seconds, seed=seed)
        for request in requests(load):
            engine.submit(request, 0.0)
        ends.append(run(engine, max_steps=max_steps))
    assert [serial for serial, _ in ends[0]] == [serial for serial, _ in ends[1]]
    assert [end for _, end in ends[0]] == pytest.approx([end for _, end in ends[1]])


def test_a_stretch_stops_at_the_first_step_past_the_limit() -> None:
    """Steps of 1.05, 1.06, 1.07 s...: the third is the first to end at or after 3.1 s."""
    engine = Engine(config(), seconds, seed=0)
    engine.submit(Request(4, 30), 0.0)
    engine.step(0.0)
    result = engine.step(10.0, until=13.1, max_steps=10**9)
    assert result.steps == 3
    assert result.duration_s == pytest.approx(1.05 + 1.06 + 1.07)


def test_the_pool_counts_a_block_once() -> None:
    """Two sequences that reference one entry hold one block; released by both it is kept, then evicted."""
    pool = BlockPool(3)
    pool.take(1)
    block = pool.publish(7)
    pool.reference([block])
    assert (pool.held, pool.kept) == (1, 0)
    pool.release([block])
    assert (pool.held, pool.kept) == (1, 0)
    pool.release([block])
    assert (pool.held, pool.kept) == (0, 1)
    assert pool.prefix([7, 8]) == [block]
    assert pool.take(3)
    assert pool.prefix([7]) == []
    assert not pool.take(1)
    assert math.isclose(pool.usage, 1.0)

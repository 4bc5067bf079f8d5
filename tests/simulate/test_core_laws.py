"""What holds of the core for every engine and every load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from core_kit import MOST_STEPS, by_tokens, configs, drive, loads, one_second, small, submit
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qwenhost.simulate.engine import Engine, Request, Sequence, StepResult

if TYPE_CHECKING:
    from qwenhost.simulate.config import EngineConfig

SEEDS = st.integers(0, 5)


def fitting(config: EngineConfig, requests: list[Request]) -> list[Request]:
    """Those the engine does not refuse."""
    return [r for r in requests if config.refusal(r.prompt_tokens, r.output_tokens) is None]


def holdings(engine: Engine) -> int:
    """Blocks held, counted sequence by sequence: shared entries once."""
    config = engine.config
    alone, entries = 0, set()
    for sequence in engine.scheduler.running:
        alone += sequence.blocks - len(sequence.entries)
        entries |= set(sequence.entries)
        if sequence.states is None:
            alone += config.state_blocks_per_sequence
            continue
        for found in sequence.states.held.values():
            if found is None:
                alone += config.state_groups
            else:
                entries |= set(found)
    return alone + len(entries)


@settings(max_examples=80, deadline=None)
@given(configs(), loads(), SEEDS)
def test_every_block_held_is_somebodys(config: EngineConfig, requests: list[Request], seed: int) -> None:
    """The pool's count is the sum over sequences, never above capacity, and nothing at the end."""
    engine = Engine(config, one_second, seed=seed)
    submit(engine, fitting(config, requests))

    def look(_: StepResult) -> None:
        assert engine.pool.held == holdings(engine)
        assert engine.pool.held + engine.pool.kept <= config.usable_blocks

    drive(engine, look)
    assert engine.pool.held == 0
    assert not engine.scheduler.running


@settings(max_examples=80, deadline=None)
@given(configs(), loads(), SEEDS)
def test_limits_are_kept_in_every_step(config: EngineConfig, requests: list[Request], seed: int) -> None:
    """Tokens of a step within the budget, sequences within ``max_num_seqs``, blocks within the pool."""
    engine = Engine(config, one_second, seed=seed)
    submit(engine, fitting(config, requests))

    def look(result: StepResult) -> None:
        decoding = result.decode_sequences + len(result.overrun)
        assert result.prefill_tokens + decoding <= config.max_num_batched_tokens
        assert result.running <= config.max_num_seqs
        assert 0 <= result.kv_blocks_held <= config.usable_blocks
        assert result.prefill_tokens == sum(tokens for _, tokens in result.chunks)
        assert result.prefill_tokens or decoding

    drive(engine, look)


@settings(max_examples=80, deadline=None)
@given(configs(), loads(), SEEDS)
def test_everyone_gets_exactly_their_tokens(config: EngineConfig, requests: list[Request], seed: int) -> None:
    """In steps of at most 1 + drafts each, first tokens before the others, none after the end."""
    engine = Engine(config, one_second, seed=seed)
    sequences = submit(engine, fitting(config, requests))
    got: dict[Sequence, int] = dict.fromkeys(sequences, 0)
    ended: set[Sequence] = set()

    def look(result: StepResult) -> None:
        for sequence, tokens in result.emitted:
            assert 1 <= tokens <= config.tokens_per_decode
            assert sequence not in ended
            got[sequence] += tokens
        for sequence in result.finished:
            assert got[sequence] == sequence.request.output_tokens
        ended.update(result.finished)

    drive(engine, look, collect=True)
    assert ended == set(sequences)


@settings(max_examples=60, deadline=None)
@given(configs(), loads(), SEEDS)
def test_first_admissions_follow_arrival(config: EngineConfig, requests: list[Request], seed: int) -> None:
    """Nobody overtakes: of two requests the earlier is first scheduled no later."""
    engine = Engine(config, one_second, seed=seed)
    sequences = submit(engine, fitting(config, requests))
    drive(engine)
    instants = [s.first_scheduled_s for s in sequences]
    assert all(instant is not None for instant in instants)
    assert instants == sorted(i for i in instants if i is not None)


@settings(max_examples=40, deadline=None)
@given(configs(), loads(), SEEDS)
def test_the_same_seed_is_the_same_run(config: EngineConfig, requests: list[Request], seed: int) -> None:
    """Step by step: shapes, ends, preemptions."""

    def once() -> tuple[list[tuple[int, ...]], dict[int, float]]:
        engine = Engine(config, by_tokens, seed=seed)
        submit(engine, fitting(config, requests))
        seen: list[tuple[int, ...]] = []

        def look(r: StepResult) -> None:
            seen.append((r.prefill_tokens, r.decode_sequences, r.kv_blocks_held, r.preempted))

        return seen, drive(engine, look)

    assert once() == once()


@settings(max_examples=60, deadline=None)
@given(configs(), loads(), SEEDS, st.data())
def test_aborts_leave_the_others_whole(
    config: EngineConfig, requests: list[Request], seed: int, data: st.DataObject
) -> None:
    """Whoever is dropped at whatever time: the rest ends with all tokens and nothing stays held."""
    engine = Engine(config, one_second, seed=seed)
    sequences = submit(engine, fitting(config, requests))
    assume(sequences)
    victims = data.draw(st.lists(st.sampled_from(sequences), unique=True, max_size=4))
    instants = data.draw(st.lists(st.integers(0, 15), min_size=len(victims), max_size=len(victims)))
    ended: set[Sequence] = set()
    for step in range(MOST_STEPS):
        for victim, instant in zip(victims, instants, strict=True):
            if instant == step and not victim.finished:
                engine.abort(victim)
        if engine.idle:
            break
        ended.update(engine.step(0.0).finished)
    assert engine.idle
    assert ended | set(victims) == set(sequences)
    assert engine.pool.held == 0


@settings(max_examples=40, deadline=None)
@given(configs(drafts=0), loads(), st.integers(1, 60))
def test_arrivals_over_time_end_too(config: EngineConfig, requests: list[Request], gap: int) -> None:
    """One request every ``gap`` half steps; none is scheduled before it came."""
    engine = Engine(config, one_second, seed=0)
    due = [(index * gap / 2, request) for index, request in enumerate(fitting(config, requests))][::-1]
    now, sequences = 0.0, []
    while due or not engine.idle:
        if engine.idle:
            now = max(now, due[-1][0])
        while due and due[-1][0] <= now:
            at, request = due.pop()
            sequences.append(engine.submit(request, at))
        now += engine.step(now).duration_s
    assert all(s.finished for s in sequences)
    assert all((s.first_scheduled_s or 0.0) >= s.arrival_s for s in sequences)


@settings(max_examples=40, deadline=None)
@given(loads(), SEEDS)
def test_caching_only_saves_work(requests: list[Request], seed: int) -> None:
    """With room for everyone, prefix caching computes no more prompt tokens and finds what it skips."""
    room = small(num_blocks=400, max_num_batched_tokens=24)

    def computed(*, caching: bool) -> int:
        engine = Engine(msgspec.structs.replace(room, enable_prefix_caching=caching), one_second, seed=seed)
        submit(engine, requests)
        total: list[int] = []
        drive(engine, lambda r: total.append(r.prefill_tokens))
        assert sum(total) + engine.prefix_hits == sum(r.prompt_tokens for r in requests)
        return sum(total)

    assert computed(caching=True) <= computed(caching=False)


@settings(max_examples=40, deadline=None)
@given(loads(), SEEDS)
def test_scheduling_ahead_changes_when_and_not_what(requests: list[Request], seed: int) -> None:
    """With places and blocks for everyone and all there at once, both ways take the same steps."""
    room = small(num_blocks=400, max_num_seqs=16, max_num_batched_tokens=24)
    runs = []
    for ahead in (False, True):
        engine = Engine(msgspec.structs.replace(room, async_scheduling=ahead), by_tokens, seed=seed)
        submit(engine, requests)
        runs.append(drive(engine))
    assert runs[0] == runs[1]


@settings(max_examples=40, deadline=None)
@given(configs(), loads(), SEEDS)
def test_quiet_time_is_quiet(config: EngineConfig, requests: list[Request], seed: int) -> None:
    """For as long as an engine says, no step ends, admits or preempts anybody."""
    engine = Engine(config, one_second, seed=seed)
    submit(engine, fitting(config, requests))
    now = quiet_until = 0.0
    while not engine.idle:
        result = engine.step(now)
        now += result.duration_s
        if now < quiet_until:
            assert (result.finished, result.chunks, result.preempted) == ([], [], 0)
        quiet_until = max(quiet_until, now + engine.quiet_s())

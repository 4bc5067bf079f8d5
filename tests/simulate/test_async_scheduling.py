"""Steps scheduled ahead of the one that runs, checked by hand."""

from __future__ import annotations

from itertools import repeat
from typing import ClassVar

import pytest
from test_simulate_engine import config, run, seconds

from qwenhost.simulate.engine import Engine, Request
from qwenhost.simulate.virtual import Simulator


class TestAsyncScheduling:
    """The next step is scheduled while one runs, as ``step_with_batch_queue`` does."""

    AHEAD: ClassVar = {"async_scheduling": True, "max_num_batched_tokens": 64}

    def test_who_comes_during_a_step_joins_the_second_after_it(self) -> None:
        """The first request decodes alone for one step more than without."""
        for ahead, prefilled in ((False, [4]), (True, [0, 4])):
            engine = Engine(config(**self.AHEAD | {"async_scheduling": ahead}), seconds, seed=0)
            engine.submit(Request(4, 9), 0.0)
            engine.step(0.0)
            engine.submit(Request(4, 9), 0.5)
            got = [engine.step(1.0, max_steps=100).prefill_tokens for _ in prefilled]
            assert got == prefilled

    def test_an_idle_engine_begins_at_once(self) -> None:
        """Two requests at the same instant share the first step."""
        engine = Engine(config(**self.AHEAD), seconds, seed=0)
        engine.submit(Request(4, 2), 0.0)
        engine.submit(Request(4, 2), 0.0)
        assert engine.step(0.0).prefill_tokens == 8

    def test_a_place_is_free_one_step_after_its_sequence_ended(self) -> None:
        """Two places: the short answer ends with step 2, step 3 is scheduled, the third joins step 4."""
        engine = Engine(config(**self.AHEAD, max_num_seqs=2), seconds, seed=0)
        for output in (2, 30, 2):
            engine.submit(Request(2, output), 0.0)
        results = [engine.step(0.0, max_steps=100) for _ in range(4)]
        assert [len(r.finished) for r in results] == [0, 1, 0, 0]
        assert [r.prefill_tokens for r in results] == [4, 0, 0, 2]

    def test_the_last_ones_blocks_come_back_at_once(self) -> None:
        """Nothing is held in an idle engine, whether it ended or was aborted."""
        engine = Engine(config(**self.AHEAD), seconds, seed=0)
        engine.submit(Request(4, 2), 0.0)
        long = engine.submit(Request(4, 9), 0.0)
        engine.step(0.0)
        engine.step(0.0)
        engine.abort(long)
        assert engine.idle
        assert engine.pool.held == 0

    def test_blocks_of_the_ended_are_taken_before_the_only_one_gives_way(self) -> None:
        """Four blocks: both hold two, the second ends as the first needs its third and gives way."""
        limits = config(**self.AHEAD, num_blocks=5, max_model_len=16)
        engine = Engine(limits, seconds, seed=0)
        sequences = [engine.submit(Request(8, output), 0.0) for output in (4, 1)]
        engine.step(0.0)
        assert engine.step(0.0).preempted == 1
        assert [sequence.preemptions for sequence in sequences] == [0, 0]  # it has all its tokens
        assert [serial for serial, _ in run(engine)] == [1]


def test_users_who_begin_apart_stay_apart() -> None:
    """Prompts of 0.8 s in steps of 1 s: four together take 4.2 s, one by one a step's wait and 1.8 s."""
    limits = config(num_blocks=200, max_num_batched_tokens=64, max_num_seqs=8)

    def last_ttft_ms(ramp_s: float) -> float | None:
        simulator = Simulator(limits, lambda shape: 1 + 0.1 * shape.prefill_tokens, seed=0)
        simulator.closed_loop(repeat(Request(8, 20)), concurrency=4, count=40, ramp_s=ramp_s)
        assert len(simulator.run.records) == 40
        return simulator.run.records[-1].ttft_ms

    assert last_ttft_ms(0.0) == pytest.approx(4200)
    assert last_ttft_ms(20.0) == pytest.approx(2800)

"""Continuous batching as vLLM V1 schedules it, without a clock: the caller says what time it is.

Steps between two events (an end, blocks taken or given, an arrival) are simulated as one stretch.

With asynchronous scheduling a step is scheduled while the one before it runs (``v1/engine/core.py``,
``step_with_batch_queue``): who comes during a step joins the second one after it, and what an ended sequence
held is free from then on.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from qwenhost.simulate.scheduler import Scheduler
from qwenhost.simulate.sequence import Request, Sequence, StepResult
from qwenhost.simulate.stretch import ALONE, Shape, stretch

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.plan import StepShape
    from qwenhost.simulate.blocks import BlockPool
    from qwenhost.simulate.config import EngineConfig

__all__ = ["Engine", "Request", "Sequence", "StepResult"]


class Engine:
    """One data-parallel rank.

    Args:
        config: limits and cache.
        step_time: seconds of a step of a given shape.
        seed: of everything drawn.
    """

    def __init__(self, config: EngineConfig, step_time: Callable[[StepShape], float], seed: int) -> None:
        self.config = config
        self.scheduler = Scheduler(config, random.Random(seed))  # noqa: S311 - a model's draws
        self._step_time = step_time
        self._serial = 0
        self._admission_blocked = False
        self._last_ripe = 0  # the latest ``ripe_at`` of any sequence

    # ------------------------------------------------------------------ from outside

    @property
    def pool(self) -> BlockPool:
        """All blocks."""
        return self.scheduler.holdings.pool

    @property
    def preemptions(self) -> int:
        """Since the beginning."""
        return self.scheduler.preemptions

    @property
    def prefix_queries(self) -> int:
        """Prompt tokens looked up in the cache, at first admissions, as vLLM counts them."""
        return self.scheduler.prefix_queries

    @property
    def prefix_hits(self) -> int:
        """Of these, tokens found."""
        return self.scheduler.prefix_hits

    @property
    def num_running(self) -> int:
        """Sequences admitted and not finished."""
        return len(self.scheduler.running) - len(self.scheduler.ended)

    @property
    def num_waiting(self) -> int:
        """Sequences not admitted yet, or preempted."""
        return len(self.scheduler.waiting)

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        scheduler = self.scheduler
        return (
            not scheduler.waiting and len(scheduler.running) == len(scheduler.ended) and not scheduler.overrun
        )

    @property
    def load(self) -> int:
        """What vLLM chooses a data-parallel rank by."""
        return 4 * self.num_waiting + self.num_running

    def submit(self, request: Request, now: float) -> Sequence:
        """Queue a request.

        Raises:
            ValueError: it can never be served; ask ``config.refusal`` first.
        """
        refusal = self.config.refusal(request.prompt_tokens, request.output_tokens)
        if refusal or request.prompt_tokens < 1 or request.output_tokens < 1:
            raise ValueError(refusal or "a request needs at least one token each way")
        scheduler = self.scheduler
        self._serial += 1
        self._admission_blocked &= bool(scheduler.waiting)  # nobody passes a blocked head
        sequence = Sequence(request, now, self._serial)
        ahead = self.config.async_scheduling and bool(scheduler.running)  # the next step is scheduled already
        sequence.ripe_at = self._last_ripe = scheduler.number + 1 + ahead
        scheduler.waiting.append(sequence)
        return sequence

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        self.scheduler.drop(sequence)
        if self.idle:
            self.scheduler.settle()
        self._admission_blocked = False
        sequence.finished = True

    def generated(self, sequence: Sequence) -> int:
        """Tokens a sequence has produced."""
        return self.scheduler.decoding.generated(sequence)

    def quiet_s(self) -> float:
        """Seconds in which nothing ends or is admitted if nothing arrives; 0 where only a step can tell."""
        scheduler, decoding = self.scheduler, self.scheduler.decoding
        blocked = self._admission_blocked or not scheduler.waiting
        unsure = scheduler.prefilling or scheduler.stalled or scheduler.overrun or not decoding or not blocked
        return (
            0.0
            if unsure
            else stretch(self._step_time, decoding, ALONE, math.inf, decoding.steps_to_event())[1]
        )

    def step(
        self, now: float, *, until: float = math.inf, max_steps: int = 1, collect: bool = False
    ) -> StepResult:
        """Run one step, or a stretch of equal decode steps.

        Args:
            now: the instant it starts.
            until: a stretch ends with the first step that ends at or after this instant.
            max_steps: longest stretch.
            collect: also list the tokens of each sequence (one step only).

        Raises:
            ValueError: the engine is idle.
        """
        if self.idle:
            raise ValueError("an idle engine has no step")
        scheduler, decoding = self.scheduler, self.scheduler.decoding
        preempted, settled = scheduler.preemptions, bool(scheduler.ended)
        chunks = scheduler.schedule(now)
        # After any of these the next step may admit or compute others, so it is no longer like this one.
        preempted = scheduler.preemptions - preempted
        news = bool(preempted or settled or scheduler.stalled or self._last_ripe > scheduler.number)
        longest = 1 if news and (scheduler.waiting or scheduler.stalled) else max_steps
        overrun = list(scheduler.overrun)
        shape = Shape(chunks, len(overrun)) if chunks or overrun else ALONE
        steps, duration = stretch(self._step_time, decoding, shape, until - now, longest)
        width, running, held = len(decoding), self.num_running, self.pool.held
        scheduler.step_over()
        emitted = decoding.emissions() if collect else []
        decoding.advance(steps)
        finished = []
        for sequence in decoding.finished():
            self._complete(sequence)
            finished.append(sequence)
        first_tokens = self._finish_prefill(chunks, finished) if chunks else []
        self._admission_blocked = not (chunks or finished or news)
        if scheduler.ended and (not self.config.async_scheduling or self.idle):
            scheduler.settle()
        if collect:
            emitted += [(sequence, 1) for sequence in first_tokens]
        return StepResult(
            duration, steps, sum(n for _, n in chunks), width, first_tokens, finished, preempted, running,
            held / self.pool.capacity, emitted, chunks, held, overrun,
        )  # fmt: skip

    def _finish_prefill(self, chunks: list[tuple[Sequence, int]], finished: list[Sequence]) -> list[Sequence]:
        """Move on by the chunks computed; a finished prompt gives a token and joins the decoding ones."""
        first_tokens = []
        for sequence, tokens in chunks:
            sequence.computed += tokens
            if sequence.computed < sequence.target:
                continue
            del self.scheduler.prefilling[sequence]
            first_tokens.append(sequence)
            sequence.base += 1
            sequence.join = self.scheduler.decoding.steps
            if sequence.base == sequence.request.output_tokens:
                self._complete(sequence)
                finished.append(sequence)
            else:
                self.scheduler.join(sequence)
        return first_tokens

    def _complete(self, sequence: Sequence) -> None:
        self.scheduler.end(sequence)
        sequence.base = sequence.request.output_tokens
        sequence.finished = True

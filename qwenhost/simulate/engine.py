"""Continuous batching as vLLM V1 schedules it, without a clock: the caller says what time it is.

A step gives every decoding sequence its token first, then continues started prompts, then admits waiting
ones while token budget, ``max_num_seqs`` and blocks last. Blocks that run out are taken from the sequence
admitted last, which starts over from its prompt and the tokens it has (recompute).

Steps between two events (an end, a new block, an arrival) are simulated as one stretch. Rules: vLLM
``v1/core/sched/scheduler.py``, but a decoding sequence always comes before an unfinished prompt here.

With asynchronous scheduling a step is scheduled while the one before it runs (``v1/engine/core.py``,
``step_with_batch_queue``): who comes during a step joins the second one after it, and what an ended sequence
held is free from then on.
"""

from __future__ import annotations

import math
import random
from collections import deque
from typing import TYPE_CHECKING

from qwenhost.simulate.blocks import BlockPool
from qwenhost.simulate.chunks import prompt_chunk
from qwenhost.simulate.decoding import Decoding
from qwenhost.simulate.sequence import Request, Sequence, StepResult
from qwenhost.simulate.stretch import stretch

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.plan import StepShape
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
        self.pool = BlockPool(
            config.usable_blocks, config.state_blocks_per_checkpoint if config.enable_prefix_caching else 0
        )
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self._step_time = step_time
        self._waiting: deque[Sequence] = deque()
        self._running: dict[Sequence, None] = {}  # in the order of admission
        self._prefilling: dict[Sequence, None] = {}
        self._decoding = Decoding(config, random.Random(seed))  # noqa: S311 - a model's draws
        self._serial = 0
        self._admission_blocked = False
        self._schedules = 0  # calls of step
        self._last_ripe = 0  # the latest ``ripe_at`` of any sequence
        self._ended: list[Sequence] = []  # their blocks and places are free after the next scheduling

    # ------------------------------------------------------------------ from outside

    @property
    def num_running(self) -> int:
        """Sequences admitted and not finished."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences not admitted yet, or preempted."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return not self._running and not self._waiting

    @property
    def load(self) -> int:
        """What vLLM chooses a data-parallel rank by."""
        return 4 * len(self._waiting) + len(self._running)

    def submit(self, request: Request, now: float) -> Sequence:
        """Queue a request.

        Raises:
            ValueError: it can never be served; ask ``config.refusal`` first.
        """
        refusal = self.config.refusal(request.prompt_tokens, request.output_tokens)
        if refusal or request.prompt_tokens < 1 or request.output_tokens < 1:
            raise ValueError(refusal or "a request needs at least one token each way")
        self._serial += 1
        self._admission_blocked &= bool(self._waiting)  # nobody passes a blocked head
        sequence = Sequence(request, now, self._serial)
        ahead = self.config.async_scheduling and bool(self._running)  # the next step is scheduled already
        sequence.ripe_at = self._last_ripe = self._schedules + 1 + ahead
        self._waiting.append(sequence)
        return sequence

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence in self._running:
            self._leave(sequence)
            self._free(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        if not self._running:
            self._settle()
        self._admission_blocked = False
        sequence.finished = True

    def generated(self, sequence: Sequence) -> int:
        """Tokens a sequence has produced."""
        return self._decoding.generated(sequence)

    def quiet_s(self) -> float:
        """Seconds in which nothing ends or is admitted if nothing arrives; 0 where only a step can tell."""
        unsure = self._prefilling or not self._decoding or (self._waiting and not self._admission_blocked)
        return (
            0.0
            if unsure
            else stretch(self._step_time, self._decoding, [], math.inf, self._decoding.steps_to_event())[1]
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
        preempted = self.preemptions
        self._schedules += 1
        settled = bool(self._ended)
        self._grow_decoding()
        budget = self.config.max_num_batched_tokens - len(self._decoding) * self.config.tokens_per_decode
        chunks = self._continue_prefill(budget)
        if self.preemptions == preempted:
            chunks += self._admit(budget - sum(n for _, n in chunks), now)
        self._settle()
        # A chunk's sequence may itself have been preempted by a later one.
        chunks = [(sequence, n) for sequence, n in chunks if sequence in self._prefilling]
        # After any of these the next step may admit again, so it is no longer like this one.
        news = self.preemptions > preempted or settled or self._last_ripe > self._schedules
        longest = 1 if news and self._waiting else max_steps
        steps, duration = stretch(self._step_time, self._decoding, chunks, until - now, longest)
        decoding, running, usage = len(self._decoding), len(self._running), self.pool.usage
        emitted = self._decoding.emissions() if collect else []
        self._decoding.advance(steps)
        finished = []
        for sequence in self._decoding.finished():
            self._complete(sequence)
            finished.append(sequence)
        first_tokens = self._finish_prefill(chunks, finished)
        self._admission_blocked = not (chunks or finished or news)
        if not (self.config.async_scheduling and self._running):
            self._settle()
        if collect:
            emitted += [(sequence, 1) for sequence in first_tokens]
        return StepResult(
            duration, steps, sum(n for _, n in chunks), decoding, first_tokens, finished,
            self.preemptions - preempted, running, usage, emitted,
        )  # fmt: skip

    # ------------------------------------------------------------------ one step

    def _grow_decoding(self) -> None:
        """Give a block to every decoding sequence whose next tokens need one."""
        for sequence in self._decoding.short_of_blocks():
            if self._take_or_preempt(sequence, 1):
                sequence.blocks += 1
                self._decoding.await_growth(sequence)

    def _continue_prefill(self, budget: int) -> list[tuple[Sequence, int]]:
        chunks = []
        for sequence in list(self._prefilling):
            if sequence not in self._prefilling:  # preempted by one before it
                continue
            tokens = prompt_chunk(self.config, sequence.computed, sequence.target, budget)
            blocks = self._blocks_to(sequence, sequence.computed + tokens)
            if tokens and self._take_or_preempt(sequence, blocks):
                sequence.blocks += blocks
                chunks.append((sequence, tokens))
                budget -= tokens
        return chunks

    def _admit(self, budget: int, now: float) -> list[tuple[Sequence, int]]:
        """First chunks of waiting requests, first come first served."""
        chunks = []
        while self._waiting and budget > 0:
            sequence = self._waiting[0]
            places = self.config.max_decoding - len(self._running) - len(self._ended)
            if places < 1 or sequence.ripe_at > self._schedules:
                break
            hashes, hit = self._look_up(sequence)
            sequence.computed = hit
            tokens = prompt_chunk(self.config, sequence.computed, sequence.target, budget)
            if not tokens or not self._fits(sequence, hashes):
                sequence.computed = 0
                break
            self._waiting.popleft()
            self._start(sequence, hashes, tokens, now)
            chunks.append((sequence, tokens))
            budget -= tokens
        return chunks

    def _start(self, sequence: Sequence, hashes: tuple[int, ...], tokens: int, now: float) -> None:
        config = self.config
        self.pool.reference(hashes)
        sequence.entries = list(hashes)
        sequence.published = len(hashes)
        sequence.blocks = -(-(sequence.computed + tokens) // config.block_size)
        taken = self.pool.take(sequence.blocks - len(hashes) + config.state_blocks_per_sequence)
        assert taken, "the whole prompt was found to fit"  # noqa: S101 - our own arithmetic
        sequence.admissions += 1
        if sequence.admissions == 1:
            sequence.first_scheduled_s = now
            sequence.cached_tokens = sequence.computed
        self.prefix_queries += sequence.target if config.enable_prefix_caching else 0
        self.prefix_hits += sequence.computed
        self._running[sequence] = None
        self._prefilling[sequence] = None

    def _look_up(self, sequence: Sequence) -> tuple[tuple[int, ...], int]:
        """Cache entries to resume behind, and the tokens they save; the last token is always computed."""
        config = self.config
        if not config.enable_prefix_caching:
            return (), 0
        most = (sequence.target - 1) // config.block_size
        request = sequence.request
        if request.block_hashes:
            found, resume = self.pool.match(request.block_hashes[:most])
            sequence.junction = found if found > resume else 0
            return request.block_hashes[:resume], resume * config.block_size
        return (), min(request.assumed_cached_tokens // config.block_size, most) * config.block_size

    def _fits(self, sequence: Sequence, hashes: tuple[int, ...]) -> bool:
        """Whether the whole prompt fits now, not just its first chunk (``scheduler_reserve_full_isl``)."""
        need = self.config.blocks_for(sequence.target) - len(hashes) + self.pool.blocks_to_hold(hashes)
        return need <= self.pool.free

    def _finish_prefill(self, chunks: list[tuple[Sequence, int]], finished: list[Sequence]) -> list[Sequence]:
        """Move on by the chunks computed; a finished prompt gives a token and joins the decoding ones."""
        first_tokens = []
        for sequence, tokens in chunks:
            sequence.computed += tokens
            self._publish(sequence, sequence.computed)
            if sequence.computed < sequence.target:
                continue
            del self._prefilling[sequence]
            first_tokens.append(sequence)
            sequence.base += 1
            if sequence.base == sequence.request.output_tokens:
                self._complete(sequence)
                finished.append(sequence)
            else:
                self._decoding.join(sequence)
        return first_tokens

    # ------------------------------------------------------------------ a sequence's life

    def _take_or_preempt(self, sequence: Sequence, blocks: int) -> bool:
        """Hold blocks for a sequence, preempting the last admitted ones; False if it was itself one."""
        while not self.pool.take(blocks):
            victim = next(reversed(self._running))
            if victim is sequence and self._ended:
                self._settle()
                continue
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        generated = self.generated(sequence)
        self._leave(sequence)
        self._free(sequence)
        sequence.base = generated
        sequence.target = sequence.request.prompt_tokens + generated
        sequence.preemptions += 1
        self.preemptions += 1
        self._waiting.appendleft(sequence)

    def _complete(self, sequence: Sequence) -> None:
        request = sequence.request
        self._publish(sequence, request.prompt_tokens + request.output_tokens - 1)
        self._leave(sequence)
        self._ended.append(sequence)
        sequence.base = request.output_tokens
        sequence.finished = True

    def _leave(self, sequence: Sequence) -> None:
        """Run no more."""
        self._decoding.leave(sequence)
        self._prefilling.pop(sequence, None)
        del self._running[sequence]
        sequence.epoch += 1

    def _settle(self) -> None:
        """Free what ended sequences hold."""
        for sequence in self._ended:
            self._free(sequence)
        self._ended.clear()

    def _free(self, sequence: Sequence) -> None:
        """Give back everything a sequence holds."""
        self.pool.give(sequence.blocks - len(sequence.entries) + self.config.state_blocks_per_sequence)
        self.pool.release(sequence.entries)
        sequence.entries = []
        sequence.blocks = sequence.computed = 0

    def _publish(self, sequence: Sequence, tokens: int) -> None:
        """Offer the full blocks of the first ``tokens`` tokens to other requests.

        The recurrent state is kept behind the last of them, and behind a prefix two prompts share.
        """
        hashes = sequence.request.block_hashes
        full = min(tokens // self.config.block_size, len(hashes))
        if not self.config.enable_prefix_caching or full <= 0:
            return
        sequence.entries += [key for key in hashes[sequence.published : full] if self.pool.publish(key)]
        sequence.published = max(sequence.published, full)
        if tokens >= sequence.target // self.config.block_size * self.config.block_size:
            self.pool.checkpoint(hashes[full - 1])
        if sequence.junction and tokens >= sequence.junction * self.config.block_size:
            self.pool.checkpoint(hashes[sequence.junction - 1])
            sequence.junction = 0

    def _blocks_to(self, sequence: Sequence, tokens: int) -> int:
        return max(0, -(-tokens // self.config.block_size) - sequence.blocks)

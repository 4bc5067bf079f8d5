"""Which sequences compute how many tokens in the next step, and who gives way.

Running sequences are served in the order of their admission, whether they decode or their prompt is not
finished; then waiting ones are admitted first come, first served. Blocks that run out are taken from the
sequence admitted last, which starts over from its prompt and the tokens it has. Only those that have a prompt
to compute or whose blocks change are looked at; where the token budget is short all are, in order.

Rules: vLLM ``v1/core/sched/scheduler.py``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from qwenhost.simulate.chunks import Prefill, prompt_chunk
from qwenhost.simulate.decoding import Decoding
from qwenhost.simulate.holdings import Hit, Holdings

if TYPE_CHECKING:
    import random

    from qwenhost.simulate.config import EngineConfig
    from qwenhost.simulate.sequence import Sequence

EMPTY_ATTEMPTS = 2
"""Schedulings that give nothing to compute before one does: the last sequence gave way, and comes back."""
Chunks = list[tuple["Sequence", int]]


class Scheduler:
    """Queues and what each sequence holds.

    Args:
        config: limits and cache.
        rng: draws accepted drafts.
    """

    def __init__(self, config: EngineConfig, rng: random.Random) -> None:
        self.config = config
        self.holdings = Holdings(config)
        self.decoding = Decoding(config, rng)
        self.waiting: deque[Sequence] = deque()
        self.running: dict[Sequence, None] = {}
        """In the order of admission; those that ended and still hold their blocks included."""
        self.prefilling: dict[Sequence, None] = {}
        self.stalled: dict[Sequence, None] = {}
        """Decoding sequences the token budget did not reach."""
        self.ended: dict[Sequence, int] = {}
        """Their blocks and places are free after the next scheduling; with tokens surely computed."""
        self.overrun: dict[Sequence, None] = {}
        """Of these, those that accepted drafts ended: scheduling ahead could not know, and computes a step
        for nothing."""
        self.number = 0
        """Of the latest scheduling."""
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self._admissions = 0
        self._ahead = config.tokens_per_decode if config.async_scheduling else 0

    def schedule(self, now: float) -> Chunks:
        """Prompt tokens to compute in the next step; what decodes is in ``decoding``."""
        self.number += 1
        chunks = self._attempt(now, self.number)
        for _ in range(EMPTY_ATTEMPTS):
            if chunks or self.rows:
                break
            # Nothing could be scheduled ahead, so this step waits for the outcome of the one before.
            chunks = self._attempt(now, self.number + 1)
        return chunks

    def _attempt(self, now: float, latest: int) -> Chunks:
        """One scheduling, with the requests that it knows of."""
        preemptions = self.preemptions
        self.holdings.begin_step()
        chunks, budget = self._continue(self.config.max_num_batched_tokens)
        if self.waiting and self.preemptions == preemptions:
            chunks += self._admit(budget, now, latest, prefills=bool(chunks))
        if self.ended:
            self.settle()
        return chunks

    def step_over(self) -> None:
        """The step scheduled last has run."""
        self.overrun.clear()

    def settle(self) -> None:
        """Free what ended sequences hold."""
        for sequence in self.ended:
            request = sequence.request
            self.holdings.give_back(sequence, request.prompt_tokens + request.output_tokens - 1)
            del self.running[sequence]
        self.ended.clear()

    @property
    def rows(self) -> int:
        """Sequences that decode in the step scheduled last."""
        return len(self.decoding) + len(self.overrun)

    def join(self, sequence: Sequence) -> None:
        """A finished prompt decodes from the next step on."""
        self.decoding.join(sequence)
        self._watch(sequence, self.decoding.steps)

    def end(self, sequence: Sequence) -> None:
        """It has all its tokens."""
        _, sure, in_flight = self.decoding.computed(sequence)
        request = sequence.request
        self.ended[sequence] = sure
        unknown = in_flight > 1 and sure + 2 < request.prompt_tokens + request.output_tokens
        if unknown and sure + self._ahead + 1 < self.config.max_model_len:
            self.overrun[sequence] = None
        self._stop(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence in self.ended:
            return
        if sequence in self.running:
            sure = self._sure(sequence)
            self._stop(sequence)
            del self.running[sequence]
            self.holdings.give_back(sequence, sure)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    # ------------------------------------------------------------------ running ones

    def _continue(self, budget: int) -> tuple[Chunks, int]:
        due = dict.fromkeys(self.decoding.due())
        decoding = self.rows * self.config.tokens_per_decode
        if not (due or self.prefilling or self.stalled or self.overrun) and decoding <= budget:
            return [], budget - decoding
        wanted = sum(prompt_chunk(self.config, self.holdings.prefill(s), budget) for s in self.prefilling)
        if decoding + wanted > budget or self.stalled:
            return self._continue_in_order(budget, due)
        chunks: Chunks = []
        for sequence in sorted([*due, *self.prefilling, *self.overrun], key=lambda each: each.order):
            if sequence not in self.running:
                continue  # gave way to one before it
            if sequence in self.prefilling:
                self._compute(sequence, budget, chunks)
            else:
                self._decode(sequence, budget)
        spent = sum(tokens for _, tokens in chunks) + self.rows * self.config.tokens_per_decode
        return self._still_there(chunks), budget - spent

    def _continue_in_order(self, budget: int, due: dict[Sequence, None]) -> tuple[Chunks, int]:
        chunks: Chunks = []
        for sequence in list(self.running):
            if sequence not in self.running or (sequence in self.ended and sequence not in self.overrun):
                continue
            if sequence in self.prefilling:
                budget -= self._compute(sequence, budget, chunks)
            elif budget < 1:
                self._stall(sequence)
            else:
                if sequence in self.stalled:
                    self._resume(sequence)
                    due[sequence] = None
                if not (sequence in due or sequence in self.overrun) or self._decode(sequence, budget):
                    budget -= min(budget, self.config.tokens_per_decode)
        return self._still_there(chunks), budget

    def _still_there(self, chunks: Chunks) -> Chunks:
        return [(sequence, tokens) for sequence, tokens in chunks if sequence in self.prefilling]

    def _compute(self, sequence: Sequence, budget: int, chunks: Chunks) -> int:
        """A running prompt's next chunk."""
        tokens = prompt_chunk(self.config, self.holdings.prefill(sequence), budget)
        start = sequence.computed
        if not tokens or not self._hold(sequence, start, tokens, start - self._in_flight(sequence)):
            return 0
        chunks.append((sequence, tokens))
        sequence.chunk = (self.number, tokens)
        return tokens

    def _decode(self, sequence: Sequence, budget: int) -> bool:
        """The next tokens of a decoding sequence whose blocks change."""
        if sequence in self.overrun:
            start = self.ended[sequence] + self._ahead
            tokens = self._tokens(start, budget)
            return tokens < 1 or self._hold(sequence, start, tokens, start - self._ahead)
        start, _, in_flight = self.decoding.computed(sequence)
        in_flight = self._in_flight(sequence) if in_flight < 0 else in_flight
        tokens = max(1, self._tokens(start, budget))
        if not self._hold(sequence, start, tokens, start - in_flight):
            return False
        self.holdings.offer_answer(sequence, start, self._ahead)
        self._watch(sequence, self.decoding.steps + 1)
        return True

    def _tokens(self, start: int, budget: int) -> int:
        """Of a decoding sequence behind so many."""
        return min(self.config.tokens_per_decode, budget, self.config.max_model_len - start - 1)

    def _watch(self, sequence: Sequence, earliest: int) -> None:
        changes = self.holdings.next_change(sequence, self._ahead)
        if sequence.join == self.decoding.steps == earliest and sequence.chunk[1] < self._ahead:
            changes = 0  # less is in flight than in later steps
        self.decoding.await_change(sequence, changes, earliest)

    def _in_flight(self, sequence: Sequence) -> int:
        """Prompt tokens of a sequence that the running step computes."""
        number, tokens = sequence.chunk
        return tokens if self.config.async_scheduling and number == self.number - 1 else 0

    def _hold(self, sequence: Sequence, start: int, tokens: int, processed: int) -> bool:
        """Hold blocks for a sequence, preempting the last admitted ones; False if it was itself one."""
        while not self.holdings.hold(sequence, start, tokens, processed):
            victim = next(reversed(self.running))
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        if sequence in self.ended:  # its last token is on the way, and it needs no more
            del self.running[sequence]
            self.holdings.give_back(sequence, self.ended.pop(sequence))
            self.overrun.pop(sequence, None)
            return
        sure, generated = self._sure(sequence), self.decoding.generated(sequence)
        self._stop(sequence)
        del self.running[sequence]
        self.holdings.give_back(sequence, sure)
        sequence.base = generated
        sequence.target = sequence.request.prompt_tokens + generated
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)

    def _sure(self, sequence: Sequence) -> int:
        """Tokens of which the content is known and the computation scheduled."""
        if sequence in self.prefilling:
            return sequence.computed
        return self.decoding.computed(sequence)[1]

    def _stall(self, sequence: Sequence) -> None:
        if sequence in self.overrun:
            del self.overrun[sequence]
        if sequence not in self.decoding:
            return
        sequence.base = self.decoding.generated(sequence)
        self.decoding.leave(sequence)
        sequence.epoch += 1
        self.stalled[sequence] = None

    def _resume(self, sequence: Sequence) -> None:
        del self.stalled[sequence]
        self.decoding.join(sequence)

    def _stop(self, sequence: Sequence) -> None:
        """Compute no more of it."""
        self.decoding.leave(sequence)
        self.prefilling.pop(sequence, None)
        self.stalled.pop(sequence, None)
        sequence.epoch += 1

    # ------------------------------------------------------------------ waiting ones

    def _admit(self, budget: int, now: float, latest: int, *, prefills: bool = False) -> Chunks:
        """First chunks of waiting requests that a scheduling of this number knows of."""
        chunks: Chunks = []
        while self.waiting and budget > 0:
            sequence = self.waiting[0]
            if len(self.running) >= self.config.max_num_seqs or sequence.ripe_at > latest:
                break
            hit = self.holdings.look_up(sequence)
            prefill = Prefill(hit.tokens, sequence.target, sequence.request.prompt_tokens, hit.junction)
            tokens = prompt_chunk(self.config, prefill, budget)
            rows = self._rows(prefill, tokens, prefills=prefills)
            if not tokens or rows > budget or not self.holdings.fits(sequence, hit, rows):
                break
            self.waiting.popleft()
            self._start(sequence, hit, rows, now)
            sequence.chunk = (self.number, tokens)
            chunks.append((sequence, tokens))
            budget -= rows
        return chunks

    def _rows(self, prefill: Prefill, tokens: int, *, prefills: bool) -> int:
        """Rows of the step: a prompt with one token left is padded to the decoding ones' width."""
        config = self.config
        padded = prefill.computed + config.tokens_per_decode + 1 <= config.max_model_len
        alone = not self.rows and not prefill.computed
        if prefill.target - prefill.computed == 1 and padded and not prefills and not alone:
            return config.tokens_per_decode
        return tokens

    def _start(self, sequence: Sequence, hit: Hit, tokens: int, now: float) -> None:
        self.holdings.admit(sequence, hit, tokens)
        self._admissions += 1
        sequence.order = self._admissions
        sequence.admissions += 1
        if sequence.admissions == 1:
            sequence.first_scheduled_s = now
            sequence.cached_tokens = hit.tokens
            self.prefix_queries += sequence.target if self.config.enable_prefix_caching else 0
            self.prefix_hits += hit.tokens
        self.running[sequence] = None
        self.prefilling[sequence] = None

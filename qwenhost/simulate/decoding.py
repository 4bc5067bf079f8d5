"""The decoding sequences, which advance together and are not touched step by step.

Each notes the step at which it joined; two heaps tell which step ends the next one and which one takes or
gives a block first. Between these events all steps are alike but for the growing context.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from qwenhost.simulate.acceptance import Acceptance

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from qwenhost.simulate.config import EngineConfig
    from qwenhost.simulate.sequence import Sequence

NEVER = 1 << 62
# (step, serial, epoch, sequence); an entry whose sequence has left since carries an older epoch.
Event = tuple[int, int, int, "Sequence"]


class Decoding:
    """Sequences that gain at least one token in every step.

    Args:
        config: block size and speculation.
        rng: draws the accepted drafts.
    """

    def __init__(self, config: EngineConfig, rng: random.Random) -> None:
        self.steps = 0
        """Steps since the beginning in which anything decoded."""
        self._lookahead = config.num_speculative_tokens
        self._ahead = config.async_scheduling
        self._acceptance = Acceptance(config.acceptance_rates, rng)
        self._members: dict[Sequence, None] = {}
        self._finish: list[Event] = []
        self._changes: list[Event] = []
        self._context = 0.0

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._members

    @property
    def context_tokens(self) -> int:
        """Sum of the sequences' lengths; with speculation what is expected of their steps.

        A sum over the sequences would be exact, and most of a simulation's time.
        """
        return round(self._context)

    @property
    def growth_per_step(self) -> float:
        """Tokens all of them gain in a step, on average."""
        return len(self._members) * self._acceptance.mean_tokens

    def generated(self, sequence: Sequence) -> int:
        """Tokens a sequence has produced."""
        if sequence not in self._members:
            return sequence.base
        steps = self.steps - sequence.join
        produced = sequence.base + self._acceptance.tokens(sequence.offset, steps)
        return min(produced, sequence.request.output_tokens)

    def emissions(self) -> list[tuple[Sequence, int]]:
        """Tokens each sequence gains in the step at hand."""
        if not self._acceptance.speculative:
            return [(sequence, 1) for sequence in self._members]
        return [(sequence, self._gain(sequence)) for sequence in self._members]

    def join(self, sequence: Sequence) -> None:
        """Decode from the next step on."""
        self._members[sequence] = None
        self._context += sequence.request.prompt_tokens + sequence.base
        sequence.join = self.steps
        sequence.offset = self._acceptance.offset()
        left = sequence.request.output_tokens - sequence.base
        end = self.steps + self._acceptance.steps_for(sequence.offset, left)
        heapq.heappush(self._finish, (end, sequence.serial, sequence.epoch, sequence))

    def leave(self, sequence: Sequence) -> None:
        """Decode no more; its events are void once the caller raises its epoch."""
        if sequence in self._members:
            advanced = sequence.base + (self.steps - sequence.join) * self._acceptance.mean_tokens
            self._context -= sequence.request.prompt_tokens + advanced
            del self._members[sequence]
            self._context = self._context if self._members else 0.0  # no drift

    def await_change(self, sequence: Sequence, computed: int, earliest: int) -> None:
        """Note the step that begins with so many computed tokens, when its blocks change next."""
        gain = computed + 1 - sequence.request.prompt_tokens - sequence.base
        if gain > 0 and self._ahead and self._lookahead:
            # Scheduled before the step ahead of it ended, as if all its drafts had been accepted.
            gain -= self._lookahead + 1
            steps = 1 + self._acceptance.steps_for(sequence.offset, gain) if gain > 0 else 1
        else:
            steps = self._acceptance.steps_for(sequence.offset, gain) if gain > 0 else 0
        at = max(sequence.join + steps, earliest)
        heapq.heappush(self._changes, (at, sequence.serial, sequence.epoch, sequence))

    def computed(self, sequence: Sequence) -> tuple[int, int, int]:
        """What vLLM's scheduler goes by.

        Returns:
            Tokens computed, those computed for sure, and those in flight (-1: its last chunk).
        """
        steps = self.steps - sequence.join
        if not self._lookahead and self._ahead and steps and sequence in self._members:
            tokens = sequence.request.prompt_tokens + sequence.base + steps - 1
            return tokens, tokens - 1, 1
        tokens = sequence.request.prompt_tokens + self.generated(sequence) - 1
        if not self._ahead or sequence not in self._members:
            return tokens, tokens, 0
        if not steps:
            return tokens, tokens, -1
        sure = sequence.base + self._acceptance.tokens(sequence.offset, steps - 1)
        sure += sequence.request.prompt_tokens - 1
        return sure + 1 + self._lookahead, sure, 1 + self._lookahead

    def advance(self, steps: int) -> None:
        """Let steps pass."""
        if self._members:
            self.steps += steps
            self._context += self.growth_per_step * steps

    def finished(self) -> Iterator[Sequence]:
        """Sequences that have all their tokens; each must have left before the next is asked for."""
        return self._due(self._finish)

    def due(self) -> Iterator[Sequence]:
        """Sequences whose blocks change with the step at hand; likewise."""
        return self._due(self._changes)

    def steps_to_event(self) -> int:
        """Steps that pass before blocks of one change, or until one finishes."""
        nearest = min(_next_step(self._finish), _next_step(self._changes))
        return max(1, nearest - self.steps)

    def _due(self, events: list[Event]) -> Iterator[Sequence]:
        while events and events[0][0] <= self.steps:
            _, _, epoch, sequence = heapq.heappop(events)
            if epoch == sequence.epoch:
                yield sequence

    def _gain(self, sequence: Sequence) -> int:
        steps = self.steps - sequence.join
        before = sequence.base + self._acceptance.tokens(sequence.offset, steps)
        after = sequence.base + self._acceptance.tokens(sequence.offset, steps + 1)
        return min(after, sequence.request.output_tokens) - before


def _next_step(events: list[Event]) -> int:
    while events and events[0][2] != events[0][3].epoch:
        heapq.heappop(events)
    return events[0][0] if events else NEVER

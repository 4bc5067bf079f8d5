"""Continuous batching as vLLM V1 schedules it, without a clock: the caller says what time it is.

A step gives every decoding sequence its token first, then continues started prompts, then admits waiting
ones while token budget, ``max_num_seqs`` and blocks last. Blocks that run out are taken from the sequence
admitted last, which starts over from its prompt and the tokens it has (recompute).

Decoding sequences are not touched step by step. All of them advance together, so each notes the step at
which it joined, and two heaps tell when the next one finishes or needs a block; what lies between is
simulated as one stretch. Source of the rules: vLLM ``v1/core/sched/scheduler.py``. One simplification:
there a decoding sequence admitted after an unfinished prompt comes after it in the budget, here before.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from qwenhost.plan import StepShape
from qwenhost.simulate.acceptance import Acceptance
from qwenhost.simulate.blocks import BlockPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qwenhost.simulate.config import EngineConfig

EVERY = 1 << 62


class Request(NamedTuple):
    """What a client asks."""

    prompt_tokens: int
    output_tokens: int
    assumed_cached_tokens: int = 0
    """Prompt tokens taken as found in the prefix cache, where the content is not known."""
    block_hashes: tuple[int, ...] = ()
    """Identity of the content up to the end of each full block; may reach into the output."""


class Sequence:
    """A request in the engine."""

    __slots__ = (
        "admissions", "arrival_s", "base", "blocks", "cached_tokens", "computed", "entries", "epoch",
        "finished", "first_scheduled_s", "join", "junction", "offset", "preemptions", "published", "request",
        "serial", "tag", "target",
    )  # fmt: skip

    def __init__(self, request: Request, arrival_s: float, serial: int) -> None:
        self.request = request
        self.arrival_s = arrival_s
        self.serial = serial
        self.tag: Any = None
        """For the caller."""
        self.first_scheduled_s: float | None = None
        self.base = 0
        """Tokens generated when it joined the decoding ones."""
        self.target = request.prompt_tokens
        """Tokens to compute before the next one is sampled: the prompt, and after a preemption what had
        been generated."""
        self.computed = 0
        self.cached_tokens = 0
        self.blocks = 0
        """Attention blocks held."""
        self.entries: list[int] = []
        """Hashes of those that are cache entries."""
        self.published = 0
        """Leading blocks found in the cache or offered to it."""
        self.junction = 0
        """Leading blocks shared with another prompt whose state was not kept."""
        self.join = 0
        self.offset = 0
        self.epoch = 0
        self.admissions = 0
        self.preemptions = 0
        self.finished = False


class StepResult(NamedTuple):
    """What one stretch of equal steps did; everything in it becomes visible at its end."""

    duration_s: float
    steps: int
    prefill_tokens: int
    decode_sequences: int
    first_tokens: list[Sequence]
    """Prompts finished: their next token appears."""
    finished: list[Sequence]
    preempted: int
    running: int
    """Sequences admitted, while it ran."""
    kv_cache_usage: float
    """Share of the pool held, while it ran."""
    emitted: list[tuple[Sequence, int]]
    """Tokens by sequence, where asked for."""


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
        self.decode_steps = 0
        self._step_time = step_time
        self._acceptance = Acceptance(config.acceptance_rates, random.Random(seed))  # noqa: S311 - a model
        self._waiting: deque[Sequence] = deque()
        self._running: dict[Sequence, None] = {}  # in the order of admission
        self._prefilling: dict[Sequence, None] = {}
        self._decoding: dict[Sequence, None] = {}
        self._finish: list[tuple[int, int, int, Sequence]] = []  # (step, serial, epoch, sequence)
        self._grow: list[tuple[int, int, int, Sequence]] = []
        self._context = 0  # tokens of the decoding sequences; exact without speculation
        self._serial = 0

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
        sequence = Sequence(request, now, self._serial)
        self._waiting.append(sequence)
        return sequence

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence in self._running:
            self._leave(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        sequence.finished = True

    def generated(self, sequence: Sequence) -> int:
        """Tokens a sequence has produced."""
        if sequence not in self._decoding:
            return sequence.base
        steps = self.decode_steps - sequence.join
        produced = sequence.base + self._acceptance.tokens(sequence.offset, steps)
        return min(produced, sequence.request.output_tokens)

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
        self._grow_decoding()
        budget = self.config.max_num_batched_tokens - len(self._decoding) * self.config.tokens_per_decode
        chunks = self._continue_prefill(budget)
        if self.preemptions == preempted:
            chunks += self._admit(budget - sum(n for _, n in chunks), now)
        # A chunk's sequence may itself have been preempted by a later one.
        chunks = [(sequence, n) for sequence, n in chunks if sequence in self._prefilling]
        # After a preemption the next step may admit again, so it is no longer like this one.
        longest = max_steps if self.preemptions == preempted else 1
        steps, duration = self._time(chunks, until - now, longest)
        decoding, running, usage = len(self._decoding), len(self._running), self.pool.usage
        emitted = self._emissions() if collect else []
        if decoding:
            self.decode_steps += steps
            self._context += decoding * steps
        finished = self._finish_decoding()
        first_tokens = self._finish_prefill(chunks, finished)
        if collect:
            emitted += [(sequence, 1) for sequence in first_tokens]
        return StepResult(
            duration, steps, sum(n for _, n in chunks), decoding, first_tokens, finished,
            self.preemptions - preempted, running, usage, emitted,
        )  # fmt: skip

    # ------------------------------------------------------------------ one step

    def _grow_decoding(self) -> None:
        """Give a block to every decoding sequence whose next tokens need one."""
        while self._grow and self._grow[0][0] <= self.decode_steps:
            _, _, epoch, sequence = heapq.heappop(self._grow)
            if epoch == sequence.epoch and self._take_or_preempt(sequence, 1):
                sequence.blocks += 1
                self._schedule_growth(sequence)

    def _continue_prefill(self, budget: int) -> list[tuple[Sequence, int]]:
        chunks = []
        for sequence in list(self._prefilling):
            if sequence not in self._prefilling:  # preempted by one before it
                continue
            tokens = self._chunk(sequence, budget)
            blocks = self._blocks_to(sequence, sequence.computed + tokens)
            if tokens and self._take_or_preempt(sequence, blocks):
                sequence.blocks += blocks
                chunks.append((sequence, tokens))
                budget -= tokens
        return chunks

    def _admit(self, budget: int, now: float) -> list[tuple[Sequence, int]]:
        """First chunks of waiting requests, first come first served."""
        chunks = []
        while self._waiting and budget > 0 and len(self._running) < self.config.max_decoding:
            sequence = self._waiting[0]
            hashes, hit = self._look_up(sequence)
            sequence.computed = hit
            tokens = self._chunk(sequence, budget)
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

    def _chunk(self, sequence: Sequence, budget: int) -> int:
        """Tokens of a prompt to compute in this step."""
        computed, target = sequence.computed, sequence.target
        tokens = max(0, min(budget, target - computed))
        if not self.config.align_prefill:
            return tokens
        size = self.config.block_size
        last_boundary = target - target % size
        if computed + tokens < last_boundary:
            return tokens // size * size
        if computed < last_boundary < computed + tokens:
            return last_boundary - computed
        return tokens

    def _fits(self, sequence: Sequence, hashes: tuple[int, ...]) -> bool:
        """Whether the whole prompt fits now, not just its first chunk (``scheduler_reserve_full_isl``)."""
        need = self.config.blocks_for(sequence.target) - len(hashes) + self.pool.blocks_to_hold(hashes)
        return need <= self.pool.free

    def _time(self, chunks: list[tuple[Sequence, int]], limit_s: float, max_steps: int) -> tuple[int, float]:
        """Steps in this stretch and their seconds."""
        decoding = len(self._decoding)
        context = self._decode_context()
        first = self._step_time(
            StepShape(
                prefill_tokens=sum(n for _, n in chunks),
                prefill_context_tokens=sum(sequence.computed for sequence, _ in chunks),
                prefill_sequences=max(1, len(chunks)),
                decode_sequences=decoding,
                decode_context_tokens=context,
            )
        )
        if chunks or max_steps == 1 or not decoding:
            return 1, first
        steps = min(max_steps, self._steps_to_event())
        if steps == 1 or first >= limit_s:
            return 1, first
        growth = decoding * self._acceptance.mean_tokens * (steps - 1)
        last = self._step_time(
            StepShape(decode_sequences=decoding, decode_context_tokens=round(context + growth))
        )
        # Within a stretch only the context grows, by the same amount each step: the step time is taken as
        # the straight line between its ends.
        slope = (last - first) / (steps - 1)
        if _stretch(first, slope, steps) > limit_s:
            steps = _steps_until(first, slope, steps, limit_s)
        return steps, _stretch(first, slope, steps)

    def _finish_decoding(self) -> list[Sequence]:
        finished = []
        while self._finish and self._finish[0][0] <= self.decode_steps:
            _, _, epoch, sequence = heapq.heappop(self._finish)
            if epoch == sequence.epoch:
                self._complete(sequence)
                finished.append(sequence)
        return finished

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
                self._join(sequence)
        return first_tokens

    # ------------------------------------------------------------------ a sequence's life

    def _join(self, sequence: Sequence) -> None:
        """Begin to decode with the next step."""
        self._decoding[sequence] = None
        self._context += sequence.request.prompt_tokens + sequence.base
        sequence.join = self.decode_steps
        sequence.offset = self._acceptance.offset()
        left = sequence.request.output_tokens - sequence.base
        at = self.decode_steps + self._acceptance.steps_for(sequence.offset, left)
        heapq.heappush(self._finish, (at, sequence.serial, sequence.epoch, sequence))
        self._schedule_growth(sequence)

    def _schedule_growth(self, sequence: Sequence) -> None:
        """Note the step whose tokens no longer fit the blocks held."""
        covered = sequence.blocks * self.config.block_size
        spare = covered - sequence.request.prompt_tokens - sequence.base - self.config.num_speculative_tokens
        steps = self._acceptance.steps_for(sequence.offset, spare + 1) if spare >= 0 else 0
        heapq.heappush(self._grow, (sequence.join + steps, sequence.serial, sequence.epoch, sequence))

    def _take_or_preempt(self, sequence: Sequence, blocks: int) -> bool:
        """Hold blocks for a sequence, preempting the last admitted ones; False if it was itself one."""
        while not self.pool.take(blocks):
            victim = next(reversed(self._running))
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        generated = self.generated(sequence)
        self._leave(sequence)
        sequence.base = generated
        sequence.target = sequence.request.prompt_tokens + generated
        sequence.preemptions += 1
        self.preemptions += 1
        self._waiting.appendleft(sequence)

    def _complete(self, sequence: Sequence) -> None:
        request = sequence.request
        self._publish(sequence, request.prompt_tokens + request.output_tokens - 1)
        self._leave(sequence)
        sequence.base = request.output_tokens
        sequence.finished = True

    def _leave(self, sequence: Sequence) -> None:
        """Give back everything a running sequence holds."""
        if sequence in self._decoding:
            self._context -= (
                sequence.request.prompt_tokens + sequence.base + self.decode_steps - sequence.join
            )
            del self._decoding[sequence]
        self._prefilling.pop(sequence, None)
        del self._running[sequence]
        self.pool.give(sequence.blocks - len(sequence.entries) + self.config.state_blocks_per_sequence)
        self.pool.release(sequence.entries)
        sequence.entries = []
        sequence.blocks = sequence.computed = 0
        sequence.epoch += 1

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

    # ------------------------------------------------------------------ small sums

    def _blocks_to(self, sequence: Sequence, tokens: int) -> int:
        return max(0, -(-tokens // self.config.block_size) - sequence.blocks)

    def _decode_context(self) -> int:
        if not self._acceptance.speculative:
            return self._context
        return sum(s.request.prompt_tokens + self.generated(s) for s in self._decoding)

    def _emissions(self) -> list[tuple[Sequence, int]]:
        if not self._acceptance.speculative:
            return [(sequence, 1) for sequence in self._decoding]
        return [(sequence, self._next_tokens(sequence)) for sequence in self._decoding]

    def _next_tokens(self, sequence: Sequence) -> int:
        steps = self.decode_steps - sequence.join
        before = sequence.base + self._acceptance.tokens(sequence.offset, steps)
        after = sequence.base + self._acceptance.tokens(sequence.offset, steps + 1)
        return min(after, sequence.request.output_tokens) - before

    def _steps_to_event(self) -> int:
        """Steps until a sequence finishes, at most as many as pass before one needs a block."""
        nearest = min(_next_valid(self._finish), _next_valid(self._grow))
        return max(1, nearest - self.decode_steps)


def _next_valid(heap: list[tuple[int, int, int, Sequence]]) -> int:
    while heap and heap[0][2] != heap[0][3].epoch:
        heapq.heappop(heap)
    return heap[0][0] if heap else EVERY


def _stretch(first: float, slope: float, steps: int) -> float:
    """Seconds of ``steps`` steps whose times lie on a line."""
    return steps * first + slope * steps * (steps - 1) / 2


def _steps_until(first: float, slope: float, most: int, limit_s: float) -> int:
    """Fewest steps that last at least ``limit_s``; ``most`` steps do."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if _stretch(first, slope, middle) >= limit_s:
            high = middle
        else:
            low = middle + 1
    return low


def least_loaded(engines: Iterable[Engine]) -> Engine:
    """The rank vLLM's own load balancer would choose."""
    return min(engines, key=lambda engine: engine.load)

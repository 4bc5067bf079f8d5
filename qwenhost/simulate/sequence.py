"""A request, its life in the engine, and what a step did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

    from qwenhost.simulate.blocks import Block
    from qwenhost.simulate.states import States


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
        "admissions", "arrival_s", "base", "blocks", "cached_tokens", "chunk", "computed", "entries", "epoch",
        "finished", "first_scheduled_s", "join", "junction", "offset", "order", "preemptions", "published",
        "request", "ripe_at", "serial", "states", "tag", "target",
    )  # fmt: skip

    def __init__(self, request: Request, arrival_s: float, serial: int) -> None:
        self.request = request
        self.arrival_s = arrival_s
        self.serial = serial
        self.tag: Any = None
        """For the caller."""
        self.ripe_at = 0
        """Number of the first scheduling that knows of it."""
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
        self.entries: list[Block] = []
        """Those that are cache entries."""
        self.published = 0
        """Leading blocks found in the cache or offered to it."""
        self.states: States | None = None
        """State blocks held, where states are cached."""
        self.junction = 0
        """Tokens of a prefix shared with another prompt whose state was not kept."""
        self.chunk = (0, 0)
        """The scheduling that computed prompt tokens of it last, and how many."""
        self.order = 0
        """Place among the admissions."""
        self.join = 0
        self.offset = 0
        self.epoch = 0
        self.admissions = 0
        self.preemptions = 0
        self.finished = False

    def key(self, block: int) -> Hashable:
        """Identity of the content up to the end of a block; its own where nothing is known of it."""
        known = self.request.block_hashes
        return known[block] if block < len(known) else (self.serial, block)


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
    chunks: list[tuple[Sequence, int]]
    """Prompt tokens computed, by sequence."""
    kv_blocks_held: int
    """While it ran."""
    overrun: list[Sequence]
    """Sequences computed for nothing: accepted drafts had ended them, when it was scheduled already."""

"""Random loads for the scheduler, and what the simulated engine does with them step by step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.engine import Engine, Request

if TYPE_CHECKING:
    import random

MAX_STEPS = 20_000
RATES = (0.8, 0.5)


class Load(NamedTuple):
    """An engine and requests: the step before which each comes, its prompt's tokens and its answer's."""

    config: EngineConfig
    arrivals: list[int]
    prompts: list[list[int]]
    outputs: list[list[int]]


class Family(NamedTuple):
    """What kind of engine a load is drawn for."""

    caching: bool
    states: bool
    ahead: bool
    exports: bool = False
    drafts: int = 0


def draw(rng: random.Random, family: Family) -> Load:
    """One load: some requests repeat, extend or branch off earlier ones; the pool is often too small."""
    size, drafts = rng.choice([4, 8, 16]) * (2 if family.drafts else 1), family.drafts
    longest = rng.choice([4, 8, 16]) * size
    groups = rng.choice([1, 2, 3]) if family.states else 0
    states = groups * (1 + drafts)
    most_states = groups * (2 + drafts + family.exports) if family.caching else states
    least = -(-longest // size) + most_states + 1
    config = EngineConfig(
        max_model_len=longest,
        max_num_seqs=rng.choice([1, 2, 3, 5, 8]),
        max_num_batched_tokens=rng.choice([size, 2 * size + 1, 3 * size, 8 * size, 40 * size]) + 8 * drafts,
        num_blocks=1 + least + rng.choice([0, 1, 3, 6, 12, 30, 100]),
        block_size=size,
        state_blocks_per_sequence=states,
        num_speculative_tokens=drafts,
        acceptance_rates=RATES[:drafts],
        enable_prefix_caching=family.caching,
        exports_states=family.exports and family.caching,
        async_scheduling=family.ahead,
    )
    arrivals: list[int] = []
    prompts: list[list[int]] = []
    outputs: list[list[int]] = []
    at = 1
    for index in range(rng.choice([2, 5, 12, 25])):
        at += rng.choice([0, 0, 0, 1, 3, 10])
        room = longest - 3 * drafts  # at the very end of the context vLLM leaves out steps for want of room
        prompt = _prompt(rng, index, room, prompts, outputs)
        answer = rng.randint(1, min(rng.choice([3, 3 * size, longest]), room - len(prompt)))
        arrivals.append(at)
        prompts.append(prompt)
        outputs.append([1_000_000 * (index + 1) + i for i in range(answer)])
    return Load(config, arrivals, prompts, outputs)


def _prompt(
    rng: random.Random, index: int, longest: int, prompts: list[list[int]], outputs: list[list[int]]
) -> list[int]:
    """New, or the beginning of an earlier request and its answer followed by something new."""
    before: list[int] = []
    if prompts and rng.random() < 0.6:
        earlier = rng.randrange(len(prompts))
        whole = prompts[earlier] + outputs[earlier]
        before = whole[: rng.choice([len(prompts[earlier]), len(whole), rng.randint(1, len(whole))])]
    fresh = rng.choice([0, 1, rng.randint(1, max(1, longest // 4)), rng.randint(1, longest)])
    new = [10_000_000_000 + 100_000 * index + i for i in range(fresh if before else max(1, fresh))]
    return (before + new)[: longest - 1]


def case(load: Load, after: list[int], gains: list[list[int]]) -> dict[str, Any]:
    """The load for the oracle; the step in which a request comes and what each step gives it are ours."""
    config = load.config
    names = (
        "max_model_len", "max_num_seqs", "max_num_batched_tokens", "num_blocks", "block_size", "state_groups",
        "num_speculative_tokens", "enable_prefix_caching", "exports_states", "async_scheduling",
    )  # fmt: skip
    return {name: getattr(config, name) for name in names} | {
        "requests": [
            {"after": after[i], "prompt": load.prompts[i], "output": load.outputs[i], "gains": gains[i]}
            for i in range(len(after))
        ]
    }


def run(load: Load) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Our steps, and the case for the oracle."""
    engine = Engine(load.config, lambda _: 1.0, seed=len(load.arrivals))
    waiting = [(at, index) for index, at in enumerate(load.arrivals)][::-1]
    sequences: list[Any] = []
    after: list[int] = []
    steps: list[dict[str, Any]] = []
    gains: list[list[int]] = [[] for _ in load.arrivals]
    while waiting or not engine.idle:
        assert len(steps) < MAX_STEPS, "the engine does not finish"
        while waiting and (waiting[-1][0] <= len(steps) + 1 or engine.idle):
            _, index = waiting.pop()
            sequences.append(engine.submit(_request(load, index), 0.0))
            after.append(len(steps))
        preemptions = [sequence.preemptions for sequence in sequences]
        result = engine.step(math.nan, collect=True)
        scheduled = {sequence.serial - 1: tokens for sequence, tokens in result.chunks}
        scheduled |= {sequence.serial - 1: 1 for sequence in result.overrun}
        firsts = set(result.first_tokens)
        for sequence, gain in result.emitted:
            gains[sequence.serial - 1].append(gain)
            if sequence not in firsts:
                scheduled[sequence.serial - 1] = 1
        steps.append(
            {
                "scheduled": scheduled,
                "preempted": [i for i, n in enumerate(preemptions) if sequences[i].preemptions > n],
                "preemptions": result.preempted,
                "used_blocks": result.kv_blocks_held,
                "hits": engine.prefix_hits,
                "queries": engine.prefix_queries,
            }
        )
    return steps, case(load, after, gains)


def _request(load: Load, index: int) -> Request:
    """With the content of each block, and of the token behind it where a draft layer reads that."""
    content = tuple(load.prompts[index] + load.outputs[index])
    size = load.config.block_size
    ahead = min(1, load.config.num_speculative_tokens)
    ends = range(size, len(content) - ahead + 1, size)
    blocks = tuple(hash(content[: end + ahead]) for end in ends)
    return Request(len(load.prompts[index]), len(load.outputs[index]), 0, blocks)

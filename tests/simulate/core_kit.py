"""Engines and loads for the tests of the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.engine import Engine, Request, Sequence, StepResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qwenhost.plan import StepShape

MOST_STEPS = 20_000


def small(**changes: Any) -> EngineConfig:
    """Twenty usable blocks of 4 tokens, budget 16, no state, no prefix caching."""
    values: dict[str, Any] = {
        "max_model_len": 40, "max_num_seqs": 4, "max_num_batched_tokens": 16, "num_blocks": 21,
        "block_size": 4, "enable_prefix_caching": False,
    }  # fmt: skip
    return EngineConfig(**(values | changes))


def hybrid(**changes: Any) -> EngineConfig:
    """The same with one group of states, cached."""
    return small(**({"enable_prefix_caching": True, "state_blocks_per_sequence": 1} | changes))


def one_second(_: StepShape) -> float:
    """Any step."""
    return 1.0


def by_tokens(shape: StepShape) -> float:
    """1 s, 0.1 s per prompt token, 0.01 s per token of context."""
    return 1 + 0.1 * shape.prefill_tokens + 0.01 * shape.decode_context_tokens


def content(kind: int, blocks: int) -> tuple[int, ...]:
    """Hashes of so many blocks of a content."""
    return tuple(1000 * kind + block for block in range(blocks))


def drive(
    engine: Engine, look: Callable[[StepResult], object] = lambda _: None, **step: Any
) -> dict[int, float]:
    """Instants at which requests end, by serial; ``look`` sees every step."""
    now = 0.0
    ends: dict[int, float] = {}
    for _ in range(MOST_STEPS):
        if engine.idle:
            return ends
        result = engine.step(now, **step)
        now += result.duration_s
        look(result)
        ends |= {sequence.serial: now for sequence in result.finished}
    raise AssertionError("the engine does not finish")


def submit(engine: Engine, requests: Iterable[Request]) -> list[Sequence]:
    """All at time 0."""
    return [engine.submit(request, 0.0) for request in requests]


@st.composite
def configs(draw: st.DrawFn, *, drafts: int | None = None) -> EngineConfig:
    """Engines of every kind, with room for the longest request."""
    speculative = draw(st.integers(0, 2)) if drafts is None else drafts
    groups = draw(st.sampled_from([0, 0, 1, 3]))
    states = groups * (1 + speculative)
    most_states = groups * (3 + speculative)
    return small(
        max_num_seqs=draw(st.integers(1, 6)),
        max_num_batched_tokens=draw(st.integers(4, 30)) + 3 * speculative,
        num_blocks=12 + most_states + draw(st.sampled_from([0, 1, 4, 20])),
        state_blocks_per_sequence=states,
        num_speculative_tokens=speculative,
        acceptance_rates=(0.8, 0.5)[:speculative],
        enable_prefix_caching=draw(st.booleans()),
        exports_states=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
    )


@st.composite
def loads(draw: st.DrawFn) -> list[Request]:
    """Up to a dozen requests, some of which begin alike."""
    sizes = st.tuples(st.integers(1, 25), st.integers(1, 14), st.integers(0, 3))
    return [
        Request(prompt, output, 0, content(kind, (prompt + output) // 4) if kind else ())
        for prompt, output, kind in draw(st.lists(sizes, min_size=1, max_size=12))
    ]

"""A stretch of steps whose times lie on a straight line."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qwenhost.plan import StepShape

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence as Seq

    from qwenhost.simulate.decoding import Decoding
    from qwenhost.simulate.sequence import Sequence


class Shape(NamedTuple):
    """What a step computes beside the decoding sequences."""

    chunks: Seq[tuple[Sequence, int]] = ()
    """Sequences and the prompt tokens of theirs."""
    overrun: int = 0
    """Sequences whose end was not known when it was scheduled."""


ALONE = Shape()


def stretch(
    step_time: Callable[[StepShape], float],
    decoding: Decoding,
    shape: Shape,
    limit_s: float,
    max_steps: int,
) -> tuple[int, float]:
    """Steps in a stretch and their seconds.

    Args:
        step_time: seconds of a step of a given shape.
        decoding: sequences that gain a token in each.
        shape: what is computed beside them; where that is something, it is one step.
        limit_s: it ends with the first step that ends at or after this.
        max_steps: longest.
    """
    chunks, overrun = shape
    sequences, context = len(decoding), decoding.context_tokens
    first = step_time(
        StepShape(decode_sequences=sequences, decode_context_tokens=context)
        if shape is ALONE
        else StepShape(
            prefill_tokens=sum(n for _, n in chunks),
            prefill_context_tokens=sum(sequence.computed for sequence, _ in chunks),
            prefill_sequences=max(1, len(chunks)),
            decode_sequences=sequences + overrun,
            decode_context_tokens=context,
        )
    )
    if chunks or overrun or max_steps == 1 or not sequences:
        return 1, first
    steps = min(max_steps, decoding.steps_to_event())
    if steps == 1 or first >= limit_s:
        return 1, first
    growth = decoding.growth_per_step * (steps - 1)
    last = step_time(StepShape(decode_sequences=sequences, decode_context_tokens=round(context + growth)))
    # Within a stretch only the context grows, by the same amount each step: the step time is taken as
    # the straight line between its ends.
    slope = (last - first) / (steps - 1)
    if stretch_seconds(first, slope, steps) > limit_s:
        steps = steps_until(first, slope, steps, limit_s)
    return steps, stretch_seconds(first, slope, steps)


def stretch_seconds(first: float, slope: float, steps: int) -> float:
    """Seconds of ``steps`` steps, the first taking ``first`` and each ``slope`` more than the one before."""
    return steps * first + slope * steps * (steps - 1) / 2


def steps_until(first: float, slope: float, most: int, limit_s: float) -> int:
    """Fewest steps that last at least ``limit_s``, given that ``most`` steps do."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if stretch_seconds(first, slope, middle) >= limit_s:
            high = middle
        else:
            low = middle + 1
    return low

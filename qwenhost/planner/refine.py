"""A second look at the best combinations: other step sizes, and fewer sequences, where they clearly pay.

vLLM's own defaults stand unless another value is better by more than the model can tell apart. The
context needs no search: a longer one costs nothing until a request uses it, so the longest that starts
is taken (``sizing``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.planner.objective import is_clearly_better
from qwenhost.planner.sizing import SEQUENCE_STEPS, Sized, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.planner.context import Context
    from qwenhost.planner.objective import Judged
    from qwenhost.planner.sizing import Settings

BATCHED_TOKENS: Final = (2048, 4096, 8192, 16384, 32768)
MOST_REFINED: Final = 8
"""Combinations that are looked at again, the best ones."""


def refined(context: Context, ranked: list[Judged], judge_again: Callable[[Sized], Judged]) -> list[Judged]:
    """The best ones with the engine arguments that suit them, the others as they were."""
    best = [_refined(context, one, judge_again) for one in ranked[:MOST_REFINED]]
    return best + ranked[MOST_REFINED:]


def _refined(context: Context, start: Judged, judge_again: Callable[[Sized], Judged]) -> Judged:
    best, objective = start, context.request.objective
    for vary in (_step_sizes, _sequences):
        for settings in vary(context, best):
            sized = size(context, best.sized.option, settings)
            if isinstance(sized, Sized):
                other = judge_again(sized)
                if is_clearly_better(other, best, objective):
                    best = other
    return best


def _step_sizes(context: Context, one: Judged) -> Iterator[Settings]:
    if context.request.pins.max_num_batched_tokens is None:
        settings = one.sized.settings
        for tokens in BATCHED_TOKENS:
            if tokens != settings.max_num_batched_tokens and tokens >= one.sized.blocks.block_size:
                yield settings._replace(max_num_batched_tokens=tokens)


def _sequences(context: Context, one: Judged) -> Iterator[Settings]:
    """Fewer sequences leave more memory to the cache: half and a quarter of what fits."""
    if context.request.pins.max_num_seqs is None:
        for share in (2, 4):
            fewer = one.sized.max_num_seqs // share
            step = next((step for step in SEQUENCE_STEPS if step <= fewer), None)
            if step is not None:
                yield one.sized.settings._replace(most_sequences=step)

"""Many steps at once: the equations of ``planner.performance`` over NumPy arrays.

Kept apart, since a single plan asks for too few steps to pay for importing NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from qwenhost.planner.tally import StepCost

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

    from qwenhost.plan import StepShape
    from qwenhost.planner.experts import DistinctExperts
    from qwenhost.planner.performance import StepModel


class StepShapes(NamedTuple):
    """The fields of ``StepShape``, each an array of one length (or 0 for what no step has)."""

    prefill_tokens: NDArray[np.float64]
    prefill_context_tokens: NDArray[np.float64]
    prefill_sequences: NDArray[np.float64]
    decode_sequences: NDArray[np.float64]
    decode_context_tokens: NDArray[np.float64]


def shapes(
    *,
    prefill_tokens: ArrayLike = 0,
    prefill_context_tokens: ArrayLike = 0,
    prefill_sequences: ArrayLike = 1,
    decode_sequences: ArrayLike = 0,
    decode_context_tokens: ArrayLike = 0,
) -> StepShapes:
    """Arrays from anything NumPy broadcasts together.

    Raises:
        ValueError: the lengths do not fit together.
    """
    given = (
        prefill_tokens, prefill_context_tokens, prefill_sequences, decode_sequences, decode_context_tokens,
    )  # fmt: skip
    return StepShapes(*np.broadcast_arrays(*(np.atleast_1d(np.asarray(one, dtype=float)) for one in given)))


def shapes_of(steps: Iterable[StepShape]) -> StepShapes:
    """Arrays from single shapes."""
    rows = [
        (
            one.prefill_tokens, one.prefill_context_tokens, one.prefill_sequences,
            one.decode_sequences, one.decode_context_tokens,
        )
        for one in steps
    ]  # fmt: skip
    return StepShapes(*np.array(rows, dtype=float).reshape(-1, 5).T)


def step_costs(model: StepModel, steps: StepShapes) -> StepCost:
    """``StepModel.cost`` of every step: a ``StepCost`` whose fields are arrays; empty steps take none."""
    table = _Table(model.distinct)
    # The equations hold for arrays as for floats; their types are written for one step.
    cost = model.cost_of(cast("StepShape", steps), cast("DistinctExperts", table))
    busy = steps.decode_sequences + steps.prefill_tokens > 0
    return StepCost(*(np.where(busy, part, 0.0) for part in cost))  # type: ignore[arg-type]


def step_seconds(model: StepModel, steps: StepShapes) -> NDArray[np.float64]:
    """Seconds of every step."""
    return cast("NDArray[np.float64]", step_costs(model, steps).seconds)


class _Table:
    """``DistinctExperts`` of arrays, from the same table."""

    def __init__(self, single: DistinctExperts) -> None:
        self._top_k = single.top_k
        self._sizes = np.array(single.sizes)
        self._known = np.array(single.table)

    def __call__(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        hit = np.interp(tokens, self._sizes, self._known)
        return np.where(tokens <= 1, self._top_k * tokens, hit)

"""A few constants from a few points: each starts at a prior of stated width and moves where points agree.

Maximum a posteriori in the logarithms of the constants, by damped Gauss-Newton; far-off points count
linearly (Huber). Points of one source share an error of their own (its software, its clocks), which is
estimated beside the constants, so that the constants follow what differs within sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

HUBER: Final = 1.5
STEP: Final = 0.02  # of a logarithm, for slopes
DAMPING: Final = 0.8
ROUNDS: Final = 8


class Trust(NamedTuple):
    """What is expected before the points are seen; natural logarithms, one standard deviation."""

    widths: Sequence[float]
    """How far each constant may go."""
    row: float
    """Error of one row that no constant explains."""
    source: float = 0.0
    """Error that all rows of a source share; 0 where all are of one machine."""


class Fit(NamedTuple):
    """Where the constants came to lie."""

    shift: Floats
    """Natural logarithm of each constant over its start."""
    deviation: Floats
    """Of the same, one standard deviation, after the points were seen."""


def fit(
    log_errors: Callable[[Floats], Floats],
    trust: Trust,
    *,
    sources: Sequence[str],
    weights: Sequence[float] | None = None,
) -> Fit:
    """The most likely shifts.

    Args:
        log_errors: shifts -> log(predicted time / measured time) of every row.
        trust: priors.
        sources: of every row; rows of one source share an error where ``trust.source`` is above 0.
        weights: of every row; all equal where not given.
    """
    size, rows = len(trust.widths), len(sources)
    weight = np.ones(rows) if weights is None else np.asarray(weights, dtype=float)
    names = sorted(set(sources)) if trust.source else []
    member = np.array([[name == source for name in names] for source in sources], dtype=float)
    member = member.reshape(rows, len(names)) * weight[:, None] / trust.row
    precision = np.diag(
        np.r_[np.asarray(trust.widths) ** -2.0, np.full(len(names), trust.source or 1) ** -2.0]
    )
    state = np.zeros(size + len(names))

    def scaled(at: Floats) -> Floats:
        return np.asarray(weight * log_errors(at[:size]) / trust.row + member @ at[size:])

    current = scaled(state)
    for _ in range(ROUNDS):
        slopes = _slopes(scaled, state, current, member)
        robust = np.minimum(1.0, HUBER / np.maximum(np.abs(current), 1e-9))
        normal = slopes.T @ (robust[:, None] * slopes) + precision
        gradient = slopes.T @ (robust * current) + precision @ state
        state = state - DAMPING * np.linalg.solve(normal, gradient)
        current = scaled(state)
    spread = np.sqrt(np.diag(np.linalg.inv(normal)))
    return Fit(state[:size], spread[:size])


def _slopes(scaled: Callable[[Floats], Floats], state: Floats, current: Floats, member: Floats) -> Floats:
    """Of every row in every constant, by differences, and in every source's error, which is linear."""
    columns = []
    for column in range(len(state) - member.shape[1]):
        moved = state.copy()
        moved[column] += STEP
        columns.append((scaled(moved) - current) / STEP)
    return np.column_stack([*columns, member]) if columns else member

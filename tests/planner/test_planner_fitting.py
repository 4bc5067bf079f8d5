"""Constants from few points: what data say, what priors hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qwenhost.planner.fitting import Trust, fit


def test_one_constant_meets_prior_and_data_by_their_precision() -> None:
    """Four rows 0.2 too slow, each good to 0.1, against a prior of 0.1: the mean moves 4/5 of the way."""
    found = fit(lambda shift: np.full(4, 0.2) + shift[0], Trust([0.1], 0.1 * 1.0), sources=["a"] * 4)
    assert found.shift[0] == pytest.approx(-0.2 * 4 / 5, rel=0.02)
    assert found.deviation[0] == pytest.approx(0.1 / math.sqrt(5), rel=0.05)


def test_no_rows_leave_the_prior() -> None:
    """Nothing measured, nothing learned."""
    found = fit(lambda shift: np.zeros(0) * shift[0], Trust([0.3, 0.1], 0.1), sources=[])
    assert found.shift == pytest.approx([0, 0])
    assert found.deviation == pytest.approx([0.3, 0.1])


def test_a_source_keeps_its_own_error() -> None:
    """A source that is slow throughout moves the constant less than if it had no error of its own."""
    sources = ["slow"] * 6 + ["other"] * 6
    rows = np.array([0.15] * 6 + [0.0] * 6)
    alone = fit(lambda shift: rows + shift[0], Trust([0.2], 0.1), sources=sources).shift[0]
    shared = fit(lambda shift: rows + shift[0], Trust([0.2], 0.1, 0.1), sources=sources).shift[0]
    assert alone < shared < 0


def test_one_far_off_row_counts_little() -> None:
    """Nine rows agree, one is off by e^3: the constant stays where the nine are."""
    rows = np.array([0.1] * 9 + [3.0])
    found = fit(lambda shift: rows + shift[0], Trust([1.0], 0.05), sources=["a"] * 10)
    assert found.shift[0] == pytest.approx(-0.1, abs=0.02)


def test_two_constants_are_told_apart() -> None:
    """A line's offset and slope, each off by a factor, from points along it."""
    x = np.array([1.0, 4.0, 16.0, 64.0])
    truth = 2.0 * 0.01 + 1.5 * 0.001 * x

    def errors(shift: np.ndarray) -> np.ndarray:
        return np.asarray(np.log((np.exp(shift[0]) * 0.01 + np.exp(shift[1]) * 0.001 * x) / truth))

    found = fit(errors, Trust([1.0, 1.0], 0.01), sources=["a"] * 4)
    assert np.exp(found.shift) == pytest.approx([2.0, 1.5], rel=0.01)


def test_weights_count() -> None:
    """A row of weight 0 is not there."""
    rows = np.array([0.0, 5.0])
    found = fit(lambda shift: rows + shift[0], Trust([1.0], 0.1), sources=["a", "b"], weights=[1.0, 0.0])
    assert found.shift[0] == pytest.approx(0.0, abs=1e-9)

"""Collectives: what a message costs by size and ranks."""

from __future__ import annotations

import pytest

from qwenhost.planner.constants import Constants
from qwenhost.planner.links import Collective
from qwenhost.profiles import load_catalog

KIB = 1024


@pytest.fixture(scope="module")
def b200() -> Collective:
    catalog = load_catalog()
    spec = catalog.gpus["b200"]
    return Collective(spec, Constants(spec, catalog.calibrations), "nvlink")


@pytest.mark.parametrize(("ranks", "limit_kib"), [(4, 512), (8, 256)])
def test_two_shots_cost_more_than_one(b200: Collective, ranks: int, limit_kib: int) -> None:
    below = b200.all_reduce((limit_kib - 1) * KIB, ranks)
    assert b200.all_reduce(limit_kib * KIB, ranks) > below + 5e-6


def test_two_ranks_reduce_in_one_shot(b200: Collective) -> None:
    step = b200.all_reduce(513 * KIB, 2) - b200.all_reduce(512 * KIB, 2)
    assert step == pytest.approx(b200.all_reduce(2 * KIB, 2) - b200.all_reduce(1 * KIB, 2))


def test_nothing_to_gather_on_one_rank(b200: Collective) -> None:
    assert b200.gather(1e6, 1) == 0.0
    assert 0.0 < b200.gather(1e6, 2) < b200.gather(1e6, 4)

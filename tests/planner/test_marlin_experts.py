"""Experts on a weight-only kernel compute in BF16, whatever arithmetic their weights' format names."""

from __future__ import annotations

import pytest

from qwenhost.planner.rules import experts_run_on_marlin, kernel_choice
from qwenhost.profiles import load_catalog


@pytest.mark.parametrize(
    ("gpu", "compute", "marlin"),
    [
        ("gb10", "fp4", True),
        ("rtx-pro-6000", "fp4", True),
        ("b200", "fp4", False),  # FP4 kernels of its own
        ("gb10", "fp8", False),
        ("gb10", "bf16", False),
    ],
)
def test_what_is_chosen_is_what_is_timed(gpu: str, compute: str, *, marlin: bool) -> None:
    """The rule that writes ``--moe-backend marlin`` for FP4 is the one the speed model asks."""
    catalog = load_catalog([])
    spec = catalog.gpus[gpu]
    assert experts_run_on_marlin(compute, spec) is marlin
    checkpoint = next(iter(catalog.checkpoints.values()))
    assert (kernel_choice(checkpoint, compute, spec).moe_backend == "marlin") is marlin

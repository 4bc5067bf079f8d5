"""Many steps at once give what each gives alone."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.plan import Parallelism, StepShape
from qwenhost.planner.constants import Constants
from qwenhost.planner.performance import StepModel, StepOptions
from qwenhost.planner.vectors import shapes, shapes_of, step_costs, step_seconds
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "TP1": ({}, {}),
    "drafts": ({}, {"num_speculative_tokens": 2}),
    "eager": ({}, {"enforce_eager": True}),
    "EP": ({"tensor_parallel_size": 4, "enable_expert_parallel": True}, {}),
    "DP": ({"tensor_parallel_size": 2, "data_parallel_size": 2}, {"kv_cache_dtype": "fp8"}),
    "PP": ({"pipeline_parallel_size": 2}, {}),
}


def model(catalog: Catalog, layout: dict[str, Any], options: dict[str, Any]) -> StepModel:
    spec, checkpoint = catalog.gpus["h200"], catalog.checkpoints["nvfp4"]
    architecture = catalog.architectures[checkpoint.architecture]
    return StepModel(
        architecture=architecture,
        checkpoint=checkpoint,
        parameters=architecture.parameters,
        formats={g: catalog.formats[checkpoint.format_of(g)] for g in architecture.parameters},
        parallelism=Parallelism(**layout),
        options=StepOptions(**options),
        spec=spec,
        constants=Constants(spec, catalog.calibrations),
        interconnect=spec.link,
    )


MODELS = {name: model(load_catalog([]), *how) for name, how in LAYOUTS.items()}

steps = st.builds(
    StepShape,
    prefill_tokens=st.integers(0, 20_000),
    prefill_context_tokens=st.integers(0, 200_000),
    prefill_sequences=st.integers(0, 16),
    decode_sequences=st.integers(0, 1024),
    decode_context_tokens=st.integers(0, 10_000_000),
)


@pytest.mark.parametrize("name", LAYOUTS)
@settings(deadline=None, max_examples=40)
@given(many=st.lists(steps, min_size=1, max_size=20))
def test_arrays_follow_the_same_equations(name: str, many: list[StepShape]) -> None:
    """Every part of every step, whatever runs in it, equals the single step's."""
    together = step_costs(MODELS[name], shapes_of(many))
    for index, step in enumerate(many):
        alone = MODELS[name].cost(step)
        for part, expected in zip(together, alone, strict=True):
            assert float(part[index]) == pytest.approx(expected, rel=1e-9, abs=1e-15)  # type: ignore[index]


def test_shapes_broadcast() -> None:
    """One context length for three batch sizes; what no step has is left out."""
    seconds = step_seconds(
        MODELS["TP1"], shapes(decode_sequences=[1, 8, 64], decode_context_tokens=np.array([1, 8, 64]) * 1000)
    )
    assert seconds.shape == (3,)
    assert list(seconds) == sorted(seconds)
    assert step_seconds(MODELS["TP1"], shapes()) == [0.0]


def test_no_steps_no_times() -> None:
    """An empty list is an empty array."""
    assert step_seconds(MODELS["TP1"], shapes_of([])).shape == (0,)


def test_planning_does_not_import_numpy() -> None:
    """It would cost a plan a fifth of its time; the command line's plan runs without it."""
    code = "import sys, qwenhost.planner, qwenhost.cli.plan; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

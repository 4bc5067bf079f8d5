"""The plans that the chart carries are the planner's."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qwenhost.node import parse_gpus
from qwenhost.profiles import load_catalog

ROOT = Path(__file__).parents[2]
FILES = ROOT / "k8s" / "chart" / "files"
PLANS = yaml.safe_load((FILES / "plans.yaml").read_text())
SPECS = load_catalog([]).gpus


@pytest.mark.parametrize("name", PLANS)
def test_a_name_is_what_the_command_line_takes(name: str) -> None:
    """``--set gpus=`` and ``--gpus`` speak of the same hardware, and all of it is used."""
    machine, pool = parse_gpus(name, SPECS), PLANS[name]["pool"]
    assert pool["replicas"] * pool["gpusPerNode"] <= machine.gpu_count
    assert pool["accelerator"]["products"] == [machine.gpus[0].name.replace(" ", "-")]
    assert PLANS[name]["model"]["weightsBytes"] < machine.gpu_count * machine.gpus[0].memory_total_bytes


@pytest.mark.parametrize("name", ["1xH200", "2xH200", "8xH100", "8xA100-80GB", "2xRTXPRO6000"])
def test_the_examples_gpus_have_plans(name: str) -> None:
    """The chart's examples name them."""
    assert name in PLANS


def test_a_gpu_that_holds_nothing_has_no_plan() -> None:
    """One L40S or one RTX 5090 is too small for any checkpoint."""
    assert not {"1xL40S", "1xRTX5090", "2xRTX3090"} & PLANS.keys()

"""The built-in facts and short ways to ask for a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.node import parse_gpus
from qwenhost.plan import Pins, Plan, PlanRequest
from qwenhost.planner import make_plan
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from qwenhost.facts import Architecture, Catalog

Ask = Callable[..., PlanRequest]


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog([])


@pytest.fixture(scope="session")
def architecture(catalog: Catalog) -> Architecture:
    return catalog.architectures["Qwen3.5-122B-A10B"]


@pytest.fixture(scope="session")
def ask(catalog: Catalog) -> Ask:
    """``ask("2xH200", workload="chat", objective="latency", checkpoint="fp8")``: a request."""

    def request(gpus: str, workload: str = "chat", **given: Any) -> PlanRequest:
        pins = {name: given.pop(name) for name in Pins.__struct_fields__ if name in given}
        interconnect = given.pop("interconnect", None)
        chosen = catalog.workloads[workload]
        return PlanRequest(
            node=parse_gpus(gpus, catalog.gpus, interconnect=interconnect),
            workload=chosen,
            slo=given.pop("slo", chosen.slo),
            pins=Pins(**pins),
            **given,
        )

    return request


@pytest.fixture(scope="session")
def plan(catalog: Catalog, ask: Ask) -> Callable[..., Plan]:
    """``plan("2xH200", checkpoint="fp8")``: the plan."""
    return lambda gpus, workload="chat", **given: make_plan(ask(gpus, workload, **given), catalog)

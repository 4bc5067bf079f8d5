"""Parameter counts equal what transformers and vLLM build from the model maker's own config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2e import oracles
from qwenhost.facts import MTP_GROUPS
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from qwenhost.facts import Architecture, Catalog

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
ARCHITECTURES = ("Qwen3.5-122B-A10B", "Qwen3.5-35B-A3B", "Qwen3.5-397B-A17B")


def config_of(architecture: str) -> str:
    """The model maker's ``config.json``."""
    return str(CONFIGS / f"{architecture.lower()}.json")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Our facts."""
    return load_catalog()


@pytest.fixture(scope="module")
def wholes() -> dict[str, tuple[Any, Any]]:
    """Each architecture, whole, as transformers and as vLLM with its MTP layer build it."""
    requests = [
        {"by": by, "config": config_of(name)} for name in ARCHITECTURES for by in ("transformers", "vllm")
    ]
    answers = oracles.ask("param_oracle.py", requests)
    return {name: (answers[2 * i], answers[2 * i + 1]) for i, name in enumerate(ARCHITECTURES)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_equal_transformers_by_group(
    name: str, wholes: dict[str, tuple[Any, Any]], catalog: Catalog
) -> None:
    """Every group but MTP, which transformers has not: the same number of parameters."""
    theirs = wholes[name][0]
    assert theirs["class"] == "Qwen3_5MoeForConditionalGeneration"
    assert theirs["parameters"] == without_mtp(catalog.architectures[name])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_equal_vllm_by_group(
    name: str, wholes: dict[str, tuple[Any, Any]], catalog: Catalog
) -> None:
    """Every group, MTP included: the same number of parameters on a single GPU."""
    theirs = wholes[name][1]
    assert theirs["class"] == "Qwen3_5MoeForConditionalGeneration"
    assert theirs["parameters"] == dict(catalog.architectures[name].parameters)


def without_mtp(architecture: Architecture) -> dict[str, int]:
    """Parameters by group without the MTP layer's."""
    return {group: n for group, n in architecture.parameters.items() if group not in MTP_GROUPS}

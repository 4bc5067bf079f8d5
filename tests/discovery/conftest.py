"""The stub NVML library, compiled once, and ``qwenhost inspect`` run against it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "stub_nvml"))

from build_stub import build, environment
from discovery_cli import Outcome, run_cli

if TYPE_CHECKING:
    from collections.abc import Callable

    from build_stub import StubGpu


@pytest.fixture(scope="session")
def stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``libnvidia-ml.so.1`` that NVIDIA's binding loads."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def inspect(stub_library: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """``inspect(gpus, *arguments, **stub options)`` runs ``qwenhost inspect`` on a machine with them.

    The output is JSON unless ``tables`` is set.
    """

    def run(gpus: list[StubGpu], *arguments: str, tables: bool = False, **stub: Any) -> Outcome:
        env = environment(stub_library, gpus, config=tmp_path / "machine.txt", **stub)
        return run_cli("inspect", *arguments, *([] if tables else ["--json"]), env=env)

    return run

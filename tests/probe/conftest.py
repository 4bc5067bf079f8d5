"""The truth server as a process, and a short way to measure it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from truth_process import Truth

from qwenhost.facts import TokenStats
from qwenhost.probe import ProbeConfig, ProbeResult, run_probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def truth() -> Iterator[Truth]:
    server = Truth()
    yield server
    server.stop()


@pytest.fixture
def own_truth() -> Iterator[Truth]:
    """A server that a test may kill."""
    server = Truth()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def measure() -> Callable[..., ProbeResult]:
    """Run a probe with small defaults."""

    def run(url: str, *, output: int = 8, on_progress: Any = None, **options: Any) -> ProbeResult:
        defaults: dict[str, Any] = {
            "warmup": 0,
            "input_tokens": TokenStats(mean=64),
            "output_tokens": TokenStats(mean=output),
            "timeout_s": 20.0,
        }
        if "rate" not in options:
            defaults |= {"concurrency": 4}
        if "duration_s" not in options:
            defaults |= {"requests": 8}
        return run_probe(ProbeConfig(url=url, **(defaults | options)), on_progress=on_progress)

    return run

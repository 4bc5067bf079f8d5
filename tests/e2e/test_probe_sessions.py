"""Sessions and tools against real vLLM: what a cache serves, by its own counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.facts import TokenStats
from qwenhost.probe import ProbeConfig, ProbeResult, run_probe
from qwenhost.probe.tools import generated_tools

if TYPE_CHECKING:
    from e2e.conftest import Served

pytestmark = pytest.mark.engine


def probe(engine: Served, **options: Any) -> ProbeResult:
    defaults: dict[str, Any] = {
        "concurrency": 2, "requests": 12, "warmup": 2, "output_tokens": TokenStats(mean=16),
        "input_tokens": TokenStats(mean=1200), "timeout_s": 120.0,
    }  # fmt: skip
    return run_probe(ProbeConfig(url=engine.base_url, api_key=engine.api_key, **(defaults | options)))


def test_a_sessions_history_is_served_from_the_cache(engine: Served) -> None:
    """Sizes as planned, and vLLM's own hit rate near the share that stood in the turn before."""
    result = probe(engine, turns=3, prefix_hit=0.55)
    found = result.measurements.sessions
    assert result.measurements.requests.by_error == {}
    assert found is not None
    assert found.sessions == 4
    assert result.measurements.workload.mean_input_tokens == pytest.approx(1200, rel=0.1)
    assert found.repeated_share == pytest.approx(0.55, abs=0.06)
    assert found.prefix_cache_hit_rate is not None
    # Whole blocks of 512 tokens only, and only those that were not evicted since.
    assert 0 < found.prefix_cache_hit_rate <= found.repeated_share


def test_requests_with_tools_are_taken(engine: Served) -> None:
    """The definitions are part of the prompt; without a parser vLLM gives plain text back."""
    small: dict[str, Any] = {"requests": 4, "input_tokens": TokenStats(mean=200)}
    plain = probe(engine, **small).measurements.workload
    tools = probe(engine, tools=generated_tools(4), tool_choice="none", **small)
    assert tools.measurements.requests.by_error == {}
    assert tools.measurements.workload.tools == 4
    assert tools.measurements.workload.mean_input_tokens > plain.mean_input_tokens + 4 * 60

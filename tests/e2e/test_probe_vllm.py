"""``probe`` and real vLLM: the same counts on both sides, in every dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.facts import TokenStats
from qwenhost.probe import ProbeConfig, ProbeResult, run_probe

if TYPE_CHECKING:
    from e2e.conftest import Served

pytestmark = pytest.mark.engine


def probe(engine: Served, **options: object) -> ProbeResult:
    defaults = {
        "concurrency": 4, "requests": 12, "warmup": 2, "output_tokens": TokenStats(mean=24),
        "input_tokens": TokenStats(mean=200), "timeout_s": 120.0,
    }  # fmt: skip
    config = ProbeConfig(url=engine.base_url, api_key=engine.api_key, **(defaults | options))  # type: ignore[arg-type]
    return run_probe(config)


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses", "messages"])
def test_token_counts_are_vllms_own(engine: Served, endpoint: str) -> None:
    """The sums of the records equal the differences of /metrics, to the token."""
    result = probe(engine, endpoint=endpoint)
    measured, counters = result.measurements, result.measurements.engine_counters
    assert measured.requests.by_error == {}
    assert counters["request_success"] == 12
    assert counters["prompt_tokens"] == sum(record.input_tokens for record in result.records)
    assert counters["generation_tokens"] == sum(record.output_tokens for record in result.records)
    assert not any("token counts" in said for said in measured.warnings)


def test_answers_have_exactly_the_wanted_length(engine: Served) -> None:
    """ignore_eos and min_tokens: 24 tokens each; prompts within 15 % of the 200 wanted, by /tokenize."""
    result = probe(engine)
    assert {record.output_tokens for record in result.records} == {24}
    assert result.measurements.workload.mean_input_tokens == pytest.approx(200, rel=0.15)
    assert "/tokenize" in (result.measurements.workload.prompts or "")


def test_no_prompt_is_served_from_the_prefix_cache(engine: Served) -> None:
    """Two runs of the same shape share nothing."""
    probe(engine, input_tokens=TokenStats(mean=900))
    second = probe(engine, input_tokens=TokenStats(mean=900))
    assert second.measurements.engine_counters["prefix_cache_hits"] == 0


def test_thinking_is_told_from_speaking(engine: Served) -> None:
    """Without thinking the first token is visible; with it, this model thinks to the end of its limit."""
    spoken = probe(engine, thinking=False, requests=4).records
    thought = probe(engine, thinking=True, requests=4).records
    assert all(record.first_visible_s == record.first_token_s for record in spoken)
    assert all(record.first_visible_s is None and record.first_token_s is not None for record in thought)


def test_the_server_is_named(engine: Served) -> None:
    """vLLM, its version, its model, and no simulation."""
    server = probe(engine, requests=4).measurements.server
    assert (server.name, server.version, server.simulated) == ("vllm", "0.32.0", False)


def test_an_open_loop_beyond_capacity_shows_the_queue(engine: Served) -> None:
    """30 requests within a second: the last to arrive wait longer for their first token than the first."""
    result = probe(engine, concurrency=None, rate=30.0, arrivals="constant", requests=30)
    by_due = sorted(result.records, key=lambda record: record.scheduled_s)
    waits = [record.ttft_ms or 0.0 for record in by_due]
    assert sum(waits[-5:]) > 2 * sum(waits[:5])
    assert result.measurements.requests.completed == 30

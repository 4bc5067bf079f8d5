"""``probe`` and real vLLM: the same counts on both sides, in every dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.facts import TokenStats
from qwenhost.probe import ProbeConfig, ProbeResult, run_probe

if TYPE_CHECKING:
    from pathlib import Path

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
    long = {"input_tokens": TokenStats(mean=900), "output_tokens": TokenStats(mean=4), "requests": 6}
    probe(engine, **long)
    second = probe(engine, **long)
    assert second.measurements.engine_counters["prefix_cache_hits"] == 0


def test_thinking_is_switched_in_the_prompt(engine: Served, tmp_path: Path) -> None:
    """The template closes <think> at once where thinking is off: the same prompt has more tokens then."""
    prompts = tmp_path / "one.jsonl"
    prompts.write_text('{"prompt": "How long is a token?"}\n')
    on, off = (
        probe(engine, prompts=prompts, thinking=thinking, requests=4).records[0].input_tokens
        for thinking in (True, False)
    )
    assert off > on


def test_the_server_is_named(engine: Served) -> None:
    """vLLM, its version, its model, and no simulation."""
    server = probe(engine, requests=4).measurements.server
    assert (server.name, server.version, server.simulated) == ("vllm", "0.32.0", False)


def test_an_open_loop_beyond_capacity_shows_the_queue(engine: Served) -> None:
    """40 requests within a second, four served at a time: the last wait far longer than the very first."""
    result = probe(engine, concurrency=None, rate=40.0, arrivals="constant", requests=40)
    by_due = sorted(result.records, key=lambda record: record.scheduled_s)
    waits = [record.ttft_ms or 0.0 for record in by_due]
    assert min(waits[-5:]) > 2 * waits[0]
    assert result.measurements.requests.completed == 40

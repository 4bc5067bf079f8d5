"""vLLM's counters as text and as differences."""

from __future__ import annotations

import pytest

from qwenhost.probe.counters import counter_deltas, parse_counters

METRICS = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="q"} 1000.0
vllm:prompt_tokens_total{engine="1",model_name="q"} 500.0
vllm:prompt_tokens_created{engine="0",model_name="q"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="q"} 64.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="q"} 3.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="q"} 1.0
vllm:num_requests_running{engine="0",model_name="q"} 2.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 9.0
vllm:time_to_first_token_seconds_bucket{le="0.1"} 3.0
"""


def test_counters_are_summed_over_engines_and_labels() -> None:
    """1000 + 500 prompt tokens, 3 + 1 requests; gauges, histograms and creation times stay out."""
    assert parse_counters(METRICS) == {
        "prompt_tokens": 1500,
        "generation_tokens": 64,
        "request_success": 4,
    }


def test_what_was_counted_in_between_is_the_difference() -> None:
    """A counter that appeared meanwhile began at zero."""
    before = {"prompt_tokens": 100.0}
    after = {"prompt_tokens": 160.0, "num_preemptions": 2.0}
    assert counter_deltas(before, after) == {"num_preemptions": 2, "prompt_tokens": 60}


def test_acceptance_follows_from_drafts() -> None:
    """10 drafts of 2 tokens, 15 accepted: 75 % of the draft tokens, 2.5 tokens a step."""
    before = dict.fromkeys(
        ("spec_decode_num_drafts", "spec_decode_num_draft_tokens", "spec_decode_num_accepted_tokens"), 0.0
    )
    after = {
        "spec_decode_num_drafts": 10.0,
        "spec_decode_num_draft_tokens": 20.0,
        "spec_decode_num_accepted_tokens": 15.0,
    }
    found = counter_deltas(before, after)
    assert found["spec_decode_acceptance_rate"] == pytest.approx(0.75)
    assert found["spec_decode_acceptance_length"] == pytest.approx(2.5)


def test_a_hit_rate_follows_from_queries() -> None:
    """30 of 120 queried tokens were found."""
    before = {"prefix_cache_queries": 80.0, "prefix_cache_hits": 10.0}
    after = {"prefix_cache_queries": 200.0, "prefix_cache_hits": 40.0}
    assert counter_deltas(before, after)["prefix_cache_hit_rate"] == pytest.approx(0.25)


def test_no_metrics_means_no_counters() -> None:
    """Nothing before, nothing to subtract from."""
    assert counter_deltas({}, {"prompt_tokens": 5.0}) == {}

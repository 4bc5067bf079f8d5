"""Usage files in both dialects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cost_samples import DAY, SONNET

from qwenhost.cost import load_usage, trace_cost
from qwenhost.cost.trace import usage_of_row
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path


def test_openai_counts_cached_tokens_within_the_prompt() -> None:
    """Of 1,000 prompt tokens 600 are cached: 400 are fresh."""
    row = {
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 600},
        }
    }
    usage = usage_of_row(row, "row 1")
    assert (usage.uncached_input_tokens, usage.cache_read_tokens, usage.output_tokens) == (400, 600, 50)


def test_responses_api_rows_are_told_from_anthropic_ones_by_their_details() -> None:
    """``input_tokens_details`` marks OpenAI's Responses API."""
    row = {"input_tokens": 1000, "output_tokens": 50, "input_tokens_details": {"cached_tokens": 600}}
    assert usage_of_row(row, "row 1").uncached_input_tokens == 400


def test_anthropic_counts_cached_tokens_beside_the_input() -> None:
    """400 fresh, 600 read, 200 written of which 150 for an hour, 2 searches, as batch in the US."""
    row = {
        "input_tokens": 400, "output_tokens": 50, "cache_read_input_tokens": 600,
        "cache_creation_input_tokens": 200,
        "cache_creation": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 150},
        "server_tool_use": {"web_search_requests": 2}, "service_tier": "batch", "inference_geo": "us",
    }  # fmt: skip
    usage = usage_of_row(row, "row 1")
    assert usage.prompt_tokens == 1200
    assert (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) == (50, 150)
    assert (usage.web_searches, usage.batch, usage.inference_geo) == (2, True, "us")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no usage rows"),
        ("{]", "line 1: not JSON"),
        ("[{]", "not JSON"),
        ('{"a": 1}', "row 1: no prompt_tokens"),
        ('{"prompt_tokens": 1}\n\n{"prompt_tokens": "x"}', "row 2: prompt_tokens is 'x'"),
        ('{"input_tokens": -5}', "input_tokens is -5"),
        ('{"input_tokens": true}', "input_tokens is True"),
        ("[3]", "row 1: expected an object, got int"),
        ('{"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}', "exceed prompt_tokens"),
    ],
)
def test_a_bad_file_is_refused_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    """The error names file and row."""
    path = tmp_path / "usage.jsonl"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message) as caught:
        load_usage(path)
    assert "usage.jsonl" in caught.value.message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """No traceback for a wrong path."""
    with pytest.raises(BadInputError, match="No such file"):
        load_usage(tmp_path / "none.jsonl")


def test_every_row_of_a_file_is_priced(tmp_path: Path) -> None:
    """1,000 requests of 1,000 in and 100 out cost 4.50 dollars."""
    path = tmp_path / "usage.jsonl"
    path.write_text("\n".join([json.dumps({"input_tokens": 1000, "output_tokens": 100})] * 1000))
    bill = trace_cost(SONNET, load_usage(path), as_of=DAY)
    assert bill.requests == 1000
    assert bill.total.total == pytest.approx(4.50)

"""Ratios counted on the user's own text, in place of the assumed one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from cost_samples import CATALOG, CHAT, DAY, NOON, plan

from qwenhost.cli.main import run
from qwenhost.cost import CompareOptions, Comparison, compare
from qwenhost.token_counts import TokenCounts, TokenizerCount, TokenRatio, token_counts_to_json

if TYPE_CHECKING:
    from pathlib import Path


def counts(*, answers: float | None = None, basis: str = "measured") -> TokenCounts:
    """1.10 (1.05 to 1.20) for prompts."""
    qwen = TokenizerCount(
        model="qwen3.5", name="http://127.0.0.1:8000/tokenize", requests=20, input_tokens=1000,
        basis="measured", date=DAY,
    )  # fmt: skip
    sonnet = msgspec.structs.replace(
        qwen, model="claude-sonnet-4-6", name="count_tokens", input_tokens=1100, basis=basis
    )
    ratio = TokenRatio(value=1.10, low=1.05, high=1.20, interval="bootstrap", requests=20)
    said = None if answers is None else msgspec.structs.replace(ratio, value=answers)
    return TokenCounts(
        sample="mine.jsonl", qwen=qwen, sonnet=sonnet, input_ratio=ratio, output_ratio=said,
        warnings=("the sample holds no tools",),
    )  # fmt: skip


def result(found: TokenCounts | None) -> Comparison:
    """Chat: 1,155 tokens in, 211 out."""
    options = CompareOptions(as_of=DAY, requests_per_day=10_000, token_counts=found)
    return compare(CATALOG, CHAT, plan(), None, options=options, generated_at=NOON)


def test_the_api_is_billed_by_its_own_count() -> None:
    """1,155 x 1.1 x 3 and 211 x 1.1 x 15 micro-dollars; hosted Qwen counts as Qwen."""
    plain, counted = result(None), result(counts())
    assert counted.baseline.usd_per_request == pytest.approx((1155 * 3 + 211 * 15) * 1.1 / 1e6)
    hosted = [line.usd_per_request for line in counted.api if line.kind == "hosted_qwen"]
    assert hosted == [line.usd_per_request for line in plain.api if line.kind == "hosted_qwen"]


def test_answers_have_a_ratio_of_their_own_where_it_was_counted() -> None:
    """1.1 for prompts, 1.3 for answers."""
    counted = result(counts(answers=1.3))
    assert counted.baseline.usd_per_request == pytest.approx((1155 * 1.1 * 3 + 211 * 1.3 * 15) / 1e6)


def test_the_interval_goes_into_the_band_as_measured() -> None:
    """Tornado, band and assumptions: 1.05 to 1.20 in place of the default's range; the sample is named."""
    counted = result(counts())
    row = next(row for row in counted.sensitivity if row.id == "claude_tokens_per_qwen_token")
    assert (row.value, row.low, row.high, row.basis) == (1.10, 1.05, 1.20, "measured")
    assert "mine.jsonl: 20 requests" in row.source
    lines = {line.id: line for line in counted.assumptions}
    line = lines["claude_tokens_per_qwen_token"]
    assert (line.value, line.low, line.high, line.as_of) == (1.10, 1.05, 1.20, "2026-11-23")
    assert "(measured)" in line.statement
    assert lines["token_counts"].statement.endswith("the sample holds no tools")


def test_an_estimated_count_is_no_measurement() -> None:
    """One side assumed makes the ratio assumed."""
    row = next(
        row for row in result(counts(basis="assumed")).sensitivity if row.id == "claude_tokens_per_qwen_token"
    )
    assert row.basis == "assumed"


def test_the_command_takes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And refuses it beside --token-ratio, or where it is another file."""
    file = tmp_path / "counts.json"
    file.write_bytes(token_counts_to_json(counts()))
    words = ["compare", "--gpus", "2xH200", "--as-of", "2026-11-23", "--json"]
    assert run([*words, "--token-counts", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["api"][0]["usage"]["output_tokens"] == pytest.approx(
        found["workload"]["output_tokens"]["mean"] * 1.1
    )
    assert run([*words, "--token-counts", str(file), "--token-ratio", "1.2"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    file.write_text('{"schema": "qwenhost.plan/1"}')
    assert run([*words, "--token-counts", str(file)]) == 2
    assert "expected 'qwenhost.token_counts/1'" in capsys.readouterr().err

"""Token counts: the ratio of two tokenizers and how sure it is."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from qwenhost.errors import BadInputError
from qwenhost.token_counts import (
    TokenCounts,
    TokenizerCount,
    TokenRatio,
    load_token_counts,
    token_counts_to_json,
    token_ratio,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_the_ratio_weighs_requests_by_their_tokens() -> None:
    """100 -> 120 and 900 -> 990: 1110 over 1000, not the mean of 1.2 and 1.1."""
    found = token_ratio([(100, 120), (900, 990)])
    assert found == TokenRatio(value=1.11, low=1.1, high=1.2, interval="range", requests=2)


def test_equal_requests_leave_nothing_to_chance() -> None:
    """Fifty times 10 -> 12."""
    found = token_ratio([(10, 12)] * 50)
    assert (found.value, found.low, found.high) == (1.2, 1.2, 1.2)
    assert found.interval == "bootstrap"


def test_the_bootstrap_is_that_of_a_mean() -> None:
    """Half the requests at 1.0, half at 1.4, 400 of them: 1.2 -+ 1.96 * 0.2 / sqrt(400) = 0.0196."""
    found = token_ratio([(10, 10), (10, 14)] * 200)
    assert found.value == pytest.approx(1.2)
    assert found.low == pytest.approx(1.2 - 0.0196, abs=0.004)
    assert found.high == pytest.approx(1.2 + 0.0196, abs=0.004)


@pytest.mark.parametrize("pairs", [[], [(0, 3)], [(3, 0)]])
def test_nothing_counted_has_no_ratio(pairs: list[tuple[int, int]]) -> None:
    """No request, or a tokenizer that made nothing of one."""
    with pytest.raises(ValueError, match="at least one token"):
        token_ratio(pairs)


def test_counts_survive_their_file(tmp_path: Path) -> None:
    """And another document is refused."""
    one = TokenizerCount(
        model="qwen", name="/tokenize", requests=2, input_tokens=1000, basis="measured",
        date=dt.date(2026, 11, 23),
    )  # fmt: skip
    counts = TokenCounts(
        sample="mine.jsonl", qwen=one, sonnet=one, input_ratio=token_ratio([(100, 120), (900, 990)])
    )
    file = tmp_path / "counts.json"
    file.write_bytes(token_counts_to_json(counts))
    assert load_token_counts(file) == counts
    file.write_text('{"schema": "qwenhost.plan/1"}')
    with pytest.raises(BadInputError, match=r"expected 'qwenhost\.token_counts/1'"):
        load_token_counts(file)

"""Recorded traffic as load: its instants, its sizes, and what its prompts share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.errors import BadInputError
from qwenhost.probe.content import TextPool, TokenFit
from qwenhost.probe.replay import TracePrompts, read_replay
from qwenhost.traces import TracedRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.probe import ProbeResult

    Measure = Callable[..., ProbeResult]

POOL = TextPool(1)
ONE_TOKEN_A_WORD = TokenFit(per_prompt=0, per_word=1)


def trace(path: Path, *rows: dict[str, Any]) -> Path:
    file = path / "trace.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def row(at: float, tokens: int = 50, out: int = 4, **more: Any) -> dict[str, Any]:
    return {"arrival_s": at, "input_tokens": tokens, "output_tokens": out, **more}


def texts(*requests: TracedRequest, seed: int = 1, **options: Any) -> list[str]:
    prompts = TracePrompts(requests, fit=ONE_TOKEN_A_WORD, seed=seed, pool=POOL, **options)
    return [prompts[index].text for index in range(len(requests))]


def common(first: str, second: str) -> int:
    """Words that two prompts begin with alike."""
    count = 0
    for one, other in zip(first.split(), second.split(), strict=False):
        if one != other:
            break
        count += 1
    return count


def test_instants_are_kept_and_scaled(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """Recorded at 100, 101 and 103 s; four times as fast: due at 0, 0.25 and 0.75 s."""
    file = trace(tmp_path, row(100), row(101, out=2), row(103, out=6))
    result = measure(truth.url(), trace=file, trace_scale=4.0, concurrency=None, requests=None)
    by_index = sorted(result.records, key=lambda record: record.index)
    assert [r.scheduled_s for r in by_index] == pytest.approx([0.0, 0.25, 0.75])
    assert [r.output_tokens for r in by_index] == [4, 2, 6]
    assert result.measurements.load.kind == "open"
    assert result.measurements.load.arrivals == "trace x 4"


def test_a_closed_loop_takes_the_sizes_alone(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """A trace of an hour is over at once, and sent once."""
    file = trace(tmp_path, *(row(600.0 * i, out=1 + i) for i in range(7)))
    result = measure(truth.url(), trace=file, concurrency=2, requests=None)
    assert sorted(r.output_tokens for r in result.records) == [1, 2, 3, 4, 5, 6, 7]


def test_a_sessions_next_request_waits_for_the_answer(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """Recorded 10 ms apart, answered after 100: the second is due when the first has ended, not before."""
    file = trace(tmp_path, row(0, session="a"), row(0.01, session="a"), row(0.02, session="b"))
    url = truth.url("ttft=0.1")
    result = measure(url, trace=file, concurrency=None, requests=None)
    first, second, other = sorted(result.records, key=lambda record: record.index)
    assert second.scheduled_s >= (first.last_s or 9)
    assert other.scheduled_s == pytest.approx(0.02)
    assert [(r.session, r.turn) for r in (first, second, other)] == [(0, 0), (0, 1), (1, 0)]


def test_requests_beyond_the_context_are_left_out_and_told(
    truth: Any, measure: Measure, tmp_path: Path
) -> None:
    """The truth server holds 4096 tokens."""
    file = trace(tmp_path, row(0), row(0.1, tokens=5000))
    result = measure(truth.url(), trace=file, concurrency=None, requests=None)
    assert len(result.records) == 1
    assert any("1 requests of the trace exceed" in said for said in result.measurements.warnings)


def test_a_trace_of_giants_is_refused(tmp_path: Path) -> None:
    """Nothing of it can be sent."""
    file = trace(tmp_path, row(0, tokens=5000))
    with pytest.raises(BadInputError, match="4,096 tokens"):
        read_replay(file, scale=1, most=None, until_s=None, context=4096)


def test_equal_blocks_are_equal_text() -> None:
    """Mooncake: ids 1 2 3 and 1 2 4 share two blocks of 512 tokens; 5 6 7 shares none."""
    first, second, third = texts(
        TracedRequest(0, 1400, 5, hash_ids=(1, 2, 3)),
        TracedRequest(1, 1400, 5, hash_ids=(1, 2, 4)),
        TracedRequest(2, 1400, 5, hash_ids=(5, 6, 7)),
    )
    run_mark = 1
    assert 2 * 500 < common(first, second) - run_mark < 2 * 512
    assert common(first, third) == run_mark
    assert len(first.split()) == pytest.approx(1400, rel=0.02)


def test_a_sessions_longer_prompt_begins_with_the_shorter() -> None:
    """100, 160 and, after its history was compacted, 80 tokens; another session shares nothing."""
    first, second, third, other = texts(
        TracedRequest(0, 100, 5, session="a"),
        TracedRequest(1, 160, 5, session="a"),
        TracedRequest(2, 80, 5, session="a"),
        TracedRequest(3, 160, 5, session="b"),
    )
    assert second.startswith(first)
    assert len(second.split()) - len(first.split()) == 60
    assert third
    assert common(second, other) == 1


def test_recorded_cache_reads_are_what_prompts_share() -> None:
    """60 of 100 tokens were read from the cache: so many begin like the session's last prompt."""
    first, second = texts(
        TracedRequest(0, 80, 5, session="a"), TracedRequest(1, 100, 5, cached_tokens=60, session="a")
    )
    assert common(first, second) == 2 + 60  # Marks of the run and of the session before them.


def test_runs_share_nothing_unless_asked_to() -> None:
    """The mark of a run opens each prompt; without it, the same seed repeats the same texts."""
    request = TracedRequest(0, 50, 5, hash_ids=(1,))
    assert common(texts(request, seed=1)[0], texts(request, seed=2)[0]) == 0
    assert texts(request, unique=False) == texts(request, unique=False)

"""Sessions: their order, their growing prompts, the answers in them, and the sizes they are planned with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.facts import TokenStats
from qwenhost.probe.talk import session_sizes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.probe import ProbeResult

    Measure = Callable[..., ProbeResult]

TALK: dict[str, Any] = {"turns": 3, "input_tokens": TokenStats(mean=200), "output": 5}


def bodies(truth: Any) -> dict[int, Any]:
    """What was sent, by index."""
    told = truth.told().items()
    return {
        int(name.rsplit("-", 1)[-1]): entry["body"] for name, entry in told if name.startswith("qwenhost-")
    }


def test_each_turn_holds_the_answer_to_the_one_before(truth: Any, measure: Measure) -> None:
    """Turn 2 is turn 1, " word" five times, and a further question."""
    truth.told()
    measure(truth.url("log=body"), concurrency=1, requests=3, **TALK)
    first, second, third = (body for _, body in sorted(bodies(truth).items()))
    assert [len(body["messages"]) for body in (first, second, third)] == [1, 3, 5]
    assert second["messages"][0] == first["messages"][0]
    assert second["messages"][1] == {"role": "assistant", "content": " word" * 5}
    assert third["messages"][:3] == second["messages"]
    assert third["messages"][4]["role"] == "user"


@pytest.mark.parametrize("load", [{"concurrency": 3}, {"rate": 30.0}])
def test_a_turn_waits_for_the_answer_and_the_thought(
    truth: Any, measure: Measure, load: dict[str, Any]
) -> None:
    """Never due before the last byte of the answer before, and on average 50 ms later."""
    url = truth.url("ttft=0.02,itl=0.002")
    result = measure(url, requests=60, think_time_s=0.05, seed=3, **load, **TALK)
    ends = {(r.session, r.turn): r.last_s or 0.0 for r in result.records}
    pauses = [r.scheduled_s - ends[r.session, r.turn - 1] for r in result.records if r.turn]
    assert result.measurements.requests.completed == 60
    assert len(pauses) == 40
    assert min(pauses) > 0
    assert sum(pauses) / len(pauses) > 0.04


def test_a_rate_of_requests_starts_a_third_as_many_sessions(truth: Any, measure: Measure) -> None:
    """20 requests a second in sessions of three, for 3 s: 20 sessions, the k-th due after k * 0.15 s."""
    result = measure(truth.url(), rate=20.0, arrivals="constant", duration_s=3.0, **TALK)
    starts = sorted(r.scheduled_s for r in result.records if r.turn == 0)
    assert len(starts) == 20
    assert starts[10] == pytest.approx(1.5, abs=0.001)
    assert len(result.records) == 60


def test_sessions_are_not_cut_short(truth: Any, measure: Measure) -> None:
    """Ten requests in sessions of three: four whole ones, so that the mean prompt is the one asked for."""
    result = measure(truth.url(), concurrency=2, requests=10, **TALK)
    assert sorted((r.session, r.turn) for r in result.records) == [
        (session, turn) for session in range(4) for turn in range(3)
    ]


def test_what_is_repeated_is_counted(truth: Any, measure: Measure) -> None:
    """The server's own prompt counts p1 < p2 < p3: (p1 + p2) of (p1 + p2 + p3)."""
    result = measure(truth.url(), concurrency=1, requests=3, **TALK)
    p1, p2, p3 = sorted(r.input_tokens for r in result.records)
    found = result.measurements.sessions
    assert found is not None
    assert found.sessions == 1
    assert found.repeated_share == pytest.approx((p1 + p2) / (p1 + p2 + p3))
    assert found.cached_share == pytest.approx(9 / (p1 + p2 + p3))  # The truth server says 3 each time.


def test_a_session_ends_with_a_failure_and_the_run_goes_on(truth: Any, measure: Measure) -> None:
    """Every request whose index is divisible by 4 fails: no turn follows one, others begin."""
    result = measure(truth.url("fault=cut_stream,every=4"), concurrency=2, requests=30, **TALK)
    failed = {(r.session, r.turn) for r in result.records if not r.ok}
    sent = {(r.session, r.turn) for r in result.records}
    assert len({r.session for r in result.records}) == 10  # As many sessions as 30 requests make.
    assert failed
    assert not any((session, turn + 1) in sent for session, turn in failed if turn is not None)


def test_calls_of_tools_are_answered_with_results(truth: Any, measure: Measure) -> None:
    """Two calls in the answer, two results after it, under the calls' ids."""
    truth.told()
    result = measure(truth.url("log=body,calls=2"), concurrency=1, requests=2, **TALK)
    sent = bodies(truth)[1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [message["tool_call_id"] for message in sent[2:]] == ["call_0", "call_1"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "read_file", "arguments": '{"id": "1"}'}
    assert [r.tool_calls for r in result.records] == [2, 2, 2]


@pytest.mark.parametrize("endpoint", ["messages", "responses"])
def test_answers_come_back_in_every_dialect(truth: Any, measure: Measure, endpoint: str) -> None:
    """With calls of tools in the dialect's own form."""
    truth.told()
    result = measure(truth.url("log=body,calls=1"), concurrency=1, requests=2, endpoint=endpoint, **TALK)
    assert [r.error for r in result.records] == [None, None, None]
    body = bodies(truth)[1]
    if endpoint == "messages":
        said, results = body["messages"][1:]
        assert said["content"][-1] == {"type": "tool_use", "id": "call_0", "name": "read_file", "input": {}}
        assert results["content"][0]["tool_use_id"] == "call_0"
    else:
        kinds = [item.get("type") or item["role"] for item in body["input"]]
        assert kinds == ["user", "assistant", "function_call", "function_call_output"]


def test_own_conversations_are_played_turn_by_turn(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """The user's sentences of a ShareGPT file, the model's own answers between them."""
    file = tmp_path / "shared.json"
    file.write_text(
        '[{"conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "1234567890123456"},'
        '{"from": "human", "value": "two"}]}]'
    )
    truth.told()
    result = measure(truth.url("log=body"), concurrency=1, requests=2, prompts=file, turns=9)
    first, second = (body for _, body in sorted(bodies(truth).items()))
    assert first["messages"][0]["content"].endswith("] one")
    assert first["max_completion_tokens"] == 4  # Of sixteen recorded characters.
    assert [message["content"] for message in second["messages"][1:]] == [" word" * 4, "two"]
    assert result.measurements.workload.prompts is not None
    assert "conversations of" in result.measurements.workload.prompts


def test_sizes_keep_the_mean() -> None:
    """Three turns, mean 1000, answers of 100: further questions as long as the first."""
    sizes = session_sizes(1000, 100, 3, None)
    prompts = [sizes.first + turn * sizes.growth for turn in range(3)]
    assert sum(prompts) / 3 == pytest.approx(1000)
    assert sizes.growth - 100 - 12 == pytest.approx(sizes.first)
    assert sizes.hit == pytest.approx((prompts[0] + prompts[1]) / sum(prompts))


@given(st.integers(2, 12), st.floats(5_000, 50_000), st.floats(0.05, 1.0))
def test_a_wanted_share_is_the_share_that_was_seen_before(turns: int, mean: float, new: float) -> None:
    """Prompts before and a common beginning, over all prompt tokens."""
    share = (turns - 2 + new) / turns
    sizes = session_sizes(mean, 4, turns, share)
    prompts = [sizes.first + turn * sizes.growth for turn in range(turns)]
    assert sum(prompts) / turns == pytest.approx(mean)
    assert (sum(prompts[:-1]) + sizes.shared) / sum(prompts) == pytest.approx(share, abs=0.006)
    assert sizes.shared <= 0.9 * sizes.first + 1e-6


def test_an_impossible_share_names_the_possible_ones() -> None:
    """Three turns of which at most half the last prompt is new cannot repeat a tenth only."""
    with pytest.raises(BadInputError) as caught:
        session_sizes(1000, 50, 3, 0.1)
    assert "0.34 to 0.92" in str(caught.value.remedy)

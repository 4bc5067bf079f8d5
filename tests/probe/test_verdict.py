"""When a run may not be used, and what is said about one that may."""

from __future__ import annotations

from typing import Any

import pytest

from qwenhost.measurements import RequestRecord
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.totals import Totals
from qwenhost.probe.verdict import void_reason, warnings

CALM = LoopLag(p95_ms=0.1, p99_ms=0.2, max_ms=1, busy_share=0.1)


def record(index: int, *, lag_s: float = 0.0, **more: Any) -> RequestRecord:
    """Due every 10 ms; TTFT 50 ms."""
    due = index * 0.01
    values: dict[str, Any] = {
        "index": index, "scheduled_s": due, "sent_s": due + lag_s, "first_token_s": due + 0.05,
        "last_s": due + 0.1, "token_times_s": (due + 0.05, due + 0.1), "input_tokens": 10, "output_tokens": 2,
    }  # fmt: skip
    return RequestRecord(**(values | more))


def judge(records: list[RequestRecord], **more: Any) -> str | None:
    options: dict[str, Any] = {"open_loop": True, "lag": CALM, "counters": {}}
    return void_reason(records, Totals.of(records), **(options | more))


def warn(records: list[RequestRecord], **more: Any) -> list[str]:
    options: dict[str, Any] = {"lag": CALM, "counters": {}, "wanted_output": None, "interrupted": None}
    return warnings(Totals.of(records), **(options | more))


GOOD = [record(i) for i in range(100)]


def test_a_calm_run_stands() -> None:
    """Nothing was late, nothing is said."""
    assert judge(GOOD) is None
    assert warn(GOOD) == []


def test_an_open_loop_that_sent_late_is_void() -> None:
    """One in a hundred may be late, and two in any run; three of a hundred, 40 ms each, are too many."""
    assert judge([record(i, lag_s=0.04 if i < 2 else 0) for i in range(100)]) is None
    reason = judge([record(i, lag_s=0.04 if i < 3 else 0) for i in range(100)])
    assert reason == "the client sent 3 of 100 requests more than 5.0 ms late"


def test_a_closed_loop_bears_five_late_sends_in_a_hundred_but_not_six() -> None:
    """Each slot's pace is its own."""
    assert judge([record(i, lag_s=0.04 if i < 5 else 0) for i in range(100)], open_loop=False) is None
    reason = judge([record(i, lag_s=0.04 if i < 6 else 0) for i in range(100)], open_loop=False)
    assert reason == "the client sent 6 of 100 requests more than 5.0 ms late"


def test_a_slow_server_makes_lag_matter_less() -> None:
    """With a TTFT of 2 s a lag of 40 ms is 2 %, and 5 % are allowed."""
    slow = [record(i, lag_s=0.04, first_token_s=i * 0.01 + 2) for i in range(100)]
    assert judge(slow) is None


def test_a_rate_that_was_not_delivered_is_void() -> None:
    """Each of 200 sends 1 ms later than the last: 1.99 s of schedule took 2.19 s; no lag above 5 % of 5 s."""
    slow = [record(i, lag_s=i * 0.001, first_token_s=i * 0.01 + 5) for i in range(200)]
    assert judge(slow) == "the client delivered 91% of the offered rate, allowed 95%"


def test_a_busy_client_is_void() -> None:
    """95 % busy is saturated; reading 30 ms late at p95 is a bottleneck."""
    busy = judge(GOOD, lag=LoopLag(p95_ms=1, p99_ms=1, max_ms=1, busy_share=0.95))
    assert busy is not None
    assert "saturated" in busy
    late = judge(GOOD, lag=LoopLag(p95_ms=30, p99_ms=50, max_ms=60, busy_share=0.5))
    assert late is not None
    assert "p95 loop lag 30.0 ms" in late


def waiting(share: float, wait_ms: float) -> LoopLag:
    return LoopLag(p95_ms=1, p99_ms=1, max_ms=1, busy_share=0.1, cpu_wait_share=share, cpu_wait_ms=wait_ms)


def test_a_client_that_others_kept_from_the_cores_is_void() -> None:
    """Half the time without a core; or a twentieth in waits longer than a stamp may be late (10 ms)."""
    starved = judge(GOOD, lag=waiting(0.51, 0.1))
    assert starved == "others held this machine: the client was without a core for 51% of the time"
    reason = judge(GOOD, lag=waiting(0.06, 10.5))
    assert reason is not None
    assert "6% of the time, 10.5 ms at a time, allowed 10.0 ms" in reason
    assert judge(GOOD, lag=waiting(0.49, 9.5)) is None
    assert judge(GOOD, lag=waiting(0.04, 30)) is None


def test_a_pause_of_the_machine_is_said() -> None:
    """p99 alone is a warning."""
    lag = LoopLag(p95_ms=1, p99_ms=50, max_ms=60, busy_share=0.5)
    assert judge(GOOD, lag=lag) is None
    assert warn(GOOD, lag=lag) == ["this machine paused: the highest percentiles may be 50 ms too high"]


def test_a_run_without_success_is_void() -> None:
    """It names what went wrong."""
    reason = judge([record(0, error="refused"), record(1, error="http_503")])
    assert reason == "no request succeeded (http_503, refused)"
    assert judge([]) == "no request was sent"


def test_running_out_of_descriptors_is_void() -> None:
    """The client's limit says nothing about the server."""
    reason = judge([*GOOD, record(100, error="client_limit")])
    assert reason is not None
    assert "ulimit" in reason


def test_counts_that_disagree_are_void_when_nobody_else_was_there() -> None:
    """100 requests of 2 tokens are 200; the engine counted 300."""
    counters = {"request_success": 100.0, "prompt_tokens": 1000.0, "generation_tokens": 300.0}
    reason = judge(GOOD, counters=counters)
    assert reason == "token counts disagree: generation_tokens: /metrics 300, usage 200"


def test_counts_that_agree_are_silent() -> None:
    """200 and 200, 1000 and 1000."""
    counters = {"request_success": 100.0, "prompt_tokens": 1000.0, "generation_tokens": 200.0}
    assert judge(GOOD, counters=counters) is None
    assert warn(GOOD, counters=counters) == []


def test_other_users_are_a_warning_not_a_disagreement() -> None:
    """The engine finished 150 requests, we sent 100."""
    counters = {"request_success": 150.0, "prompt_tokens": 1500.0, "generation_tokens": 300.0}
    assert judge(GOOD, counters=counters) is None
    assert "others used the server" in warn(GOOD, counters=counters)[0]


@pytest.mark.parametrize(
    ("records", "options", "said"),
    [
        (GOOD, {"wanted_output": 10.0}, "answers averaged 2 tokens where 10 were asked for"),
        (GOOD, {"interrupted": 4}, "interrupted; 4 requests in flight were dropped"),
        ([record(0, input_tokens=0)], {}, "reported no usage"),
        ([*GOOD, record(100, error="timeout")], {}, "1 of 101 requests failed"),
    ],
)
def test_what_a_reader_should_know_is_said(
    records: list[RequestRecord], options: dict[str, Any], said: str
) -> None:
    """One line each."""
    assert said in warn(records, **options)[0]

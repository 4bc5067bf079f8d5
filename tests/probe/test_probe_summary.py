"""Figures from hand-made records."""

from __future__ import annotations

from typing import Any

import pytest

from qwenhost.facts import Slo
from qwenhost.measurements import RequestRecord
from qwenhost.probe.summary import (
    Latencies,
    Window,
    goodput_in,
    latencies,
    rate_window,
    rates,
    request_counts,
)
from qwenhost.probe.totals import Totals


def record(index: int, due: float, first: float, gap: float, tokens: int, **more: Any) -> RequestRecord:
    """A request whose tokens come at ``first``, ``first + gap``..."""
    times = tuple(first + i * gap for i in range(tokens))
    values: dict[str, Any] = {
        "index": index, "scheduled_s": due, "sent_s": due, "first_token_s": first, "first_visible_s": first,
        "last_s": times[-1], "token_times_s": times, "input_tokens": 10, "output_tokens": tokens,
    }  # fmt: skip
    return RequestRecord(**(values | more))


def failed(index: int, due: float, error: str) -> RequestRecord:
    return RequestRecord(index=index, scheduled_s=due, sent_s=due, error=error)


def waves(n: int) -> list[RequestRecord]:
    """One at a time: request i is due at i, first token 0.5 s later, five tokens 0.1 s apart."""
    return [record(i, due=i, first=i + 0.5, gap=0.1, tokens=5) for i in range(n)]


def figures(records: list[RequestRecord]) -> Latencies:
    return latencies(records, Totals.of(records))


def test_latency_counts_from_the_due_time() -> None:
    """Due at 0, sent at 0.3, first token at 0.5: the user waited 500 ms."""
    times = figures([record(0, due=0, first=0.5, gap=0.1, tokens=5, sent_s=0.3)])
    assert times.ttft_ms.p50 == pytest.approx(500)
    assert times.e2e_ms.p50 == pytest.approx(900)
    assert times.send_lag_ms.max == pytest.approx(300)


def test_tpot_divides_by_tokens_and_itl_pools_gaps() -> None:
    """Five chunks 0.1 s apart that hold 9 tokens: ITL 100 ms, TPOT 400 / 8 = 50 ms, 1.8 tokens a chunk."""
    times = figures([record(0, due=0, first=0.5, gap=0.1, tokens=5, output_tokens=9)])
    assert times.itl_ms.p50 == pytest.approx(100)
    assert times.tpot_ms.p50 == pytest.approx(50)
    assert times.tokens_per_chunk == pytest.approx(1.8)


def test_itl_is_over_all_gaps_not_over_requests() -> None:
    """Nine gaps of 10 ms in one request and one of 1000 ms in another: the mean is 109 ms."""
    both = [record(0, due=0, first=1, gap=0.01, tokens=10), record(1, due=0, first=1, gap=1, tokens=2)]
    assert figures(both).itl_ms.mean == pytest.approx((9 * 10 + 1000) / 10)


def test_failed_requests_have_no_latency_but_count() -> None:
    """Two of three failed, each for its own reason."""
    records = [*waves(1), failed(1, 1, "refused"), failed(2, 2, "http_503")]
    assert figures(records).ttft_ms.p50 == pytest.approx(500)
    counts = request_counts(Totals.of(records))
    assert (counts.sent, counts.completed, counts.failed) == (3, 1, 2)
    assert counts.by_error == {"refused": 1, "http_503": 1}


def test_the_run_lasts_from_first_due_time_to_last_token() -> None:
    """Five requests a second apart, the last token 0.9 s after the last due time."""
    assert Totals.of(waves(5)).duration_s == pytest.approx(4.9)


def test_the_steady_part_is_first_completion_to_last_send() -> None:
    """0.9 to 4.0 of 4.9 s."""
    window = rate_window(Totals.of(waves(5)))
    assert (window.start_s, window.end_s) == pytest.approx((0.9, 4))
    assert window.kind == "steady"


def test_the_steady_part_waits_for_the_whole_load() -> None:
    """Slots that opened over two seconds: 2.0 to 4.0."""
    assert rate_window(Totals.of(waves(5)), not_before_s=2).start_s == 2


def test_a_short_steady_part_gives_way_to_the_whole_run() -> None:
    """Two requests at once never had a steady part."""
    both = [record(i, due=0, first=0.5, gap=0.1, tokens=5) for i in range(2)]
    window = rate_window(Totals.of(both))
    assert (window.start_s, window.end_s) == pytest.approx((0, 0.9))
    assert window.kind == "whole"


def test_rates_count_requests_by_the_share_of_their_chunks_inside() -> None:
    """Window 1.0 to 2.0 holds request 1 (five tokens at 1.5 to 1.9): 1 request, 10 in, 5 out a second."""
    found = rates(waves(3), Window(start_s=1, end_s=2, kind="steady"))
    assert (found.requests, found.input_tokens, found.output_tokens) == (1, 10, 5)


def test_half_of_a_request_inside_counts_half() -> None:
    """Two of four tokens by 1.0: half a request in one second."""
    one = [record(0, due=0, first=0.5, gap=0.4, tokens=4)]
    assert rates(one, Window(start_s=0, end_s=1, kind="whole")).requests == 0.5


def test_failed_requests_add_nothing_to_rates() -> None:
    """Tokens of a stream that was cut are not throughput."""
    cut = record(0, due=0, first=0.5, gap=0.1, tokens=5, error="cut_stream")
    assert rates([cut], Window(start_s=0, end_s=1, kind="whole")).output_tokens == 0


def test_goodput_is_the_part_within_every_limit() -> None:
    """TTFT 500 ms and 800 ms against a limit of 600: one of three, the third having failed."""
    records = [
        record(0, due=0, first=0.5, gap=0.01, tokens=5),
        record(1, due=0, first=0.8, gap=0.01, tokens=5),
        failed(2, 0, "timeout"),
    ]
    found = goodput_in(records, Slo(ttft_ms=600, tpot_ms=50), Window(start_s=0, end_s=1, kind="whole"))
    assert found.fraction == pytest.approx(1 / 3)
    assert found.requests_per_s == 1
    assert found.output_tokens_per_s == 5


def test_nothing_gives_nothing() -> None:
    """An empty run has no figures and no crash."""
    assert figures([]).ttft_ms.p50 is None
    assert rates([], rate_window(Totals())).requests == 0
    assert Totals().duration_s == 0

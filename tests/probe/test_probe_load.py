"""Whole runs: shapes of load, interruption, records, warm-up, many streams."""

from __future__ import annotations

import os
import resource
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo
from qwenhost.probe import ProbeConfig, ProbeResult, Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Measure = Callable[..., ProbeResult]


def test_a_closed_loop_keeps_its_number_in_flight(truth: Any, measure: Measure) -> None:
    """Three slots: never more than three requests between sending and last token, and nearly always three."""
    result = measure(truth.url("ttft=0.1,itl=0.01"), concurrency=3, requests=15, output=10)
    spans = [(r.sent_s, r.last_s or 0.0) for r in result.records]
    at_starts = [sum(a <= start < b for a, b in spans) for start, _ in spans]
    assert max(at_starts) == 3
    assert sum(b - a for a, b in spans) / result.measurements.load.duration_s > 2.5
    assert result.measurements.load.kind == "closed"


def test_an_open_loop_never_caps_what_is_in_flight(truth: Any, measure: Measure) -> None:
    """100 a second against answers of a second: all 50 are in flight at once."""
    result = measure(truth.url("ttft=1"), rate=100.0, arrivals="constant", requests=50, output=1)
    assert result.measurements.requests.completed == 50
    last_sent = max(record.sent_s for record in result.records)
    assert min(record.last_s or 0.0 for record in result.records) > last_sent


def test_an_open_loop_follows_its_schedule(truth: Any, measure: Measure) -> None:
    """Constant 50 a second: due at multiples of 20 ms, whatever was sent when."""
    result = measure(truth.url(), rate=50.0, arrivals="constant", requests=10)
    due = sorted(record.scheduled_s for record in result.records)
    assert due == pytest.approx([i * 0.02 for i in range(10)], abs=1e-6)


def test_a_duration_ends_a_closed_loop(truth: Any, measure: Measure) -> None:
    """Nothing is sent after half a second; what is in flight is waited for."""
    result = measure(truth.url("ttft=0.05,itl=0.01"), duration_s=0.5, output=5)
    assert max(record.sent_s for record in result.records) < 0.55
    assert result.measurements.requests.failed == 0
    assert result.measurements.requests.sent > 8


def test_warm_up_is_discarded_from_everything(truth: Any, measure: Measure) -> None:
    """Five warm-up requests are in no figure, record or counter difference."""
    truth.told()
    result = measure(truth.url(), warmup=5, requests=6, output=4)
    ids = [name for name in truth.told() if name.startswith("qwenhost-")]
    assert len(ids) == 11
    assert result.measurements.requests.sent == len(result.records) == 6
    assert result.measurements.engine_counters["request_success"] == 6
    assert result.measurements.load.warmup_requests == 5


def test_connections_are_reused(truth: Any, measure: Measure) -> None:
    """Two slots and twenty requests: the server sees two connections carry them."""
    truth.told()
    result = measure(truth.url(), concurrency=2, requests=20)
    told = truth.told()
    seed = result.measurements.workload.seed
    assert len({told[f"qwenhost-{seed:x}-{i}"]["peer"] for i in range(20)}) == 2


def test_a_file_that_cannot_be_written_stops_before_the_load(
    truth: Any, measure: Measure, tmp_path: Path
) -> None:
    """Not after an hour of measuring."""
    with pytest.raises(BadInputError, match="records"):
        measure(truth.url(), records=tmp_path / "none" / "records.jsonl")


def test_an_interruption_keeps_what_there_is(truth: Any, measure: Measure) -> None:
    """Ctrl-C in the middle: no more is sent, finished requests count, those in flight are dropped."""

    def interrupt_after_some(progress: Progress) -> None:
        if progress.completed >= 8:
            os.kill(os.getpid(), signal.SIGINT)

    result = measure(
        truth.url("ttft=0.02,itl=0.01,fault=hang,every=11"), concurrency=4, requests=1000, output=5,
        on_progress=interrupt_after_some,
    )  # fmt: skip
    measured = result.measurements
    assert measured.interrupted
    assert 8 <= measured.requests.completed < 1000
    assert measured.requests.failed == 0
    assert any("dropped" in said for said in measured.warnings)
    assert sum(record.error == "interrupted" for record in result.records) >= 1
    assert measured.requests.sent == measured.requests.completed


def test_a_run_works_outside_the_main_thread(truth: Any, measure: Measure) -> None:
    """Compare runs it beside a supervisor."""
    found: list[ProbeResult] = []
    thread = threading.Thread(target=lambda: found.append(measure(truth.url(), requests=3)))
    thread.start()
    thread.join()
    assert found[0].measurements.requests.completed == 3


def test_goodput_needs_an_slo(truth: Any, measure: Measure) -> None:
    """With a TTFT of 50 ms a limit of 20 ms is kept by none, one of 500 ms by all."""
    url = truth.url("ttft=0.05")
    strict = measure(url, slo=Slo(ttft_ms=20)).measurements.goodput
    easy = measure(url, slo=Slo(ttft_ms=500)).measurements.goodput
    assert strict is not None
    assert easy is not None
    assert (strict.fraction, easy.fraction) == (0, 1)
    assert measure(url).measurements.goodput is None


def test_several_tokens_in_a_chunk_are_told_from_chunks(truth: Any, measure: Measure) -> None:
    """The server counts 12 tokens in 4 chunks, as with speculative decoding."""
    result = measure(truth.url("itl=0.02,tokens=4,counted=12"), requests=4)
    assert {record.output_tokens for record in result.records} == {12}
    assert result.measurements.tokens_per_chunk == 3
    tpot, itl = result.measurements.tpot_ms.p50, result.measurements.itl_ms.p50
    assert tpot is not None
    assert itl is not None
    assert itl / tpot == pytest.approx(11 / 3, rel=0.2)


def test_a_thousand_streams_are_open_at_once(truth: Any, measure: Measure) -> None:
    """1,000 streams whose first token comes after all are sent; none fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1500
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    result = measure(truth.url("ttft=2,quiet=1"), concurrency=1000, requests=1000, output=2)
    assert result.measurements.requests.by_error == {}
    assert result.measurements.requests.completed == 1000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "exactly one of --concurrency and --rate"),
        ({"concurrency": 1, "rate": 1.0}, "exactly one of --concurrency and --rate"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"rate": 1.0, "prefix_hit": 1.5}, "prefix_hit is 1.5"),
        ({"rate": 1.0, "duration_s": 0.0}, "duration_s is 0"),
    ],
)
def test_what_cannot_be_run_is_refused(options: dict[str, Any], said: str) -> None:
    """Before anything is sent."""
    with pytest.raises(BadInputError, match=said):
        ProbeConfig(url="http://h", **options).check()


def test_defaults_scale_with_the_load() -> None:
    """Ten waves of a closed loop, at least 20 and at most 1000 requests; 30 s of an open one."""
    assert ProbeConfig(url="h", concurrency=1).planned_requests == 20
    assert ProbeConfig(url="h", concurrency=64).planned_requests == 640
    assert ProbeConfig(url="h", concurrency=10_000).planned_requests == 10_000
    assert ProbeConfig(url="h", rate=2.0).planned_requests is None
    assert ProbeConfig(url="h", rate=2.0).planned_duration_s == 30
    assert ProbeConfig(url="h", concurrency=64).warmup_requests == 16
    assert ProbeConfig(url="h", concurrency=64, warmup=0).warmup_requests == 0

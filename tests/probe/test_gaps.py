"""Figures of records whose token times were not kept."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from qwenhost.measurements import RequestRecord, percentiles
from qwenhost.probe.gaps import GapHistogram
from qwenhost.probe.store import RecordStore
from qwenhost.probe.summary import Window, latencies, rates
from qwenhost.probe.totals import Totals


def record(index: int, gaps_s: list[float]) -> RequestRecord:
    times = [float(index)]
    for gap in gaps_s:
        times.append(times[-1] + gap)
    return RequestRecord(
        index=index, scheduled_s=index - 0.5, sent_s=index - 0.5, first_token_s=times[0], last_s=times[-1],
        token_times_s=tuple(times), input_tokens=7, output_tokens=len(times),
    )  # fmt: skip


def test_percentiles_are_within_half_a_percent() -> None:
    """50,000 lognormal gaps, against the sorted sample; the mean is exact."""
    draw = random.Random(3)  # noqa: S311 - a model of chance
    sample = [draw.lognormvariate(3, 1) for _ in range(50_000)]
    histogram = GapHistogram()
    histogram.add_gaps(sample)
    found, true = histogram.percentiles(), percentiles(sample)
    assert found.mean == pytest.approx(true.mean)
    for name in ("p50", "p90", "p95", "p99"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.0052)


def test_gaps_of_nothing_are_zero() -> None:
    """Chunks that came together: six of ten gaps are 0 ms, so the median is."""
    histogram = GapHistogram()
    histogram.add_gaps([0.0] * 6 + [20.0] * 4)
    assert histogram.percentiles().p50 == 0
    assert histogram.percentiles().p90 == pytest.approx(20, rel=0.005)


def test_dropping_token_times_hardly_changes_a_run() -> None:
    """Of 40 requests of 50 even gaps each the first ten keep their times: the same ITL, TTFT and rates."""
    draw = random.Random(4)  # noqa: S311 - a model of chance
    full = [record(i, [draw.uniform(0.019, 0.021) for _ in range(50)]) for i in range(40)]
    store = RecordStore(kept_times=10 * 51)
    for one in full:
        store.add(one)
    assert [bool(r.token_times_s) for r in store.records] == [True] * 10 + [False] * 30
    window = Window(start_s=0.5, end_s=38.5, kind="steady")
    assert rates(store.records, window).output_tokens == pytest.approx(
        rates(full, window).output_tokens, rel=0.001
    )
    found, true = latencies(store.records, store.totals, store.dropped), latencies(full, Totals.of(full))
    assert latencies(store.records, store.totals, store.dropped) == found
    assert found.itl_ms.p99 == pytest.approx(true.itl_ms.p99, rel=0.006)
    assert found.itl_ms.mean == pytest.approx(true.itl_ms.mean)
    assert (found.ttft_ms, found.tpot_ms, found.e2e_ms) == (true.ttft_ms, true.tpot_ms, true.e2e_ms)
    assert found.tokens_per_chunk == true.tokens_per_chunk


def test_memory_does_not_grow_with_tokens() -> None:
    """A thousand requests of 1,000 tokens past the bound add less than 1 MB; their times alone are 32 MB."""
    store = RecordStore(kept_times=1000)
    gaps = [0.01] * 999
    store.add(record(0, gaps))
    tracemalloc.start()
    for i in range(1, 1001):
        store.add(record(i, gaps))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000

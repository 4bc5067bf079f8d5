"""Memory of a long run: exact totals, and an even sample of its records."""

from __future__ import annotations

import datetime as dt
import random
import tracemalloc
from itertools import pairwise

import msgspec
import pytest

from qwenhost.facts import Slo
from qwenhost.measurements import Measurements, RequestRecord, Server
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.config import ProbeConfig
from qwenhost.probe.course import Indices
from qwenhost.probe.results import Run, measurements_of
from qwenhost.probe.store import RecordStore, rank_error
from qwenhost.probe.timeline import timeline
from qwenhost.probe.totals import SessionTotals, Totals
from qwenhost.report.probe_page import run_html

SLO = Slo(ttft_ms=400)


def run_of(n: int) -> list[RequestRecord]:
    """One request every 10 ms, TTFT lognormal around 250 ms, 2 to 9 tokens; each hundredth is refused."""
    draw = random.Random(8)  # noqa: S311 - a model of chance
    found = []
    for i in range(n):
        due = i * 0.01
        times = [due + draw.lognormvariate(-1.4, 0.5)]
        times += [times[0] + 0.02 * k for k in range(1, draw.randint(2, 9))]
        record = RequestRecord(
            index=i, scheduled_s=due, sent_s=due + 0.0001, first_token_s=times[0], last_s=times[-1],
            token_times_s=tuple(times), input_tokens=draw.randint(10, 900), output_tokens=len(times),
            session=i // 3, turn=i % 3, replica=i % 2,
        )  # fmt: skip
        failed = RequestRecord(index=i, scheduled_s=due, sent_s=due, error="refused", replica=i % 2)
        found.append(failed if i % 100 == 99 else record)
    return found


def filled(records: list[RequestRecord], store: RecordStore) -> RecordStore:
    for record in records:
        store.add(record)
    return store


def figures(store: RecordStore) -> Measurements:
    return measurements_of(
        Run(
            config=ProbeConfig(url="http://x", more_urls=("http://y",), rate=100.0, slo=SLO), store=store,
            server=Server(name="m", version=None, model="m", url="http://x"), fit=None, seed=1, exact=False,
            counters={}, lag=LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0), interrupted=False,
            started_at=dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
        )
    )  # fmt: skip


RECORDS = run_of(20_000)
WHOLE = figures(filled(RECORDS, RecordStore()))
SAMPLE = filled(RECORDS, RecordStore(kept_records=2000, kept_times=3000))
FOUND = figures(SAMPLE)


def test_no_more_is_held_than_the_bounds_allow() -> None:
    """2,000 of 20,000 records and 3,000 token times, in the order in which they came."""
    assert len(SAMPLE.records) == 2000
    assert sum(len(record.token_times_s) for record in SAMPLE.records) <= 3000
    indices = [record.index for record in SAMPLE.records]
    assert indices == sorted(set(indices))
    assert not SAMPLE.complete


def test_counts_and_sums_are_of_all_requests() -> None:
    """To the last token, whatever the sample is."""
    assert FOUND.requests == WHOLE.requests
    assert FOUND.requests.by_error == {"refused": 200}
    assert FOUND.workload == WHOLE.workload
    assert FOUND.load == WHOLE.load
    assert FOUND.tokens_per_chunk == WHOLE.tokens_per_chunk
    assert FOUND.send_lag_ms.max == WHOLE.send_lag_ms.max
    assert [one.requests for one in FOUND.by_url] == [one.requests for one in WHOLE.by_url]
    assert FOUND.sessions is not None
    assert WHOLE.sessions is not None
    assert FOUND.sessions.repeated_share == WHOLE.sessions.repeated_share
    assert FOUND.sessions.sessions == WHOLE.sessions.sessions


def test_rates_are_the_totals_over_the_window() -> None:
    """The sample only says how much lies at the window's ends: within a tenth of a percent."""
    for name in ("request_per_s", "input_tokens_per_s", "output_tokens_per_s"):
        assert getattr(FOUND, name) == pytest.approx(getattr(WHOLE, name), rel=0.001)


@pytest.mark.parametrize("q", [50, 90, 95, 99])
@pytest.mark.parametrize("name", ["ttft_ms", "e2e_ms"])
def test_a_percentile_is_off_by_less_than_is_said(name: str, q: int) -> None:
    """Its rank among all requests lies within the stated error."""
    got = getattr(getattr(FOUND, name), f"p{q}")
    every = [value for record in RECORDS if (value := getattr(record, name)) is not None]
    rank = sum(value <= got for value in every) / len(every)
    assert FOUND.sampled is not None
    assert rank == pytest.approx(q / 100, abs=FOUND.sampled.rank_error)


def test_goodput_is_within_the_stated_error() -> None:
    """A share is a rank."""
    assert FOUND.goodput is not None
    assert WHOLE.goodput is not None
    assert FOUND.goodput.fraction == pytest.approx(WHOLE.goodput.fraction, abs=rank_error(2000))


def test_gaps_are_of_all_requests() -> None:
    """Kept, replaced and never kept ones alike, each once: 20 ms, to half a percent; the mean exactly."""
    gaps = sum(max(0, len(record.token_times_s) - 1) for record in RECORDS)
    held = sum(len(list(pairwise(record.token_times_s))) for record in SAMPLE.records)
    assert SAMPLE.dropped.count + held == gaps
    assert FOUND.itl_ms.mean == pytest.approx(WHOLE.itl_ms.mean)
    assert FOUND.itl_ms.p99 == pytest.approx(20, rel=0.0052)


def test_a_reader_is_told() -> None:
    """How many of how many, how far off, and which figures; nothing where every record is there."""
    assert FOUND.sampled is not None
    assert (FOUND.sampled.records, FOUND.sampled.of) == (len(SAMPLE.records), 20_000)
    assert "ttft_ms" in FOUND.sampled.figures
    assert any("2,000 of 20,000 requests" in said for said in FOUND.warnings)
    assert WHOLE.sampled is None
    assert not any("drawn evenly" in said for said in WHOLE.warnings)


def test_the_error_is_dvoretzkys() -> None:
    """sqrt(ln 40 / 200,000) = 0.43 % for 100,000 records."""
    assert rank_error(100_000) == pytest.approx(0.004295, abs=1e-6)


def test_the_sample_is_even() -> None:
    """Of 40 draws of 50 from 500 each tenth of the run gets a tenth: 200 of 2,000, within four deviations."""
    tenths = [0] * 10
    records = RECORDS[:500]
    for seed in range(40):
        for record in filled(records, RecordStore(kept_records=50, seed=seed)).records:
            tenths[record.index // 50] += 1
    assert sum(tenths) == 2000
    assert all(abs(count - 200) < 4 * 13.4 for count in tenths)


def test_plots_count_all_requests() -> None:
    """Each record of the sample stands for ten; the page is drawn and says so."""
    stretches = timeline(SAMPLE.records, SLO, each_for=10.0)
    assert sum(one.sent for one in stretches) == 20_000
    whole = timeline(RECORDS, SLO)
    tokens = [sum(s.output_tokens_per_s * (s.end_s - s.start_s) for s in of) for of in (stretches, whole)]
    assert tokens[0] == pytest.approx(tokens[1], rel=0.05)
    assert "2,000 of 20,000 requests" in run_html(FOUND, SAMPLE.records)


def test_memory_does_not_grow_with_requests() -> None:
    """20,000 requests past the bound add less than 0.2 MB; their records alone are 8 MB."""
    store = filled(RECORDS[:1500], RecordStore(kept_records=1000, kept_times=1000))
    tracemalloc.start()
    for record in RECORDS:
        store.add(msgspec.structs.replace(record, session=None))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The sample's records are swapped for others made meanwhile: at most a thousand of 0.5 KB.
    assert held < 1000 * 600 + 200_000


def test_sessions_that_are_silent_longest_are_forgotten() -> None:
    """Three open sessions where two are remembered: the first one's second turn counts no repetition."""
    totals = SessionTotals(most_open=2)
    for session, turn in ((0, 0), (1, 0), (2, 0), (2, 1), (0, 1)):
        one = RequestRecord(
            index=0, scheduled_s=0, sent_s=0, session=session, turn=turn, input_tokens=100 * (turn + 1)
        )
        totals.add(one)
    assert totals.repeated_tokens == 100
    assert totals.requests == 5


def test_what_was_interrupted_is_counted_apart() -> None:
    """One of two: a run of one request."""
    totals = Totals.of(
        RequestRecord(index=i, scheduled_s=0, sent_s=0, error=error)
        for i, error in enumerate((None, "interrupted"))
    )
    assert (totals.sent, totals.completed, totals.interrupted) == (1, 1, 1)


def test_indices_are_a_set() -> None:
    """What was put in, ascending."""
    done = Indices()
    for index in (5, 0, 5):
        done.add(index)
    assert list(done) == [0, 5]
    assert len(done) == 2
    assert 5 in done
    assert 4 not in done
    assert 600 not in done
    assert "5" not in done

"""The page of a probe's run and of a sweep, from records whose figures can be checked by hand."""

from __future__ import annotations

import datetime as dt
import re
from itertools import pairwise
from typing import Any

import pytest

from qwenhost.facts import Slo
from qwenhost.measurements import RequestRecord, Server
from qwenhost.probe.bench import Point
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.config import ProbeConfig
from qwenhost.probe.results import Run, measurements_of
from qwenhost.probe.store import store_of
from qwenhost.probe.sweep import Sweep
from qwenhost.probe.timeline import cumulative, timeline
from qwenhost.report.page import PHONE, WIDE, asset
from qwenhost.report.probe_charts import distributions, latency_over_time
from qwenhost.report.probe_page import run_html, sweep_html

SLO = Slo(ttft_ms=150)


def record(index: int, **more: Any) -> RequestRecord:
    """Due each second; first token after 100 ms, ten tokens in 0.9 s."""
    due = float(index)
    times = tuple(due + 0.1 + 0.1 * i for i in range(10))
    values: dict[str, Any] = {
        "index": index, "scheduled_s": due, "sent_s": due, "first_token_s": times[0], "last_s": times[-1],
        "token_times_s": times, "input_tokens": 5, "output_tokens": 10,
    }  # fmt: skip
    return RequestRecord(**(values | more))


RECORDS = [
    record(0), record(1, first_token_s=1.4),
    record(2, error="cut_stream", first_token_s=None, last_s=None, token_times_s=()), record(3),
]  # fmt: skip


def measured(records: list[RequestRecord], model: str = "a <model>") -> Any:
    calm = LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0)
    server = Server(name="vllm", version="0.33", model=model, url="http://x")
    return measurements_of(
        Run(
            config=ProbeConfig(url="http://x", rate=1.0, slo=SLO), store=store_of(records), server=server,
            fit=None, seed=1, exact=False, counters={}, lag=calm, interrupted=False,
            started_at=dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
        )
    )  # fmt: skip


def test_stretches_share_out_requests_and_tokens() -> None:
    """Four stretches over 0 to 4 s: one request each, the third fails, the second misses the limit."""
    stretches = timeline(RECORDS, SLO, stretches=4)
    assert [s.sent for s in stretches] == [1, 1, 1, 1]
    assert [s.failed for s in stretches] == [0, 0, 1, 0]
    assert [s.kept_slo for s in stretches] == [1, 0, 0, 1]
    assert stretches[1].ttft_ms_p50 == pytest.approx(400)
    assert stretches[2].ttft_ms_p50 is None
    assert sum(s.output_tokens_per_s * (s.end_s - s.start_s) for s in stretches) == pytest.approx(30)
    assert stretches[0].in_flight == pytest.approx(1.0, abs=0.01)


def test_dropped_token_times_are_spread_over_the_request() -> None:
    """The total stays; without a record there is no time."""
    bare = [record(i, token_times_s=()) for i in range(4)]
    total = sum(s.output_tokens_per_s * (s.end_s - s.start_s) for s in timeline(bare, None))
    assert total == pytest.approx(40)
    assert timeline([], None) == []


def test_a_distribution_ends_at_everything() -> None:
    """Of 1, 2, 3, 4 half are at most 2."""
    assert cumulative([4, 2, 1, 3]) == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert cumulative([]) == []
    assert len(cumulative(list(range(100_000)))) == 201


def test_the_page_of_a_run_shows_its_figures_and_loads_nothing() -> None:
    """Names are escaped, failures listed, four plots drawn twice."""
    page = run_html(measured(RECORDS), RECORDS)
    assert "a &lt;model&gt;" in page
    assert "a <model>" not in page
    assert page.count("<svg") == 8
    assert "cut_stream" in page
    assert "3 of 4 answered" in page
    assert not re.search(r'(?:src|href)="(?!#|data:,)', page)


def test_a_run_without_success_has_a_page() -> None:
    """Nothing to draw is no reason to fail; the reason it is void stands on top."""
    failed = [record(0, error="refused", first_token_s=None, last_s=None, token_times_s=())]
    page = run_html(measured(failed), failed)
    assert "no request succeeded (refused)" in page
    assert "<h1" in run_html(measured([]), [])


def test_the_page_of_a_sweep_has_every_load() -> None:
    """Two loads, latency and throughput against them."""
    points = tuple(
        Point(
            at=at, measurements=measured(RECORDS), looks=1, judged=3, kept_slo=2, share_low=0.1,
            share_high=0.9, verdict="undecided",
        )
        for at in (1.0, 2.0)
    )  # fmt: skip
    swept = Sweep(
        axis="rate", mode="sweep", slo=SLO, confidence=0.95, tolerance=0.05, points=points, found_at=None,
        not_shown_at=None, end="complete", reason="2 of 2 loads measured", took_s=1.0,
    )  # fmt: skip
    page = sweep_html(swept)
    assert "2 of 2 loads measured" in page
    assert page.count("<svg") == 4
    assert page.count(">undecided<") == 2


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_labels_beside_curves_and_limits_do_not_meet(width: int) -> None:
    """Two limits and two curves within five percent of one another: their names stand 15 pixels apart."""
    close = [record(i, first_token_s=i + 0.1 + 0.002 * (i % 2)) for i in range(40)]
    drawn = latency_over_time((timeline(close, None), Slo(ttft_ms=101, tpot_ms=100)), width)
    found = re.findall(
        r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="start" class="(label \w+|tick warn)"', drawn
    )
    heights = sorted(float(y) for x, y, _ in found)
    assert len(heights) == 5  # Three curves, two limits.
    assert len({x for x, _, _ in found}) == 1
    assert all(b - a >= 15 for a, b in pairwise(heights))
    assert "TTFT limit 101 ms" in drawn
    assert "TPOT limit 100 ms" in drawn


def test_every_colour_of_a_curve_is_one_of_a_dot() -> None:
    """Else a dot is black, and unseen on a dark page."""
    style = asset("report.css")
    for css in ("self", "base", "hosted", "other"):
        assert f"svg .dot.{css} " in style
        assert f"svg .curve.{css}" in style


def test_the_distributions_name_their_limits() -> None:
    """In the legend, below the head of the page and above the grid; not where there are none."""
    with_limits, without = (distributions((RECORDS, slo), WIDE) for slo in (SLO, None))
    assert ">limits</text>" in with_limits
    assert ">limits</text>" not in without

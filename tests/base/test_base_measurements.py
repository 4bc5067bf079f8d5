"""What was observed, and the figures drawn from it, by hand."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import statistics
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo
from qwenhost.measurements import (
    Lag,
    Load,
    MeasuredWorkload,
    Measurements,
    Percentiles,
    RequestCounts,
    RequestRecord,
    Server,
    goodput,
    load_measurements,
    measurements_to_json,
    percentile,
    percentiles,
)

if TYPE_CHECKING:
    from pathlib import Path

FINITE = st.floats(-1e9, 1e9)


def record(**changed: object) -> RequestRecord:
    """Due at 10 s, sent 2 ms late, first token after 300 ms, 101 tokens 20 ms apart."""
    plain: dict[str, object] = {
        "index": 0, "scheduled_s": 10.0, "sent_s": 10.002, "first_token_s": 10.3, "last_s": 12.3,
        "output_tokens": 101, "input_tokens": 500,
    }  # fmt: skip
    return RequestRecord(**(plain | changed))  # type: ignore[arg-type]


def test_latencies_count_from_the_due_time() -> None:
    """So the client's own lateness is part of what users wait."""
    one = record()
    assert one.ttft_ms == pytest.approx(300)
    assert one.e2e_ms == pytest.approx(2300)
    assert one.tpot_ms == pytest.approx(2000 / 100)
    assert one.send_lag_ms == pytest.approx(2)
    assert one.ok


@pytest.mark.parametrize(
    ("changed", "ttft", "tpot", "e2e"),
    [
        ({"first_token_s": None}, False, False, True),
        ({"last_s": None}, True, False, False),
        ({"output_tokens": 1}, True, False, True),
        ({"output_tokens": 0}, True, False, True),
        ({"output_tokens": 2}, True, True, True),
        ({"first_token_s": None, "last_s": None}, False, False, False),
    ],
)
def test_a_figure_without_its_instants_is_none(
    changed: dict[str, object], ttft: bool, tpot: bool, e2e: bool
) -> None:
    """One token has no time between tokens."""
    one = record(**changed)
    assert [f is not None for f in (one.ttft_ms, one.tpot_ms, one.e2e_ms)] == [ttft, tpot, e2e]


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        (Slo(), True),
        (Slo(ttft_ms=301), True),
        (Slo(ttft_ms=299), False),
        (Slo(tpot_ms=20.1), True),
        (Slo(tpot_ms=19.9), False),
        (Slo(e2e_ms=2301), True),
        (Slo(e2e_ms=2299), False),
        (Slo(ttft_ms=301, tpot_ms=20.1, e2e_ms=2301), True),
        (Slo(ttft_ms=301, tpot_ms=20.1, e2e_ms=2299), False),
        (Slo(ttft_ms=299, tpot_ms=20.1, e2e_ms=2301), False),
    ],
)
def test_a_request_keeps_all_limits_or_does_not(slo: Slo, kept: bool) -> None:
    assert record().meets(slo) is kept


def test_a_failed_request_keeps_no_limit_however_wide() -> None:
    assert not record(error="cut_stream").meets(Slo())
    assert not record(error="http_503", first_token_s=None, last_s=None).meets(Slo(ttft_ms=1e9))


def test_an_answer_of_one_token_has_no_tpot_to_miss() -> None:
    assert record(output_tokens=1).meets(Slo(tpot_ms=0.001))


@pytest.mark.parametrize(
    ("sample", "q", "wanted"),
    [
        ([7.0], 0, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.5),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 50, 3.0),
        ([0.0, 10.0], 90, 9.0),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0], 95, 9.5),
        ([1.0, 2.0, 4.0], 100, 4.0),
        ([1.0, 2.0, 4.0], 75, 3.0),
    ],
)
def test_percentiles_are_numpys(sample: list[float], q: float, wanted: float) -> None:
    """numpy.percentile's default: rank (n-1) q / 100, linear between neighbours."""
    assert percentile(sample, q) == pytest.approx(wanted)


def test_no_sample_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="empty sample"):
        percentile([], 50)
    assert percentiles([]) == Percentiles(mean=None, p50=None, p90=None, p95=None, p99=None)


@given(st.lists(FINITE, min_size=1, max_size=50))
def test_percentiles_lie_in_order_within_the_sample(sample: list[float]) -> None:
    found = percentiles(sample)
    assert found.p50 is not None
    assert found.p90 is not None
    assert found.p95 is not None
    assert found.p99 is not None
    slack = 1e-6 * max(1.0, *map(abs, sample))
    order = [min(sample), found.p50, found.p90, found.p95, found.p99, max(sample)]
    assert all(a <= b + slack for a, b in itertools.pairwise(order))
    assert found.mean == pytest.approx(statistics.fmean(sample), abs=slack)
    assert found.p50 == pytest.approx(statistics.median(sample), abs=slack)


@given(st.lists(FINITE, min_size=1, max_size=30), st.randoms())
def test_percentiles_do_not_depend_on_order(sample: list[float], chance: object) -> None:
    shuffled = list(sample)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert percentiles(shuffled) == percentiles(sample)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30), st.floats(0.001, 1000))
def test_percentiles_scale_with_the_unit(sample: list[float], factor: float) -> None:
    """Seconds or milliseconds: the same requests."""
    one, other = percentiles(sample), percentiles([value * factor for value in sample])
    assert one.p90 is not None
    assert other.p90 == pytest.approx(one.p90 * factor, rel=1e-9, abs=1e-12)


def test_goodput_is_of_requests_sent_per_second_of_the_run() -> None:
    """Four sent in 8 s: one slow, one failed; two good ones of 101 tokens."""
    records = [record(), record(), record(first_token_s=11.0), record(error="timeout")]
    found = goodput(records, Slo(ttft_ms=500), 8.0)
    assert found.requests_per_s == 2 / 8
    assert found.output_tokens_per_s == 202 / 8
    assert found.fraction == 0.5


@pytest.mark.parametrize("duration_s", [0.0, -1.0])
def test_goodput_of_no_time_is_finite(duration_s: float) -> None:
    found = goodput([record()], Slo(), duration_s)
    assert math.isfinite(found.requests_per_s)
    assert goodput([], Slo(), duration_s).fraction == 0


@given(
    st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=30),
    st.floats(1, 2000),
    st.floats(1, 2000),
)
def test_a_wider_limit_never_loses_requests(
    drawn: list[tuple[float, bool]], one: float, other: float
) -> None:
    records = [record(first_token_s=10 + late, error="timeout" if failed else None) for late, failed in drawn]
    strict, wide = sorted((one, other))
    assert (
        goodput(records, Slo(ttft_ms=strict), 10).fraction <= goodput(records, Slo(ttft_ms=wide), 10).fraction
    )


NONE = percentiles([])
RUN = Measurements(
    workload=MeasuredWorkload(id="chat", endpoint="chat", mean_input_tokens=500.0, mean_output_tokens=101.0),
    load=Load(kind="open", rate=2.0, arrivals="poisson", duration_s=30.0, rate_window_s=(1.0, 29.0)),
    requests=RequestCounts(sent=60, completed=59, failed=1, by_error={"cut_stream": 1}),
    output_tokens_per_s=200.0, input_tokens_per_s=1000.0, total_tokens_per_s=1200.0, request_per_s=2.0,
    ttft_ms=percentiles([300.0, 100.0]), tpot_ms=NONE, itl_ms=NONE, e2e_ms=NONE,
    goodput=goodput([record()], Slo(ttft_ms=500.0), 30.0), send_lag_ms=Lag(p50=0.1, p99=2.0, max=3.0),
    server=Server(name="vllm", version=None, model="m", url="http://127.0.0.1:1"),
    started_at=dt.datetime(2026, 11, 24, 3, 0, tzinfo=dt.UTC), machine={"cores": 2},
    confidence={"ttft_ms_p50": (212.0, 240.5)},
)  # fmt: skip


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    """The figures of an empty sample stay none, intervals stay pairs, the moment keeps its zone."""
    path = tmp_path / "run.json"
    path.write_bytes(measurements_to_json(RUN))
    found = load_measurements(path)
    assert found == RUN
    assert found.started_at.utcoffset() == dt.timedelta(0)
    document = json.loads(path.read_bytes())
    assert document["schema"] == "qwenhost.measurements/1"
    # between 100 and 300: the mean and the middle are 200, p90 lies nine tenths of the way
    assert document["ttft_ms"] == {"mean": 200.0, "p50": 200.0, "p90": 280.0, "p95": 290.0, "p99": 298.0}
    assert set(document["tpot_ms"].values()) == {None}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("load", {"kind": "half-open", "duration_s": 1}, "$.load.kind"),
        ("requests", {"sent": 1, "completed": 1}, "missing required field `failed` - at `$.requests`"),
        ("started_at", "yesterday", "$.started_at"),
        ("confidence", {"ttft_ms_p50": [1.0]}, "$.confidence[...]"),
        ("ttft_ms", None, "$.ttft_ms"),
        ("output_tokens_per_s", 1e300, "number beyond 1e+20 at `$.output_tokens_per_s`"),
        ("schema", "qwenhost.plan/1", "schema is 'qwenhost.plan/1', expected 'qwenhost.measurements/1'"),
    ],
)
def test_a_spoilt_run_is_refused_by_its_key(tmp_path: Path, key: str, value: object, said: str) -> None:
    """With the file's name and how to measure one."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(measurements_to_json(RUN)) | {key: value}))
    with pytest.raises(BadInputError) as caught:
        load_measurements(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert said in caught.value.message
    assert caught.value.remedy.endswith("qwenhost probe URL --save measurements.json")

"""A recording that was cut, damaged, resumed or mixed up: read as far as it is whole, or refused by line."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo
from qwenhost.measurements import Measurements, RequestRecord, Server
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.config import ProbeConfig
from qwenhost.probe.content import TokenFit
from qwenhost.probe.records import (
    Head,
    RecordWriter,
    Resumed,
    Tail,
    head_of,
    measurements_from,
    read_recording,
)
from qwenhost.probe.resume import read_resumption, require_same_settings

if TYPE_CHECKING:
    from pathlib import Path

SERVER = Server(name="vllm", version="0.33.0", model="m", url="http://x")
AT = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
CALM = LoopLag(p95_ms=0.1, p99_ms=0.2, max_ms=0.5, busy_share=0.1)


def config(**options: Any) -> ProbeConfig:
    return ProbeConfig(url="http://x", **({"concurrency": 2, "requests": 20} | options))


def head(**options: Any) -> Head:
    return head_of(
        config(**options), server=SERVER, fit=TokenFit(per_prompt=9, per_word=1.2), seed=7, exact=True,
        started_at=AT, about="synthetic", notes=("a note",),
    )  # fmt: skip


def tail(**options: Any) -> Tail:
    ends: dict[str, Any] = {"lag": CALM, "counters": {"prompt_tokens": 200.0}, "interrupted": False}
    return Tail(**(ends | options))


def record(index: int, **more: Any) -> RequestRecord:
    due = index * 0.1
    fields: dict[str, Any] = {
        "index": index, "scheduled_s": due, "sent_s": due, "first_byte_s": due + 0.04,
        "first_token_s": due + 0.05, "first_visible_s": due + 0.05, "last_s": due + 0.09,
        "token_times_s": (due + 0.05, due + 0.07, due + 0.09), "input_tokens": 10, "output_tokens": 3,
        "http_status": 200,
    }  # fmt: skip
    return RequestRecord(**(fields | more))


RECORDS = [record(i) for i in range(20)]


def written(folder: Path, *rows: Any, name: str = "run.jsonl") -> Path:
    file = folder / name
    with RecordWriter(file) as writer:
        for row in rows:
            writer.write(row)
    return file


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return written(tmp_path, head(), *RECORDS, tail())


def test_what_was_written_is_read(whole: Path) -> None:
    """Head, twenty records in order, tail; nothing resumed, every byte whole."""
    found = read_recording(whole)
    assert found.head == head()
    assert found.store.records == RECORDS
    assert found.tail == tail()
    assert (found.resumed, found.whole_bytes) == (0, whole.stat().st_size)


def test_the_key_is_in_no_recording(tmp_path: Path) -> None:
    """Nor anywhere else in the file."""
    file = written(tmp_path, head(api_key="sk-secret-123"), record(0), tail())
    assert b"sk-secret" not in file.read_bytes()
    assert read_recording(file).head.config.api_key is None


@pytest.mark.parametrize(
    "options",
    [
        {"slo": Slo(ttft_ms=200, tpot_ms=20, percentile=95)},
        {"concurrency": None, "rate": 2.5, "ramp_to": 5.0, "duration_s": 60.0, "arrivals": "gamma"},
        {"more_urls": ("http://y", "http://z"), "spread": "session"},
        {"tools": ({"name": "f", "parameters": {"type": "object"}},), "tool_choice": "required"},
        {"thinking": False, "temperature": 0.0, "seed": 3, "unique_prefix": False},
    ],
)
def test_settings_survive_their_file(tmp_path: Path, options: dict[str, Any]) -> None:
    """Every kind of setting, paths too."""
    given = config(**options, prompts=tmp_path / "p.jsonl", image_files=(tmp_path / "a.png",))
    file = written(tmp_path, head_of(given, server=SERVER, fit=None, seed=1, exact=False, started_at=AT))
    assert read_recording(file).head.config == given


# --------------------------------------------------------------------------- cut off


def test_cut_after_every_byte_the_whole_lines_count(whole: Path, tmp_path: Path) -> None:
    """As a full disk or a crash leaves it: no byte of a half line is taken, none of a whole one lost."""
    data = whole.read_bytes()
    ends = [place + 1 for place, byte in enumerate(data) if byte == 10]
    file = tmp_path / "cut.jsonl"
    for at in sorted({*range(ends[0], len(data), 13), *ends, *(end - 1 for end in ends[1:])}):
        file.write_bytes(data[:at])
        found = read_recording(file)
        lines = sum(end <= at for end in ends)
        assert found.store.records == RECORDS[: min(lines - 1, 20)]
        assert (found.tail is None) == (lines < 22)
        assert found.whole_bytes == max(end for end in ends if end <= at)


def test_cut_within_its_head_a_file_is_no_recording(whole: Path, tmp_path: Path) -> None:
    """Nothing can be drawn without the run's settings; the first line is named."""
    line = whole.read_bytes().splitlines()[0]
    file = tmp_path / "cut.jsonl"
    for at in range(0, len(line), 29):
        file.write_bytes(line[:at])
        with pytest.raises(BadInputError, match="line 1"):
            read_recording(file)


def test_figures_of_a_cut_run_are_of_what_there_is(whole: Path) -> None:
    """Twelve and a half of twenty requests: interrupted, with no word of the client's fitness but lag."""
    lines = whole.read_bytes().splitlines(keepends=True)
    whole.write_bytes(b"".join(lines[:13]) + lines[13][:40])
    found = measurements_from(whole, None)
    assert (found.requests.sent, found.requests.completed) == (12, 12)
    assert found.interrupted
    assert found.client == {}
    assert found.warnings[0].startswith("the recording was cut off")
    assert found.ttft_ms.p50 == pytest.approx(50)


# --------------------------------------------------------------------------- damaged


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "Input data was truncated"),
        (b"\x00" * 40, "malformed"),
        (b'{"index": 3}', "missing required field `scheduled_s`"),
        (b'{"index": "3", "scheduled_s": 0, "sent_s": 0}', "Expected `int`, got `str` - at `$.index`"),
        (b'{"index": 3, "scheduled_s": 0, "sent_s": 0, "colour": 1}', "unknown field `colour`"),
        (b'{"index": 3, "scheduled_s": NaN, "sent_s": 0}', "malformed"),
        (b'{"index": 3, "scheduled_s": 0, "sent_s": 0}{"index": 4}', "trailing"),
        (b'{"lag": {}}', "missing required field"),
        (b'{"resumed_at": "2026"}', None),
        (b'{"index": 3, "error": "\xff\xfe"}', ""),
        (b"[" * 4000, ""),
    ],
)
def test_a_damaged_line_is_named(whole: Path, line: bytes, said: str | None) -> None:
    """The seventh record replaced: line 8 of the file, and what is wrong. A mark of resumption is fine."""
    lines = whole.read_bytes().splitlines(keepends=True)
    whole.write_bytes(b"".join([*lines[:7], line + b"\n", *lines[8:]]))
    if said is None:
        assert read_recording(whole).resumed == 1
        return
    with pytest.raises(BadInputError) as caught:
        read_recording(whole)
    assert f"{whole}, line 8: " in str(caught.value)
    assert said.lower() in str(caught.value).lower()
    assert "--records" in str(caught.value.remedy)


@settings(max_examples=120)
@given(data=st.data())
def test_no_damage_is_an_exception_of_another_kind(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Up to three bytes become others: figures come out, or a sentence that names a line of this file."""
    folder = tmp_path_factory.mktemp("damaged")
    file = written(folder, head(), *RECORDS[:4], Resumed(resumed_at=AT), record(4), tail())
    damaged = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged)
    found: Measurements | None = None
    said = ""
    try:
        found = measurements_from(file, None)
    except BadInputError as error:
        said = str(error)
    assert found is not None or said.startswith(str(file))


@pytest.mark.parametrize("schema", ["qwenhost.records/2", "qwenhost.measurements/1", ""])
def test_another_schema_is_refused(tmp_path: Path, schema: str) -> None:
    """By its name, even if the rest would do."""
    file = written(tmp_path, msgspec.structs.replace(head(), schema=schema))
    with pytest.raises(BadInputError, match=f"schema is '{schema}', expected 'qwenhost.records/1'"):
        read_recording(file)


def test_a_folder_and_nothing_are_no_recordings(tmp_path: Path) -> None:
    """With the system's own reason."""
    with pytest.raises(BadInputError, match="Is a directory"):
        read_recording(tmp_path)
    with pytest.raises(BadInputError, match="No such file"):
        read_recording(tmp_path / "none.jsonl")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Before any request."""
    with pytest.raises(BadInputError, match=r"--records .*none/run.jsonl: No such file"):
        RecordWriter(tmp_path / "none" / "run.jsonl")


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    """The writer of a run that keeps no records."""
    with RecordWriter(None) as writer:
        writer.write(record(0))
        writer.flush()
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------- resumed


def test_a_killed_run_goes_on_behind_its_last_whole_line(whole: Path) -> None:
    """Five records and a half: the half is cut away, what follows stands behind a mark, all count."""
    lines = whole.read_bytes().splitlines(keepends=True)
    whole.write_bytes(b"".join(lines[:6]) + lines[6][:33])
    before = read_resumption(whole)
    assert (before.tail, before.times, before.keep_bytes) == (None, 0, sum(map(len, lines[:6])))
    assert sorted(before.earlier.done) == [0, 1, 2, 3, 4]
    assert before.earlier.until_s == pytest.approx(0.49)
    with RecordWriter(whole, after=before.keep_bytes) as writer:
        for one in RECORDS[5:]:
            writer.write(one)
        writer.write(tail(counters={}))
    found = read_recording(whole)
    assert found.store.records == RECORDS
    assert (found.resumed, found.tail is not None) == (1, True)
    measured = measurements_from(whole, None)
    assert measured.requests.completed == 20
    assert any(said.startswith("resumed 1 time:") for said in measured.warnings)
    assert measured.engine_counters == {}  # Of the killed part nobody knows them.


def test_two_parts_that_ended_well_are_added(tmp_path: Path) -> None:
    """Counters add up, the client is judged by its worse part, rates follow from the sums."""
    worse = LoopLag(p95_ms=3, p99_ms=0.1, max_ms=9, busy_share=0.05)
    counts = {"prefix_cache_queries": 100.0, "prefix_cache_hits": 80.0, "prefix_cache_hit_rate": 0.8}
    more = {"prefix_cache_queries": 300.0, "prefix_cache_hits": 20.0, "prefix_cache_hit_rate": 0.0667}
    file = written(
        tmp_path, head(), *RECORDS[:5], tail(counters=counts, interrupted=True), Resumed(resumed_at=AT),
        *RECORDS[5:], tail(counters=more, lag=worse),
    )  # fmt: skip
    found = read_recording(file).tail
    assert found is not None
    assert not found.interrupted
    assert dict(found.counters) == {
        "prefix_cache_queries": 400, "prefix_cache_hits": 100, "prefix_cache_hit_rate": 0.25,
    }  # fmt: skip
    assert (found.lag.p95_ms, found.lag.p99_ms, found.lag.max_ms, found.lag.busy_share) == (3, 0.2, 9, 0.1)


def test_a_run_killed_twice_has_no_end(tmp_path: Path) -> None:
    """Two marks and no tail after the second."""
    mark = Resumed(resumed_at=AT)
    file = written(tmp_path, head(), *RECORDS[:3], mark, *RECORDS[3:6], mark, *RECORDS[6:9])
    found = read_recording(file)
    assert (found.tail, found.resumed, len(found.store.records)) == (None, 2, 9)
    assert read_resumption(file).times == 2


def test_what_was_interrupted_is_sent_again(tmp_path: Path) -> None:
    """Dropped at Ctrl-C: neither done nor counted."""
    dropped = RequestRecord(index=3, scheduled_s=9.0, sent_s=9.0, error="interrupted")
    file = written(tmp_path, head(), *RECORDS[:3], dropped, tail(interrupted=True))
    before = read_resumption(file)
    assert list(before.earlier.done) == [0, 1, 2]
    assert before.earlier.until_s == pytest.approx(0.29)


def test_a_failed_request_is_done(tmp_path: Path) -> None:
    """It stands for what the server did; its clock is that of its sending."""
    broken = RequestRecord(index=3, scheduled_s=0.5, sent_s=0.6, error="timeout")
    before = read_resumption(written(tmp_path, head(), *RECORDS[:3], broken))
    assert list(before.earlier.done) == [0, 1, 2, 3]
    assert before.earlier.until_s == pytest.approx(0.6)


def test_a_complete_run_is_not_resumed(whole: Path) -> None:
    """With what can be done instead."""
    with pytest.raises(BadInputError, match="the run is complete") as caught:
        read_resumption(whole)
    assert f"--from-records {whole}" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"name": "sglang"}, True),
        ({"version": "0.34.0"}, True),
        ({"model": "n"}, True),
        ({"url": "http://y"}, False),
    ],
)
def test_another_server_is_another_run(tmp_path: Path, changed: dict[str, str], *, refused: bool) -> None:
    """Name, version and model must be the same; it may have moved."""
    before = read_resumption(written(tmp_path, head(), *RECORDS[:3]))
    server = msgspec.structs.replace(SERVER, **changed)
    if refused:
        with pytest.raises(BadInputError, match=r"the run was of m on vllm 0\.33\.0, but"):
            before.require_same_server(server)
    else:
        before.require_same_server(server)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"concurrency": 3}, "concurrency = 2, not 3"),
        ({"requests": 40}, "requests = 20, not 40"),
        ({"slo": Slo(ttft_ms=1)}, None),
        ({"api_key": "new"}, None),
        ({"concurrency": 2}, None),
    ],
)
def test_settings_stay_but_for_those_that_send_nothing(options: dict[str, Any], named: str | None) -> None:
    """The first that differs is named; key, SLO and file may be others."""
    if named is None:
        require_same_settings(config(), options)
    else:
        with pytest.raises(BadInputError, match=named):
            require_same_settings(config(), options)


# --------------------------------------------------------------------------- judged anew


@pytest.mark.parametrize(
    ("slo", "share"),
    [
        (None, None),
        (Slo(ttft_ms=50.1), 1.0),
        (Slo(ttft_ms=49.9), 0.0),
        (Slo(tpot_ms=20.01), 1.0),
        (Slo(tpot_ms=19.9), 0.0),
        (Slo(e2e_ms=90.1, tpot_ms=20.1, ttft_ms=50.1), 1.0),
        (Slo(e2e_ms=89.9, ttft_ms=50.1), 0.0),
    ],
)
def test_any_service_level_afterwards(whole: Path, slo: Slo | None, share: float | None) -> None:
    """TTFT 50 ms, TPOT 20 ms, 90 ms in all, each of twenty requests: a limit on either side."""
    found = measurements_from(whole, slo).goodput
    assert (None if found is None else found.fraction) == share


def test_the_runs_own_service_level_stays_unless_another_is_given(tmp_path: Path) -> None:
    """And the given one is in the result."""
    own, other = Slo(ttft_ms=49.9), Slo(ttft_ms=50.1)
    file = written(tmp_path, head(slo=own), *RECORDS, tail())
    kept, anew = measurements_from(file, None).goodput, measurements_from(file, other).goodput
    assert kept is not None
    assert anew is not None
    assert (kept.slo, kept.fraction, anew.slo, anew.fraction) == (own, 0.0, other, 1.0)


def test_every_figure_of_a_recording_is_finite_json(whole: Path) -> None:
    """Drawn from the file, written as JSON: no NaN, no infinity, and the machine is the run's own."""
    found = measurements_from(whole, Slo(ttft_ms=1))
    text = json.loads(msgspec.json.encode(found))

    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [n for one in value.values() for n in numbers(one)]
        if isinstance(value, list):
            return [n for one in value for n in numbers(one)]
        return [value] if isinstance(value, int | float) else []

    assert len(numbers(text)) > 50
    assert all(math.isfinite(number) for number in numbers(text))
    assert found.machine == read_recording(whole).head.machine
    assert found.started_at == AT
    assert "a note" in found.warnings


def test_a_run_lasts_from_its_first_due_time_to_its_last_token(whole: Path) -> None:
    """Due every 0.1 s from 0, the last at 1.9 s and over 90 ms later; a failure ends with its send."""
    assert measurements_from(whole, None).load.duration_s == pytest.approx(1.99)
    with whole.open("ab") as file:
        late = RequestRecord(index=20, scheduled_s=4.0, sent_s=4.5, error="timeout")
        file.write(msgspec.json.encode(late) + b"\n")
    assert measurements_from(whole, None).load.duration_s == pytest.approx(4.5)


def test_a_recording_without_a_request_is_void(tmp_path: Path) -> None:
    """Head and tail alone."""
    found = measurements_from(written(tmp_path, head(), tail()), Slo(ttft_ms=1))
    assert (found.void, found.void_reason) == (True, "no request was sent")
    assert found.requests.sent == 0

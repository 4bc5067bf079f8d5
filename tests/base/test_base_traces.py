"""Recorded traffic: what each format means, to the second and the token; and what is no trace."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.traces import (
    TracedRequest,
    is_trace_row,
    read_requests,
    read_rows,
    request_of,
    seconds,
    session_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Put = Callable[[str | bytes], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "trace"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("value", "at"),
    [
        (0, 0.0),
        (2.5, 2.5),
        ("3", 3.0),
        ("1e3", 1000.0),
        (-4, -4.0),
        # 2026-11-01 is 20,758 days after 1970-01-01: 56 years, 14 leap days, 304 days.
        ("2026-11-01", 20758 * 86400.0),
        ("2026-11-01 00:00:02", 20758 * 86400 + 2.0),
        ("2026-11-01T00:00:02Z", 20758 * 86400 + 2.0),
        ("2026-11-01T01:00:02+01:00", 20758 * 86400 + 2.0),
        ("2026-11-01 00:00:02.5", 20758 * 86400 + 2.5),
        ("2026-11-01 00:00:02.5000000", 20758 * 86400 + 2.5),  # Azure: seven decimals
        ("2026-11-01 00:00:02.123456789+00:00", 20758 * 86400 + 2.123456),
        ("2026-11-01T00:00:02.25Z", 20758 * 86400 + 2.25),
    ],
)
def test_a_time_is_seconds_or_a_date(value: float | str, at: float) -> None:
    """A time without a zone is UTC; what is finer than microseconds is cut."""
    assert seconds(value) == pytest.approx(at, abs=1e-6)


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", float("nan"), float("inf")])
def test_what_is_no_time_is_refused(value: float | str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        seconds(value)


@pytest.mark.parametrize("value", ["yesterday", "", "2026-13-01", "12:00", "2026-11-01 25:00:00"])
def test_what_is_no_date_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid isoformat|must be in|hour must be|month must be"):
        seconds(value)


@given(st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2100, 1, 1)))  # noqa: DTZ001 - drawn without a zone
def test_every_moment_survives_its_text(moment: dt.datetime) -> None:
    utc = moment.replace(tzinfo=dt.UTC)
    assert seconds(moment.isoformat()) == utc.timestamp()
    assert seconds(utc.isoformat()) == utc.timestamp()


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"session_id": "a"}, "a"),
        ({"Session ID": 7}, "7"),
        ({"session": 0}, "0"),
        ({"session_id": "a", "session": "b"}, "a"),
        ({"session": ""}, None),
        ({"session": None}, None),
        ({}, None),
    ],
)
def test_a_session_is_what_says_so_first(row: dict[str, Any], wanted: str | None) -> None:
    assert session_of(row) == wanted


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (
            {"timestamp": 1500, "input_length": 6755, "output_length": 500, "hash_ids": [0, 1, 2]},
            TracedRequest(1.5, 6755, 500, hash_ids=(0, 1, 2)),
        ),
        ({"timestamp": 0, "input_length": 1, "output_length": 2}, TracedRequest(0.0, 1, 2)),
        (
            {"timestamp": 0, "input_length": 1, "output_length": 2, "hash_ids": None},
            TracedRequest(0.0, 1, 2),
        ),
        ({"TIMESTAMP": 9, "ContextTokens": 4808, "GeneratedTokens": 10}, TracedRequest(9.0, 4808, 10)),
        (
            {"Timestamp": 5, "Session ID": 3, "Request tokens": 472, "Response tokens": 18},
            TracedRequest(5.0, 472, 18, session="3"),
        ),
        (
            {"arrival_s": 1, "input_tokens": 2, "output_tokens": 3, "cached_tokens": 1, "session": "s"},
            TracedRequest(1.0, 2, 3, 1, "s"),
        ),
        ({"timestamp": 4, "input_tokens": 2, "output_tokens": 3}, TracedRequest(4.0, 2, 3)),
        ({"arrival_s": "7", "input_tokens": "2", "output_tokens": "3"}, TracedRequest(7.0, 2, 3)),
    ],
)
def test_each_formats_words(row: dict[str, Any], wanted: TracedRequest) -> None:
    """Mooncake's milliseconds, the others' seconds; numbers in text are numbers."""
    assert request_of(row) == wanted


@pytest.mark.parametrize(
    ("row", "known"),
    [
        ({"input_length": 1}, True),
        ({"ContextTokens": 1}, True),
        ({"Request tokens": 1}, True),
        ({"arrival_s": 1}, True),
        ({"timestamp": 1, "input_tokens": 2}, False),  # a usage record: for the cost model
        ({}, False),
    ],
)
def test_a_trace_is_told_from_a_usage_record(row: dict[str, Any], known: bool) -> None:
    assert is_trace_row(row) is known


def test_requests_come_in_order_of_time_whatever_the_file(put: Put) -> None:
    rows = [{"arrival_s": at, "input_tokens": 1, "output_tokens": 1} for at in (5, 1, 3)]
    found = read_requests(put(json.dumps(rows)))
    assert [request.at_s for request in found] == [1, 3, 5]


@pytest.mark.parametrize("layout", ["lines", "list", "blank_lines", "bom", "crlf", "no_last_newline"])
def test_json_comes_in_lines_or_as_a_list(put: Put, layout: str) -> None:
    rows = [{"arrival_s": at, "input_tokens": 10 + at, "output_tokens": 1} for at in range(3)]
    lines = [json.dumps(row) for row in rows]
    text = {
        "lines": "\n".join(lines) + "\n",
        "list": json.dumps(rows, indent=1),
        "blank_lines": "\n\n".join(lines) + "\n\n",
        "bom": "\ufeff" + "\n".join(lines),
        "crlf": "\r\n".join(lines) + "\r\n",
        "no_last_newline": "\n".join(lines),
    }[layout]
    assert [request.input_tokens for request in read_requests(put(text))] == [10, 11, 12]


@pytest.mark.parametrize(
    "head", ["TIMESTAMP,ContextTokens,GeneratedTokens", "TIMESTAMP , ContextTokens,GeneratedTokens "]
)
def test_csv_columns_are_found_by_name_in_any_order(put: Put, head: str) -> None:
    names = head.split(",")
    text = ",".join(reversed(names)) + "\n20,100,2.0\n\n30,200,1\n"
    assert read_requests(put(text)) == [TracedRequest(1.0, 200, 30), TracedRequest(2.0, 100, 20)]


def test_csv_may_have_more_columns_and_quotes(put: Put) -> None:
    text = 'note,arrival_s,input_tokens,output_tokens\n"a, ""b""\nc",1,2,3\n'
    assert read_requests(put(text)) == [TracedRequest(1.0, 2, 3)]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('{"arrival_s": 1, "input_tokens": 2}\n', 1, "'output_tokens' is missing"),
        (
            '{"arrival_s": 1, "input_tokens": 2, "output_tokens": 3}\n{"input_tokens": 2}\n',
            2,
            "'timestamp' is missing",
        ),
        ('{"arrival_s": 1, "input_tokens": "many", "output_tokens": 3}\n', 1, "many"),
        ('{"arrival_s": "soon", "input_tokens": 1, "output_tokens": 3}\n', 1, "soon"),
        ('{"arrival_s": 1, "input_tokens": null, "output_tokens": 3}\n', 1, "NoneType"),
        ('{"arrival_s": 1, "input_tokens": 1e999, "output_tokens": 3}\n', 1, ""),
        ('{"arrival_s": 1, "input_tokens": 1, "output_tokens": 3}\nnonsense\n', 2, "not JSON"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n1,2\n", 3, "'GeneratedTokens' is missing"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,,3\n", 2, ""),
        ('[{"arrival_s": 1, "input_tokens": 1, "output_tokens": 3}, 7]', 2, ""),
        ('{"input_length": 1, "timestamp": 1, "output_length": 1, "hash_ids": 5}\n', 1, "int"),
    ],
)
def test_the_line_that_is_wrong_is_named(put: Put, text: str, line: int, said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read_requests(put(text))
    assert f"trace: line {line}:" in caught.value.message
    assert said in caught.value.message
    assert "arrival_s" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no request"),
        (b"\n \n", "holds no request"),
        (b"[]", "holds no request"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no request"),
        (b'{"arrival_s": 1, "input_tokens": 0, "output_tokens": 5}\n', "holds no request"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[{]", "not JSON"),
        (b"a,b\n" + b'"' + b"x" * 200_000 + b'",1\n', "not CSV"),  # a field beyond csv's limit
    ],
)
def test_what_holds_no_request_says_so(put: Put, content: bytes, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        read_requests(put(content))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"none: cannot be read: No such file"):
        read_rows(tmp_path / "none", remedy="")


def test_failed_requests_are_left_out(put: Put) -> None:
    """Azure logs them with no generated token, BurstGPT with no response token."""
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n1,10,0\n2,0,10\n3,10,10\n"
    assert read_requests(put(text)) == [TracedRequest(3.0, 10, 10)]


@pytest.mark.parametrize(("limit", "count"), [(None, 5), (1, 1), (3, 3), (99, 5)])
def test_a_limit_is_of_requests(put: Put, limit: int | None, count: int) -> None:
    text = "\n".join(f'{{"arrival_s": {i}, "input_tokens": 1, "output_tokens": 1}}' for i in range(5))
    assert len(read_requests(put(text), limit=limit)) == count


def answer(name: str | None, at: str, **usage: int) -> str:
    message: dict[str, Any] = {"role": "assistant", "usage": usage}
    if name is not None:
        message["id"] = name
    return json.dumps({"type": "assistant", "sessionId": "s", "timestamp": at, "message": message})


def test_claude_code_repeats_an_answer_for_each_part_of_it(put: Put) -> None:
    """Once a message id; the prompt is fresh, read and written tokens together: 3 + 900 + 100."""
    usage = {
        "input_tokens": 3, "output_tokens": 20, "cache_read_input_tokens": 900,
        "cache_creation_input_tokens": 100,
    }  # fmt: skip
    lines = [
        '{"type": "summary", "summary": "what it was about"}',
        '{"type": "user", "sessionId": "s", "timestamp": "x", "message": {"role": "user", "content": "hi"}}',
        answer("m1", "2026-11-01T00:00:01Z", **usage),
        answer("m1", "2026-11-01T00:00:02Z", **usage),
        answer("m2", "2026-11-01T00:00:09Z", input_tokens=5, output_tokens=1),
        '{"type": "user", "sessionId": "s", "message": "text of an old version"}',
    ]
    start = 20758 * 86400.0
    assert read_requests(put("\n".join(lines))) == [
        TracedRequest(start + 1, 1003, 20, 900, "s"),
        TracedRequest(start + 9, 5, 1, 0, "s"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"sessionId": "s", "timestamp": "2026-11-01", "message": {"id": "m", "usage": 5}}', "get"),
        (
            '{"sessionId": "s", "message": {"id": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}}',
            "'tim",
        ),
        (answer("m", "2026-11-01", output_tokens=1), "'input_tokens' is missing"),
        (answer("m", "then", input_tokens=1, output_tokens=1), "then"),
    ],
)
def test_a_damaged_session_file_is_named_by_line(put: Put, line: str, said: str) -> None:
    with pytest.raises(BadInputError, match="line 1: ") as caught:
        read_requests(put(line))
    assert said in caught.value.message


@pytest.mark.parametrize("start", ["start_time", "starting_at"])
def test_usage_reports_give_their_results_with_the_buckets_time(put: Put, start: str) -> None:
    """OpenAI's and Anthropic's pages of buckets; what is no bucket is passed over."""
    report = {
        "object": "page",
        "data": [
            {start: 1730419200, "results": [{"input_tokens": 1}, {"input_tokens": 2}, "none"]},
            "none",
            {start: 1730505600, "results": []},
            {start: 1730592000, "results": None},
        ],
    }
    assert read_rows(put(json.dumps(report)), remedy="") == [
        (1, {"bucket_start": 1730419200, "input_tokens": 1}),
        (2, {"bucket_start": 1730419200, "input_tokens": 2}),
    ]


def test_a_line_that_speaks_of_data_is_no_report(put: Put) -> None:
    text = '{"data": 1, "arrival_s": 1, "input_tokens": 1, "output_tokens": 1}\n'
    assert read_requests(put(text)) == [TracedRequest(1.0, 1, 1)]


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 10**5)),
        min_size=1,
        max_size=20,
    )
)
def test_json_and_csv_of_the_same_traffic_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]]
) -> None:
    """And nothing is lost or made."""
    folder = tmp_path_factory.mktemp("same")
    names = ("arrival_s", "input_tokens", "output_tokens")
    csv_file, json_file = folder / "a.csv", folder / "a.jsonl"
    csv_file.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]))
    json_file.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows))
    found = read_requests(csv_file)
    assert found == read_requests(json_file)
    assert sorted(rows) == sorted((int(r.at_s), r.input_tokens, r.output_tokens) for r in found)


@given(st.binary(max_size=80))
def test_no_bytes_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "trace"
    path.write_bytes(data)
    try:
        found = read_requests(path)
    except BadInputError as error:
        found = []
        assert str(path) in error.message  # noqa: PT017 - either is right
    assert all(request.input_tokens > 0 for request in found)

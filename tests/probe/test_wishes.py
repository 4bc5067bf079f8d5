"""What users of other load generators bring along: headers, fields, goodput, CSV."""

from __future__ import annotations

import csv
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.cli.main import run
from qwenhost.cli.probe_wishes import body_of, headers_of, slo_given, take_goodput
from qwenhost.errors import BadInputError
from qwenhost.facts import Slo
from qwenhost.measurements import RequestRecord
from qwenhost.probe import ProbeConfig
from qwenhost.probe.bodies import Ask, request_body
from qwenhost.probe.records import read_recording
from qwenhost.report.probe_csv import requests_csv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = (
    b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
    b'data: {"choices": [{"delta": {"content": "b"}, "finish_reason": "stop"}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}\n\n'
    b"data: [DONE]\n\n"
)


class Gateway(ThreadingHTTPServer):
    """Lets in whoever says which tenant they are; keeps what was said."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Door)
        self.seen: list[tuple[dict[str, str], Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        known = self.path == "/v1/models" and self.headers["x-tenant"] == "blue"
        self._say(200 if known else 403, json.dumps({"data": [{"id": "m"}]}).encode(), "application/json")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/chat/completions" or self.headers["x-tenant"] != "blue":
            self._say(403, b"{}", "application/json")
            return
        self.server.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self._say(200, EVENTS, "text/event-stream")

    def _say(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    yield server
    server.shutdown()
    server.server_close()


SMALL = ["--requests", "3", "--warmup", "0", "--concurrency", "1", "--input-tokens", "40", "--seed", "1"]


def test_headers_and_fields_are_in_every_request_and_in_no_recording(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway that asks for a tenant is passed, preparation included; the header's value stays secret."""
    file = tmp_path / "run.jsonl"
    arguments = [
        "probe",
        gateway.url,
        *SMALL,
        "--header",
        "x-tenant=blue",
        "--header",
        "authorization=Key k1",
    ]
    fields = '{"top_p": 0.8, "chat_template_kwargs": {"depth": 3}}'
    code = run(
        [*arguments, "--extra-body", fields, "--temperature", "0.5", "--no-thinking", "--records", str(file)]
    )
    assert code in (0, 5), capsys.readouterr().err
    load = [(headers, body) for headers, body in gateway.seen if "x-request-id" in headers]
    assert len(load) == 3
    for headers, body in load:
        assert headers["authorization"] == "Key k1"
        assert (body["top_p"], body["temperature"]) == (0.8, 0.5)
        assert body["chat_template_kwargs"] == {"enable_thinking": False, "depth": 3}
    assert b"blue" not in file.read_bytes()
    recorded = read_recording(file).head.config
    assert recorded.extra_headers == (("x-tenant", ""), ("authorization", ""))
    assert recorded.extra_body["top_p"] == 0.8


def test_a_resumed_run_asks_for_its_headers_again(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, since their values were not kept; with them it goes on where it was cut off."""
    file = tmp_path / "run.jsonl"
    run(["probe", gateway.url, *SMALL, "--header", "x-tenant=blue", "--records", str(file)])
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]))  # The head and one request: killed.
    capsys.readouterr()
    assert run(["probe", "--resume", str(file)]) == 2
    assert "other headers: x-tenant" in capsys.readouterr().err
    assert run(["probe", "--resume", str(file), "--header", "x-tenant=blue", "--json"]) in (0, 5)
    assert json.loads(capsys.readouterr().out)["requests"]["completed"] == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--header", "x-tenant: k-314"], "--header x-tenant: not NAME=VALUE"),
        (["--header", "k-314"], "--header: not NAME=VALUE"),
        (["--header", "Content-Length=5"], "--header Content-Length: the client sets it itself"),
        (["--header", "x-a=k-314\r\nx-c: d"], "--header x-a: its value is not plain ASCII"),
        (["--header", "x-a=\u00e9"], "--header x-a: its value is not plain ASCII"),
        (["--extra-body", "{"], "--extra-body: "),
        (["--extra-body", "[1]"], "--extra-body: Expected `object`"),
        (["--extra-body", "[" * 100_000], "--extra-body: "),
        (["--extra-body", '{"stream": false}'], "--extra-body: stream is not free"),
        (["--extra-body", '{"max_tokens": 5}'], "--extra-body: max_tokens is not free"),
        (["--goodput", "ttft=5"], "--goodput ttft=5: expected one of ttft, tpot, e2el and a limit"),
        (["--goodput", "itl:5"], "--goodput itl:5: expected one of"),
        (["--goodput", "ttft:0"], "--goodput ttft:0: expected one of"),
        (["--goodput", "ttft:nan"], "--goodput ttft:nan: expected one of"),
        (["--goodput", "ttft:5 ttft:6"], "--goodput ttft:6: the limit was given already"),
        (["--goodput", "ttft:5", "--slo-ttft-ms", "6"], "--goodput ttft:5: the limit was given already"),
        (["--temperature", "-1"], "--temperature"),
        (["--csv", "/nowhere/at/all.csv"], "--csv /nowhere/at/all.csv: no such folder"),
    ],
)
def test_what_cannot_be_sent_is_refused(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 before anything is sent, with the option named; a header's value is not repeated."""
    assert run(["probe", "http://127.0.0.1:9", *given]) == 2
    told = capsys.readouterr().err
    assert said in " ".join(told.split())
    assert "k-314" not in told


def test_fields_that_could_cost_more_do_not_go_to_a_paid_api(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cap could not be kept."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    arguments = ["probe", "--target", "sonnet", "http://127.0.0.1:9", "--max-usd", "1"]
    assert run([*arguments, "--extra-body", '{"service_tier": "priority"}']) == 2
    assert "--max-usd could not be kept" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("goodput", "limits"),
    [
        (("ttft:200", "tpot:50"), (200.0, 50.0, None)),
        (("ttft:200 tpot:50.5 e2el:4000",), (200.0, 50.5, 4000.0)),
        (("e2e:4000,ttft:1",), (1.0, None, 4000.0)),
        ((), (None, None, None)),
    ],
)
def test_goodput_is_written_as_in_vllms_benchmark(
    goodput: tuple[str, ...], limits: tuple[float | None, ...]
) -> None:
    """Repeated, or in one argument; the keys are vLLM's."""
    options: dict[str, Any] = {"goodput": goodput, "slo_ttft_ms": None, "slo_tpot_ms": None}
    take_goodput(options)
    assert (options["slo_ttft_ms"], options["slo_tpot_ms"], options["slo_e2e_ms"]) == limits
    assert slo_given(options) == bool(goodput)


def test_limits_of_goodput_are_all_there_are(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """The preset's TPOT limit does not apply beside them; a missed one is exit 5."""
    arguments = ["probe", gateway.url, *SMALL, "--header", "x-tenant=blue", "--json"]
    code = run([*arguments, "--goodput", "e2el:0.001"])
    told = json.loads(capsys.readouterr().out)["goodput"]
    assert (told["slo"]["ttft_ms"], told["slo"]["tpot_ms"], told["slo"]["e2e_ms"]) == (None, None, 0.001)
    assert (told["fraction"], code) == (0.0, 5)


def test_headers_of_ours_can_be_replaced_and_others_stand_beside() -> None:
    """One Authorization, however it is written."""
    given = headers_of(["AUTHORIZATION=Key x", "x-a=1=2"])
    config = ProbeConfig(url="http://x", api_key="own", extra_headers=given)
    assert config.headers == [("AUTHORIZATION", "Key x"), ("x-a", "1=2")]
    messages = ProbeConfig(url="http://x", api_key="own", endpoint="messages", extra_headers=given[1:])
    assert [name for name, _ in messages.headers] == [
        "Authorization",
        "anthropic-version",
        "x-api-key",
        "x-a",
    ]


def test_fields_are_merged_into_objects_and_replace_values() -> None:
    """Neither the body of the next request nor the fields themselves change."""
    extra = body_of('{"chat_template_kwargs": {"depth": {"a": 1}}, "temperature": 1}')
    ask = Ask(model="m", prompt="p", max_tokens=4, thinking=True, temperature=0.0, extra_body=extra)
    for _ in range(2):
        body = json.loads(request_body("chat", ask))
        assert body["chat_template_kwargs"] == {"enable_thinking": True, "depth": {"a": 1}}
        assert body["temperature"] == 1
    assert extra == {"chat_template_kwargs": {"depth": {"a": 1}}, "temperature": 1}
    with pytest.raises(BadInputError, match="n is not free"):
        body_of('{"n": 2}')


def test_a_row_for_each_request() -> None:
    """By due time; failed requests have their kind and empty cells; the limit decides the last column."""
    good = RequestRecord(
        index=4, scheduled_s=1.0, sent_s=1.001, first_token_s=1.2, last_s=1.5, input_tokens=9, output_tokens=4
    )
    bad = RequestRecord(index=7, scheduled_s=0.5, sent_s=0.5, error="http_503", http_status=503)
    rows = list(csv.DictReader(requests_csv([good, bad], Slo(ttft_ms=150)).splitlines()))
    assert [row["index"] for row in rows] == ["7", "4"]
    assert (rows[0]["error"], rows[0]["ttft_ms"], rows[0]["kept_slo"]) == ("http_503", "", "0")
    # Due at 1.0: first token after 200 ms, end after 500 ms, three gaps in 300 ms.
    assert float(rows[1]["ttft_ms"]) == pytest.approx(200)
    assert float(rows[1]["e2e_ms"]) == pytest.approx(500)
    assert float(rows[1]["tpot_ms"]) == pytest.approx(100)
    assert float(rows[1]["send_lag_ms"]) == pytest.approx(1)
    assert (rows[1]["kept_slo"], rows[1]["error"], rows[1]["session"]) == ("0", "", "")
    assert "kept_slo" not in requests_csv([good], None)


def test_csv_of_a_run_and_of_a_sweep(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each request; a row for each load, ascending."""
    file = tmp_path / "out.csv"
    arguments = ["probe", gateway.url, *SMALL[:4], "--header", "x-tenant=blue", "--csv", str(file)]
    run([*arguments, "--concurrency", "1"])
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["output_tokens"] for row in rows] == ["2", "2", "2"]
    run([*arguments, "--sweep", "concurrency=2,1"])
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["concurrency"] for row in rows] == ["1.0", "2.0"]
    assert all(float(row["ttft_ms_p50"]) > 0 and row["sent"] == "3" for row in rows)
    assert capsys.readouterr().err.count("Traceback") == 0

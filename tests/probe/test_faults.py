"""Every fault is provoked on a real socket; each is data, none is hidden, nothing hangs."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from truth_process import Truth

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.probe import ProbeResult, Progress
from qwenhost.probe.client import Client
from qwenhost.probe.clock import new_runner
from qwenhost.probe.exchange import Exchange
from qwenhost.probe.wire import parse_url, request_bytes

Measure = Callable[..., ProbeResult]


def errors_of(result: ProbeResult) -> dict[str, int]:
    return dict(result.measurements.requests.by_error)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status_429", "http_429"),
        ("status_503", "http_503"),
        ("cut_stream", "cut_stream"),
        ("close", "cut_stream"),
        ("no_end", "cut_stream"),
        ("malformed_event", "malformed_event"),
        ("error_event", "server_error"),
        ("zero_tokens", "zero_tokens"),
        ("reset", "reset"),
    ],
)
def test_each_fault_has_its_kind(truth: Any, measure: Measure, fault: str, kind: str) -> None:
    """Every second request fails, and is counted under its own name; the others are measured."""
    result = measure(truth.url(f"fault={fault},every=2"), rate=200.0, requests=8)
    assert errors_of(result) == {kind: 4}
    assert result.measurements.requests.completed == 4
    assert result.measurements.ttft_ms.p50 is not None
    assert "no request succeeded" not in (result.measurements.void_reason or "")
    assert any("4 of 8 requests failed" in said for said in result.measurements.warnings)


@pytest.mark.parametrize("fault", ["hang", "stall"])
def test_a_silent_server_ends_in_a_deadline(truth: Any, measure: Measure, fault: str) -> None:
    """No first byte within the time limit, or silence within the stream beyond the idle limit."""
    kind = {"hang": "timeout", "stall": "stalled"}[fault]
    limits = {"timeout_s": 0.6} if fault == "hang" else {"idle_timeout_s": 0.4}
    started = time.monotonic()
    result = measure(truth.url(f"fault={fault},every=4"), rate=100.0, requests=8, **limits)
    assert errors_of(result) == {kind: 2}
    assert time.monotonic() - started < 8


def test_a_cut_stream_keeps_the_tokens_that_came(truth: Any, measure: Measure) -> None:
    """Four of eight tokens arrived; they are on record and in no throughput."""
    result = measure(truth.url("fault=cut_stream"), requests=4)
    assert [len(record.token_times_s) for record in result.records] == [4, 4, 4, 4]
    assert result.measurements.output_tokens_per_s == 0
    assert result.measurements.void_reason == "no request succeeded (cut_stream)"


def test_what_the_server_said_is_kept(truth: Any, measure: Measure) -> None:
    """The body of an error answer, shortened."""
    result = measure(truth.url("fault=status_503"), requests=1)
    assert result.records[0].http_status == 503
    assert "made to fail" in (result.records[0].error_detail or "")


@pytest.mark.parametrize("fault", ["slow_headers", "split", "split_everywhere", "one_segment"])
def test_the_cuts_of_the_network_lose_nothing(truth: Any, measure: Measure, fault: str) -> None:
    """Headers byte by byte, events cut inside "data:" and inside a character, or many in one segment."""
    result = measure(truth.url(f"fault={fault},text=%20w%C3%B6rt"), requests=4, output=3)
    assert errors_of(result) == {}
    assert [len(record.token_times_s) for record in result.records] == [3, 3, 3, 3]


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses", "messages"])
def test_all_four_dialects_are_measured(truth: Any, measure: Measure, endpoint: str) -> None:
    """Two thinking tokens and four visible ones; completions knows no thinking."""
    think = "" if endpoint == "completions" else ",think=2"
    result = measure(truth.url(f"ttft=0.01,itl=0.01{think}"), endpoint=endpoint, output=6, requests=4)
    assert errors_of(result) == {}
    assert {record.output_tokens for record in result.records} == {6}
    assert all(record.input_tokens > 0 for record in result.records)
    for record in result.records:
        visible = 2 if think else 0
        assert record.first_visible_s == record.token_times_s[visible]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_both_names_of_the_reasoning_field_are_read(truth: Any, measure: Measure, field: str) -> None:
    """VLLM changed it."""
    result = measure(truth.url(f"think=3,reasoning={field}"), requests=2, output=5)
    assert all(len(record.token_times_s) == 5 for record in result.records)


def test_without_usage_chunks_are_counted_and_said(truth: Any, measure: Measure) -> None:
    """A server that reports no usage leaves nothing better."""
    result = measure(truth.url("usage=no"), requests=2, output=5)
    assert {record.output_tokens for record in result.records} == {5}
    assert any("no usage" in said for said in result.measurements.warnings)


def test_a_server_that_dies_ends_the_run_with_its_errors(own_truth: Any, measure: Measure) -> None:
    """Killed in the middle: cut or reset first, then refused, and the run ends at its time."""

    def kill_after_some(progress: Progress) -> None:
        if progress.completed >= 4:
            own_truth.process.kill()

    url = own_truth.url("ttft=0.05,itl=0.02")
    result = measure(url, duration_s=2.0, output=20, on_progress=kill_after_some)
    found = errors_of(result)
    assert result.measurements.requests.completed >= 4
    assert found["refused"] >= 4
    assert set(found) <= {"refused", "reset", "cut_stream"}
    # A slot pauses a quarter of a second after a failure: four slots fail at most 32 times in 2 s.
    assert found["refused"] <= 32


def exchange_with(port: int, *, timeout_s: float = 5.0) -> Exchange:
    """One request through the client, whatever comes of it."""
    target = parse_url(f"http://127.0.0.1:{port}")
    runner, selector = new_runner()

    async def once() -> Exchange:
        import asyncio

        done = asyncio.get_running_loop().create_future()
        client = Client(target, selector, on_end=done.set_result, timeout_s=timeout_s, idle_timeout_s=5)
        await client.open()
        client.start(Exchange(request_bytes(target, "GET", "/")))
        result: Exchange = await done
        await client.close()
        return result

    with runner:
        return runner.run(once())


def test_a_closed_port_is_refused() -> None:
    """Nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert exchange_with(port).error == "refused"


def test_a_port_that_never_answers_times_out() -> None:
    """The connection stands, no byte comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        exchange = exchange_with(server.getsockname()[1], timeout_s=0.3)
    assert exchange.error == "timeout"
    assert exchange.detail == "no complete answer within 0.3 s"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"hello, this is not HTTP\r\n\r\n", "malformed_http"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345", "cut_stream"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None),
    ],
)
def test_answers_of_strange_servers(answer: bytes, error: str | None) -> None:
    """Not HTTP, cut short, ended by closing, preceded by an interim answer."""

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        exchange = exchange_with(server.getsockname()[1])
        thread.join()
    assert exchange.error == error


def test_nobody_there_is_unavailable(measure: Measure) -> None:
    """Before any load: exit code 4."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnavailableError, match="refused"):
        measure(f"http://127.0.0.1:{port}")


def test_a_server_that_fails_every_warm_up_is_unavailable(truth: Any, measure: Measure) -> None:
    """With the server's own words."""
    with pytest.raises(UnavailableError, match=r"HTTP 503.*made to fail"):
        measure(truth.url("fault=status_503"), warmup=2)


def test_a_model_that_is_not_served_is_named(truth: Any, measure: Measure) -> None:
    """The remedy lists what is."""
    with pytest.raises(BadInputError, match="other") as caught:
        measure(truth.url(), model="other")
    assert caught.value.remedy == "It serves: truth."


def test_requests_longer_than_the_context_are_refused(truth: Any, measure: Measure) -> None:
    """The truth server says max_model_len 4096."""
    with pytest.raises(BadInputError, match="4,096"):
        measure(truth.url(), output=5000)


@pytest.mark.parametrize("label", ["card", "header"])
def test_a_simulation_is_labelled(truth: Any, measure: Measure, label: str) -> None:
    """By its model card or by a header."""
    server = measure(truth.url(f"simulated={label}"), requests=1).measurements.server
    assert (server.name, server.simulated) == ("simulated", True)


def test_tls_is_spoken_and_certificates_are_checked(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the certificate trusted the run works, without it the failure says tls."""
    certificate = Path(__file__).parent / "tls/localhost.pem"
    server = Truth(str(certificate))
    try:
        url = f"https://localhost:{server.port}/itl=0.005"
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(UnavailableError, match="tls"):
            measure(url)
        monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate))
        result = measure(url, requests=6, output=5)
        assert errors_of(result) == {}
        assert {len(record.token_times_s) for record in result.records} == {5}
    finally:
        server.stop()

"""A conversation with an engine that answers anything at all, over a real socket."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.launcher.failures import FailureScanner, classify, hung, not_executable, not_ready, not_serving
from qwenhost.launcher.health import (
    BecameReady,
    Endpoint,
    HealthMonitor,
    Limits,
    Liveness,
    NotServing,
    Pulse,
)
from qwenhost.launcher.phases import Phase, StartProgress, split_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Answer = tuple[int, bytes]
MODELS = json.dumps({"data": [{"id": "m"}]}).encode()
CHAT = json.dumps({"choices": [{"message": {"content": "x"}}]}).encode()


class Engine:
    """Answers as told, by path; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | None] = {
            "/health": (200, b""), "/v1/models": (200, MODELS), "/v1/chat/completions": (200, CHAT),
            "/metrics": (200, b""),
        }  # fmt: skip
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                engine.asked.append((self.command, self.path, dict(self.headers), body))
                answer = engine.answers.get(self.path, (404, b""))
                if answer is None:  # cuts the connection without a word
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            do_POST = do_GET  # noqa: N815 - the name http.server calls

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def first(engine: Engine, key: str | None = None) -> BecameReady | NotServing:
    return Endpoint(engine.url, key).first_completion(timeout_s=5)


def test_ready_is_one_token_of_the_model_that_is_served(engine: Engine) -> None:
    """Not a port that is open: vLLM opens it before the model can answer."""
    assert first(engine, "secret-key") == BecameReady("m")
    (_, models, headers, _), (method, chat, _, body) = engine.asked
    assert (models, method, chat) == ("/v1/models", "POST", "/v1/chat/completions")
    assert headers["Authorization"] == "Bearer secret-key"
    asked = json.loads(body)
    assert (asked["model"], asked["max_tokens"]) == ("m", 1)


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("/v1/models", (401, b'{"error": "no key"}'), '/v1/models answered 401: {"error": "no key"}'),
        ("/v1/models", (500, b"x" * 900), "/v1/models answered 500: " + "x" * 200),
        ("/v1/models", (200, b"<html>"), "not the answer of an OpenAI-compatible API"),
        ("/v1/models", (200, b'{"data": []}'), "not the answer of an OpenAI-compatible API"),
        ("/v1/models", (200, b'{"data": [{}]}'), "not the answer"),
        ("/v1/models", (200, b"[]"), "not the answer"),
        ("/v1/chat/completions", (400, b"bad\n  request"), "/v1/chat/completions answered 400: bad request"),
        ("/v1/chat/completions", (200, b"{}"), "not the answer"),
        ("/v1/chat/completions", (200, b'{"choices": []}'), "not the answer"),
        ("/v1/chat/completions", (200, b"\xff"), "not the answer"),
        ("/v1/chat/completions", None, "no answer: "),
    ],
)
def test_anything_else_is_not_serving_and_says_why(
    engine: Engine, path: str, answer: Answer | None, said: str
) -> None:
    engine.answers[path] = answer
    found = first(engine)
    assert isinstance(found, NotServing)
    assert found.detail.startswith(said)
    assert len(found.detail) > len("no answer: ")


def test_nobody_there_is_not_up() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as taken:
        port = taken.server_port
    here = Endpoint(f"http://127.0.0.1:{port}", None)
    assert not here.is_up(timeout_s=0.5)
    assert isinstance(here.first_completion(timeout_s=0.5), NotServing)
    pulse = here.pulse(timeout_s=0.5)
    assert not pulse.healthy
    assert "refused" in pulse.detail


@pytest.mark.parametrize(("status", "up"), [(200, True), (204, False), (503, False), (404, False)])
def test_up_is_health_with_200(engine: Engine, status: int, up: bool) -> None:
    engine.answers["/health"] = (status, b"")
    assert Endpoint(engine.url, None).is_up() is up


METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:generation_tokens_total{engine="0",model_name="m"} TOKENS
vllm:request_success_total{engine="0"} 9.0
"""


def test_a_pulse_sums_the_ranks_and_sees_movement(engine: Engine) -> None:
    """A counter that stands still for a while with work at hand is a hung engine."""
    pulses = []
    for tokens in ("10.0", "10.0", "11.0"):
        engine.answers["/metrics"] = (200, METRICS.replace("TOKENS", tokens).encode())
        pulses.append(Endpoint(engine.url, None).pulse(timeout_s=5))
    assert [pulse.running for pulse in pulses] == [5, 5, 5]
    assert pulses[0].progress == pulses[1].progress != pulses[2].progress


@pytest.mark.parametrize("answer", [(404, b""), (200, b""), (200, b"\xff\xfe"), (500, METRICS.encode())])
def test_without_metrics_a_pulse_is_health_alone(engine: Engine, answer: Answer) -> None:
    engine.answers["/metrics"] = answer
    pulse = Endpoint(engine.url, None).pulse(timeout_s=5)
    assert pulse == Pulse(healthy=True, detail="", running=None, progress="")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def judged(pulses: list[tuple[float, Pulse]]) -> list[str | None]:
    clock = Clock()
    here = Liveness(Limits(unhealthy_pulses=3, stall_s=100), clock)
    found = []
    for at, pulse in pulses:
        clock.now = at
        found.append(here.judge(pulse))
    return found


GOOD = Pulse(healthy=True, detail="", running=0)
BAD = Pulse(healthy=False, detail="/health: timed out")


def working(progress: str) -> Pulse:
    return Pulse(healthy=True, detail="", running=1, progress=progress)


@pytest.mark.parametrize(
    ("pulses", "verdicts"),
    [
        ([(0, GOOD), (1000, GOOD)], [None, None]),
        ([(0, BAD), (5, BAD), (10, BAD)], [None, None, "unhealthy"]),
        ([(0, BAD), (5, BAD), (10, GOOD), (15, BAD), (20, BAD)], [None] * 5),
        ([(0, Pulse(healthy=False, detail="/health answered 503: dead"))], ["unhealthy"]),
        ([(0, working("a")), (100, working("a")), (100.5, working("a"))], [None, None, "hung"]),
        ([(0, working("a")), (99, working("b")), (198, working("b")), (200, working("b"))],
         [None, None, None, "hung"]),
        ([(0, working("a")), (90, GOOD), (150, working("a")), (200, working("a"))], [None] * 4),
        ([(0, working("a")), (200, Pulse(healthy=True, detail="", running=None))], [None, None]),
    ],
)  # fmt: skip
def test_pulses_are_judged_over_time(pulses: list[tuple[float, Pulse]], verdicts: list[str | None]) -> None:
    assert judged(pulses) == verdicts


def wait_for(what: Callable[[], object]) -> None:
    done = threading.Event()
    for _ in range(500):
        if what():
            return
        done.wait(0.02)
    raise AssertionError("it never came")


def test_the_monitor_tells_of_readiness_once_and_then_of_each_pulse(engine: Engine) -> None:
    engine.answers["/health"] = (503, b"")
    told: list[Any] = []
    monitor = HealthMonitor(Endpoint(engine.url, None), Limits(pulse_every_s=0.01), told.append)
    wait_for(lambda: engine.asked)
    assert told == []
    engine.answers["/health"] = (200, b"")
    wait_for(lambda: len(told) >= 3)
    monitor.stop()
    assert told[0] == BecameReady("m")
    assert all(isinstance(event, Pulse) for event in told[1:])


TRACEBACK = """\
(EngineCore pid=7) ERROR 11-23 10:00:00 [core.py:1] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-23 10:00:00 [core.py:1]   File "x.py", line 1, in f
(EngineCore pid=7) ERROR 11-23 10:00:00 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to \
allocate 2.00 GiB.
RuntimeError: Engine core initialization failed. See root cause above.
"""


def test_the_root_cause_is_found_above_the_last_line() -> None:
    found = classify(TRACEBACK.splitlines(), 1)
    assert found.trigger == "out_of_memory"
    assert "CUDA out of memory" in found.cause
    assert found.exit_code == 1
    assert "the engine failed: " in found.message


@pytest.mark.parametrize(
    ("exit_code", "kind", "transient"),
    [(-9, "killed", True), (-11, "crashed", True), (-15, "crashed", True), (0, "exited", True),
     (1, "exited", False), (None, "exited", False)],
)  # fmt: skip
def test_without_a_word_the_exit_code_speaks(exit_code: int | None, kind: str, transient: bool) -> None:
    found = classify(["INFO 11-23 10:00:00 [a.py:1] all is well"], exit_code)
    assert (found.kind, found.transient) == (kind, transient)
    assert found.remedy


def test_notices_are_no_reasons() -> None:
    """A warning that speaks of memory is not why it ended."""
    scanner = FailureScanner()
    for level in ("INFO", "WARNING", "DEBUG"):
        scanner.feed(split_line(f"{level} 11-23 10:00:00 [a.py:1] CUDA out of memory may follow"))
    assert not scanner.found


def test_a_cause_is_shortened_and_the_log_is_named() -> None:
    found = classify([f"ValueError: {'long ' * 400}"], 1)
    assert len(found.cause) <= 500
    assert "engine.log" in found.to_error(log="engine.log").remedy


def test_errors_carry_the_exit_code_of_whose_fault_it_is() -> None:
    """2 where a flag or path is to blame, else 4."""
    assert not_executable("no such file").to_error(log="l").exit_code == 2
    for failure in (hung(180), not_serving("400"), not_ready(60, StartProgress(phase=Phase.WEIGHTS))):
        assert failure.to_error(log="l").exit_code == 4
    assert "loading weights" in not_ready(60, StartProgress(phase=Phase.WEIGHTS)).cause
    assert hung(180).transient
    assert not not_serving("400").transient

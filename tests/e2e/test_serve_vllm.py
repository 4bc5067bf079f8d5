"""``qwenhost serve`` and real vLLM: ready, guarded, drained, restarted, and never left behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from qwenhost.launcher.process import session_members

from .conftest import API_KEY, Serve, Served

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def ask(
    url: str, *, headers: dict[str, str] | None = None, body: Any = None, method: str = "GET"
) -> tuple[int, bytes]:
    """Status and body."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} | (headers or {})
    request = urllib.request.Request(url, data=data, headers=sent, method=method if data is None else "POST")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def chat(served: Served, *, max_tokens: int = 8, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """One chat completion."""
    question = {
        "model": served.state.model,
        "messages": [{"role": "user", "content": "How long is a token?"}],
        "max_tokens": max_tokens,
    }
    known = served.headers() if headers is None else headers
    status, body = ask(f"{served.base_url}/v1/chat/completions", headers=known, body=question)
    return status, json.loads(body)


def engine_family(served: Served) -> list[psutil.Process]:
    pid = served.state.engine_pid
    assert pid is not None
    family = session_members(pid)
    assert len(family) >= 2, "vLLM's server and its engine core"
    return family


def run_serve(*words: str, state: Path) -> subprocess.CompletedProcess[str]:
    """``qwenhost serve`` to its end."""
    environ = os.environ | {"QWENHOST_STATE_DIR": str(state), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "qwenhost.cli.main", "serve", "--target", "cpu", *words],
        env=environ, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


# ------------------------------------------------------------------------------ one engine, shared


def test_a_ready_service_answers(engine: Served) -> None:
    """A real completion of the tiny model."""
    status, answer = chat(engine)
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 8


def test_the_state_holds_vllms_own_figures(engine: Served) -> None:
    """Read from the log: the version, and what /metrics says about the cache."""
    figures = engine.state.figures
    assert figures.vllm_version == "0.32.0"
    _, metrics = ask(f"{engine.base_url}/metrics", headers=engine.headers())
    info = next(line for line in metrics.decode().splitlines() if line.startswith("vllm:cache_config_info"))
    label = re.search(r'kv_cache_size_tokens="(\d+)"', info)
    assert label is not None
    assert figures.kv_cache_tokens == int(label[1])


def test_every_route_but_health_wants_the_key(engine: Served) -> None:
    """The routes are the engine's own list, from its log; /invocations is full inference."""
    log = engine.home.log_file.read_text()
    routes = re.findall(r"Route: (\S+), Methods: ([A-Z, ]+)", log)
    assert len(routes) > 20
    assert any(path == "/invocations" for path, _ in routes)
    for path, methods in routes:
        for method in methods.split(", "):
            url = engine.base_url + re.sub(r"\{.*?\}", "x", path)
            status, _ = ask(url, method=method, body={} if method == "POST" else None)
            assert status == (200 if path == "/health" else 401), f"{method} {path}"


@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
def test_both_kinds_of_clients_get_in(engine: Served, header: str) -> None:
    """OpenAI's send a bearer token, Anthropic's x-api-key, which vLLM itself refuses."""
    value = f"Bearer {API_KEY}" if header == "Authorization" else API_KEY
    question = {
        "model": engine.state.model,
        "max_tokens": 4,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    status, body = ask(f"{engine.base_url}/v1/messages", headers={header: value}, body=question)
    assert status == 200, body
    status, _ = ask(f"{engine.base_url}/v1/messages", headers={header: value + "x"}, body=question)
    assert status == 401


def test_the_key_stands_in_no_process_list_and_no_file(engine: Served) -> None:
    """Neither argv nor log nor state."""
    for process in [*engine_family(engine), psutil.Process(engine.process.pid)]:
        assert API_KEY not in " ".join(process.cmdline())
    written = b"".join(path.read_bytes() for path in engine.home.path.iterdir())
    assert API_KEY.encode() not in written


def test_a_second_service_of_that_name_is_refused(engine: Served, tiny: Path, vllm_bin: str) -> None:
    """Before anything is started."""
    done = run_serve(
        "--model", str(tiny), "--vllm-bin", vllm_bin, "--name", "e2e", state=engine.home.path.parent
    )
    assert done.returncode == 2
    assert "already running" in done.stderr


def test_the_supervisor_costs_little(engine: Served) -> None:
    """Under 80 MB resident, under 1 % of one core."""
    process = psutil.Process(engine.process.pid)
    assert process.memory_info().rss < 80e6
    before, started = process.cpu_times(), time.monotonic()
    time.sleep(5)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    assert used / (time.monotonic() - started) < 0.01


# ------------------------------------------------------------------------------ faults before the engine


def test_a_port_in_use_is_our_error(tiny: Path, vllm_bin: str, tmp_path: Path) -> None:
    """Found before vLLM is started, with who listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_serve("--model", str(tiny), "--vllm-bin", vllm_bin, "--port", port, state=tmp_path)
    assert done.returncode == 4
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "default/engine.log").exists()


def test_a_wrong_flag_is_our_error(tiny: Path, vllm_bin: str, tmp_path: Path) -> None:
    """VLLM's parser refuses it; no traceback, no second try."""
    flags = ("--extra-arg", "--nosuchflag", "--extra-arg", "1")
    done = run_serve("--model", str(tiny), "--vllm-bin", vllm_bin, "--port", "0", *flags, state=tmp_path)
    assert done.returncode == 2  # --port 0 is refused by us
    done = run_serve("--model", str(tiny), "--vllm-bin", vllm_bin, "--port", "18991", *flags, state=tmp_path)
    assert done.returncode == 2
    assert "unrecognized arguments: --nosuchflag" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("starting tiny") == 1


def test_a_damaged_shard_is_named_before_the_start(tiny: Path, vllm_bin: str, tmp_path: Path) -> None:
    """A file cut short by a lost connection."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in tiny.iterdir():
        content = file.read_bytes()
        (folder / file.name).write_bytes(content[:-7] if file.suffix == ".safetensors" else content)
    done = run_serve("--model", str(folder), "--vllm-bin", vllm_bin, state=tmp_path)
    assert done.returncode == 2
    assert "model.safetensors" in done.stderr


# ------------------------------------------------------------------------------ engines of their own


def test_an_engine_death_is_survived_and_ctrl_c_drains(serve: Serve) -> None:
    """The engine core dies, vLLM's server notices and ends with exit code 0; both come back."""
    served = serve(name="mortal")
    first = served.wait_for(lambda state: state.status == "ready")
    core = next(p for p in engine_family(served) if "EngineCore" in " ".join(p.cmdline()))
    core.kill()
    died_at = time.monotonic()
    again = served.wait_for(lambda state: state.status == "ready" and state.engine_pid != first.engine_pid)
    assert again.restarts == 1
    assert again.failure is not None
    assert again.failure.exit_code == 0
    assert again.ready_s is not None
    assert time.monotonic() - died_at < again.ready_s + 12  # vLLM itself notices after some seconds
    assert chat(served)[0] == 200

    family = engine_family(served)
    answers: list[tuple[int, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(chat(served, max_tokens=100)))
    thread.start()
    time.sleep(1.0)
    served.process.send_signal(signal.SIGINT)
    thread.join(60)
    assert served.process.wait(60) == 0
    assert answers[0][0] == 200, "the request in flight was finished"
    assert answers[0][1]["usage"]["completion_tokens"] == 100
    assert not [process for process in family if process.is_running()]
    assert "Traceback" not in served.output.read_text()


def test_a_hung_engine_with_an_answering_front_is_found(serve: Serve) -> None:
    """SIGSTOP for the engine core: /health goes on saying 200, a request runs, and no token comes."""
    served = serve("--stall-timeout", "10", name="hung")
    served.wait_for(lambda state: state.status == "ready")
    family = engine_family(served)
    core = next(p for p in family if "EngineCore" in " ".join(p.cmdline()))
    thread = threading.Thread(target=_ask_in_vain, args=(served,))
    thread.start()
    time.sleep(2.0)
    core.suspend()
    assert ask(f"{served.base_url}/health")[0] == 200
    found = served.wait_for(lambda state: state.failure is not None, within_s=60)
    assert found.failure is not None
    assert (found.failure.kind, found.failure_counts) == ("hung", {"hung": 1})
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    thread.join(30)
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(60)


def _ask_in_vain(served: Served) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        chat(served, max_tokens=1500)


def test_kill_9_of_the_supervisor_leaves_no_engine(serve: Serve) -> None:
    """During the start, when vLLM swallows SIGTERM and its engine core exists already."""
    served = serve(name="orphan")
    served.wait_for(lambda state: state.phase in ("workers", "weights", "kv", "graphs", "api", "ready"))
    family = engine_family(served)
    served.process.kill()
    served.process.wait()
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    assert served.state.status in ("starting", "ready")
    shown = subprocess.run(
        [sys.executable, "-m", "qwenhost.cli.main", "status", "orphan", "--json"],
        env=os.environ | {"QWENHOST_STATE_DIR": str(served.home.path.parent)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(shown.stdout)["failure"]["kind"] == "supervisor_died"

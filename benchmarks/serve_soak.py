"""Kill and restart a service 200 times: nothing that was answered is lost, and nothing is left behind.

Three parts, on the simulated engine, whose start is short:

- cycles: of ten, eight kill the engine (-9), one kills the supervisor (-9), one drains (SIGTERM) with a
  request in flight, which must come back whole. A client asks all the time; every answer it takes for
  complete must be so. After each end of a supervisor no process, port or passing file may remain.
- recovery: fresh services with the command line's own restart policy, killed once each; the time from the
  death to ready again, less what the engine itself took to start.
- overhead: CPU and memory of the supervisor while the engine serves.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import psutil
from common import write_result

from qwenhost.launcher.build import build_launch, free_port
from qwenhost.launcher.command import ServeOptions
from qwenhost.launcher.restart import RestartPolicy
from qwenhost.launcher.service import serve
from qwenhost.launcher.state import ServiceHome
from qwenhost.plan import load_plan

CYCLES = 200
TOKENS = 8
GONE_WITHIN_S = 15.0
MARK = "QWENHOST_SOAK"
BARS = {"recovery_over_start_s": 2.0, "supervisor_cpu_of_a_core": 0.01, "supervisor_rss_bytes": 80e6}


class Service:
    """A supervisor in a process of its own, and everything it says."""

    def __init__(self, root: Path, plan: Path, port: int, *, patient: bool) -> None:
        self.port, self.root = port, root
        environ = os.environ | {MARK: str(root), "TMPDIR": str(root / "tmp")}
        words = [
            "--supervise",
            str(root / "state"),
            str(plan),
            str(port),
            *(["--patient"] if patient else []),
        ]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *words], env=environ, stdout=subprocess.PIPE, text=True
        )
        self.wait_for("ready")

    def wait_for(self, kind: str) -> tuple[float, dict[str, Any]]:
        """The next event of a kind, and when it came."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            if event["kind"] == kind:
                return time.monotonic(), event
        raise AssertionError(f"no {kind}")

    @property
    def state(self) -> Any:
        """As its file says."""
        return ServiceHome("soak", root=self.root / "state").read_state()

    def end(self, number: int) -> None:
        """A signal, and the end."""
        self.process.send_signal(number)
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Client:
    """Asks all the time; what it takes for complete is looked at closely."""

    def __init__(self, port: int) -> None:
        self.complete = self.failed = self.broken = 0
        self._port, self._stop = port, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                good = is_whole(ask(self._port, TOKENS), TOKENS)
                self.complete, self.broken = self.complete + good, self.broken + (not good)
            except (OSError, ValueError, http.client.HTTPException):
                self.failed += 1
                time.sleep(0.02)

    def stop(self) -> None:
        """No more questions."""
        self._stop.set()
        self._thread.join()


def ask(port: int, tokens: int) -> Any:
    """One completion."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def is_whole(answer: Any, tokens: int) -> bool:
    """All tokens, and an end."""
    choice = answer["choices"][0]
    return bool(answer["usage"]["completion_tokens"] == tokens and choice["finish_reason"] == "length")


def left_behind(root: Path, port: int) -> list[str]:
    """What is still there a while after a supervisor's end."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while (found := _found(root, port)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _found(root: Path, port: int) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(root):
                found.append(f"process {process.pid} {process.name()}")
        except psutil.Error:
            continue
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            found.append(f"port {port}")
    found += [f"file {path}" for path in (root / "tmp").iterdir()]
    found += [
        line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if str(root) in line
    ]
    return found


def soak(root: Path, plan: Path, cycles: int) -> dict[str, Any]:
    """The cycles."""
    port = free_port()
    started = time.monotonic()
    service = Service(root, plan, port, patient=True)
    client = Client(port)
    counts = {"engine_killed": 0, "supervisor_killed": 0, "drained": 0}
    left: list[str] = []
    handles: list[int] = []
    for i in range(cycles):
        if i % 10 == 9:
            lost = drain(service)
            assert not lost, f"cycle {i}: a request in flight was lost: {lost}"
            counts["drained"] += 1
        elif i % 10 == 4:
            service.end(signal.SIGKILL)
            counts["supervisor_killed"] += 1
        else:
            handles.append(psutil.Process(service.process.pid).num_fds())
            os.kill(service.state.engine_pid, signal.SIGKILL)
            service.wait_for("ready")
            counts["engine_killed"] += 1
            continue
        left += left_behind(root, port)
        service = Service(root, plan, port, patient=True)
        if i % 20 == 19:
            print(f"  {i + 1} cycles, {client.complete} answers", flush=True)
    service.end(signal.SIGTERM)
    left += left_behind(root, port)
    client.stop()
    return {
        "cycles": counts,
        "answers_complete": client.complete,
        "answers_taken_for_complete_but_not": client.broken,
        "requests_refused_or_cut": client.failed,
        "left_behind": left,
        "file_handles_of_a_supervisor": {"least": min(handles), "most": max(handles)},
        "wall_s": round(time.monotonic() - started, 1),
    }


def drain(service: Service) -> str:
    """SIGTERM with a request in flight; empty if it came back whole."""
    answers: list[Any] = []

    def long_one() -> None:
        try:
            answers.append(ask(service.port, 200))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.append(str(error))

    thread = threading.Thread(target=long_one)
    thread.start()
    time.sleep(0.4)
    service.end(signal.SIGTERM)
    thread.join()
    return "" if isinstance(answers[0], dict) and is_whole(answers[0], 200) else str(answers[0])


def recovery(root: Path, plan: Path, times: int) -> dict[str, Any]:
    """From the engine's death to ready again, less the engine's own start."""
    over = []
    for _ in range(times):
        service = Service(root, plan, free_port(), patient=False)
        os.kill(service.state.engine_pid, signal.SIGKILL)
        died = time.monotonic()
        ready, event = service.wait_for("ready")
        over.append(ready - died - event["elapsed_s"])
        service.end(signal.SIGTERM)
    return {"times": times, "median_s": round(statistics.median(over), 3), "most_s": round(max(over), 3)}


def overhead(root: Path, plan: Path, seconds: float) -> dict[str, Any]:
    """Of the supervisor, while one client asks without a pause."""
    port = free_port()
    service = Service(root, plan, port, patient=False)
    client = Client(port)
    process = psutil.Process(service.process.pid)
    before_s, started = on_cpu_s(process.pid), time.monotonic()
    time.sleep(seconds)
    used_s, wall_s = on_cpu_s(process.pid) - before_s, time.monotonic() - started
    memory = process.memory_info().rss
    client.stop()
    service.end(signal.SIGTERM)
    return {
        "seconds": round(wall_s, 1),
        "cpu_of_a_core": round(max(0.0, used_s) / wall_s, 5),
        "cpu_resolution_of_a_core": round(0.01 / wall_s, 5),
        "rss_bytes": memory,
        "answers": client.complete,
    }


def on_cpu_s(pid: int) -> float:
    """User and system time, which the kernel counts in hundredths of a second."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def supervise(state: str, plan: str, port: str, *, patient: bool) -> None:
    """The supervisor's process; patient: it restarts without end and soon."""
    home = ServiceHome("soak", root=Path(state))
    home.lock()
    options = ServeOptions(port=int(port))
    launch = build_launch(load_plan(Path(plan)), home, options, engine="simulated", startup_s=0.05)
    if patient:
        policy = RestartPolicy(initial_s=0.1, factor=1.0, jitter=0.0, max_restarts=1_000_000)
        launch = dataclasses.replace(launch, policy=policy)
    outcome = serve(
        launch, home, on_event=lambda event: print(msgspec.json.encode(event).decode(), flush=True)
    )
    sys.exit(outcome.exit_code)


def main() -> None:
    """All three parts, held against their bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=CYCLES)
    parser.add_argument("--supervise", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--patient", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.supervise:
        supervise(*given.supervise, patient=given.patient)
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        root = Path(folder)
        (root / "tmp").mkdir()
        plan = root / "plan.json"
        plan_words = ["plan", "--gpus", "2xH200", "--save", str(plan)]
        subprocess.run(
            [sys.executable, "-m", "qwenhost.cli.main", *plan_words], check=True, stdout=subprocess.DEVNULL
        )
        result = {
            "soak": soak(root, plan, given.cycles),
            "recovery_over_start": recovery(root, plan, 5),
            "supervisor": overhead(root, plan, 60.0),
            "bars": BARS,
        }
    print(json.dumps(result, indent=2))
    if given.cycles == CYCLES:
        print(f"wrote {write_result('serve_soak', result)}")
    check(result)


def check(result: dict[str, Any]) -> None:
    """The bars."""
    assert result["soak"]["left_behind"] == []
    assert result["soak"]["answers_taken_for_complete_but_not"] == 0
    assert result["recovery_over_start"]["most_s"] <= BARS["recovery_over_start_s"]
    assert result["supervisor"]["cpu_of_a_core"] < BARS["supervisor_cpu_of_a_core"]
    assert result["supervisor"]["rss_bytes"] < BARS["supervisor_rss_bytes"]


if __name__ == "__main__":
    main()

"""One vLLM, started with exact flags, its log kept, and gone again at the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

STOP_WITHIN_S = 30.0


class EngineFailedError(Exception):
    """The engine ended or was not ready in time; the text is the end of its log."""


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    url: str
    log: Path
    ready_s: float

    def metrics(self) -> dict[str, float]:
        """Its metrics: sums over labels, by name."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found: dict[str, float] = {}
        for name, value in re.findall(r"^(vllm:\w+)(?:\{[^}]*\})? ([-+.\deE]+|NaN)$", text, re.MULTILINE):
            found[name] = found.get(name, 0.0) + float(value)
        return found


@contextlib.contextmanager
def running(
    argv: Sequence[str], env: Mapping[str, str], log: Path, *, port: int, within_s: float
) -> Iterator[Engine]:
    """Start, wait until it answers a request, stop with all it started.

    An engine that a killed call left behind, as it lives in a session of its own, is ended first: it holds
    the GPU's memory and the port.

    Raises:
        EngineFailedError: it did not come up.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    left_behind = log.parent / "engine.pid"
    end_left_behind(left_behind)
    url, begun = f"http://127.0.0.1:{port}", time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            argv, env=dict(env), stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    left_behind.write_text(f"{process.pid}\n")
    try:
        while not answers(url):
            if process.poll() is not None or time.monotonic() - begun > within_s:
                raise EngineFailedError(log.read_text(errors="replace")[-3000:])
            time.sleep(0.5)
        yield Engine(url, log, time.monotonic() - begun)
    finally:
        stop(process)
        left_behind.unlink(missing_ok=True)


def answers(url: str) -> bool:
    """Whether a completion of one token succeeds."""
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as models:
            name = json.load(models)["data"][0]["id"]
        body = json.dumps({"model": name, "prompt": "The model reads the prompt.", "max_tokens": 1}).encode()
        request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120):
            return True
    except (OSError, ValueError, KeyError):
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole group, politely first."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
    deadline = time.monotonic() + STOP_WITHIN_S
    while members(process.pid) and time.monotonic() < deadline:  # Workers may outlive the group's leader.
        time.sleep(0.2)


def members(group: int) -> list[str]:
    """Command lines of a process group's living members; zombies that nobody reaps hold nothing."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # Gone in the meantime.
            state, _parent, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


def end_left_behind(note: Path) -> None:
    """End the process group noted there, if it is still an engine's."""
    if not note.is_file():
        return
    group = int(note.read_text())
    if any("vllm" in command.lower() for command in members(group)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        deadline = time.monotonic() + STOP_WITHIN_S
        while members(group) and time.monotonic() < deadline:
            time.sleep(0.2)
    note.unlink()

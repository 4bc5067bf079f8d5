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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

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

    Raises:
        EngineFailedError: it did not come up.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    url, begun = f"http://127.0.0.1:{port}", time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            argv, env={**os.environ, **env}, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while not answers(url):
            if process.poll() is not None or time.monotonic() - begun > within_s:
                raise EngineFailedError(log.read_text(errors="replace")[-3000:])
            time.sleep(0.5)
        yield Engine(url, log, time.monotonic() - begun)
    finally:
        stop(process)


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
    while time.monotonic() < deadline:  # Workers of the group may outlive its leader for a moment.
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)

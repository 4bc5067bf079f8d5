"""Real simulated engines on loopback."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from live_engine import LiveEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(__file__).with_name("simulated_process.py")
DEADLINE_S = 30.0


class EngineProcess:
    """A running engine: its port, its log, its end."""

    def __init__(self, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(options)], stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.log.extend(iter(lines.readline, ""))

    @property
    def port(self) -> int:
        """Where it listens, once it says it is ready."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end and self.process.poll() is None:
            text = "".join(self.log)
            found = re.search(r"Starting vLLM server on http://127\.0\.0\.1:(\d+)", text)
            if found and "Application startup complete" in text:
                return int(found.group(1))
            time.sleep(0.01)
        raise AssertionError("".join(self.log))

    @property
    def url(self) -> str:
        """Base of all paths."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> int:
        """Its exit code."""
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def end(self) -> None:
        """Whatever state it is in."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.wait()


@pytest.fixture
def start_engine() -> Iterator[Callable[..., EngineProcess]]:
    """Start engines with options; they end with the test."""
    started: list[EngineProcess] = []

    def start(**options: Any) -> EngineProcess:
        started.append(EngineProcess(**options))
        return started[-1]

    yield start
    for engine in started:
        engine.end()


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    """One engine for tests that leave it as it was; half of each answer is thinking."""
    process = EngineProcess(thinking_share=0.5, step_ms=4.0)
    yield process
    process.end()


@pytest.fixture(scope="session")
def live() -> Iterator[LiveEngine]:
    """In this process, for tests that leave it as it was; half of each answer is thinking."""
    engine = LiveEngine(thinking_share=0.5)
    yield engine
    engine.end()


@pytest.fixture(scope="session")
def plain() -> Iterator[LiveEngine]:
    """As ``live``, but it never thinks."""
    engine = LiveEngine()
    yield engine
    engine.end()


@pytest.fixture
def start_live() -> Iterator[Callable[..., LiveEngine]]:
    """Start engines with options, in this process; they end with the test."""
    started: list[LiveEngine] = []

    def start(**options: Any) -> LiveEngine:
        started.append(LiveEngine(**options))
        return started[-1]

    yield start
    for engine in started:
        engine.end()

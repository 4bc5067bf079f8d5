"""One real vLLM for the whole session, started and stopped by our own command line.

A start takes 40 to 60 seconds of both cores, so the tests share one engine; those that must end or
break an engine start their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from e2e import engine_env, tiny_model
from qwenhost.launcher.build import free_port
from qwenhost.launcher.state import ServiceHome, ServiceState

if TYPE_CHECKING:
    from pathlib import Path

API_KEY = "e2e-key-0123456789"
READY_WITHIN_S = 240.0


@dataclass(frozen=True)
class Served:
    """A service that ``qwenhost serve`` runs in a process of its own."""

    process: subprocess.Popen[str]
    home: ServiceHome
    base_url: str
    api_key: str | None
    output: Path
    """What it printed."""

    @property
    def state(self) -> ServiceState:
        """As its state file says."""
        found = self.home.read_state()
        assert found is not None
        return found

    def wait_for(
        self, reached: Callable[[ServiceState], bool], *, within_s: float = READY_WITHIN_S
    ) -> ServiceState:
        """The first state for which ``reached`` holds."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            state = self.home.read_state()
            if state is not None and reached(state):
                return state
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.1)
        raise AssertionError(f"not within {within_s} s:\n{self.output.read_text()}")

    def headers(self) -> dict[str, str]:
        """Of a request that may pass."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def vllm_bin() -> str:
    """VLLM's CPU build; without it the run says so loudly, and fails where it is required."""
    try:
        return str(engine_env.build(progress=lambda line: print(line, file=sys.stderr)))
    except engine_env.EngineBuildError as error:
        said = f"REAL vLLM WAS NOT TESTED: {error}"
        print(f"\n{'!' * 100}\n{said}\n{'!' * 100}", file=sys.stderr)
        if os.environ.get("QWENHOST_REQUIRE_ENGINE") == "1":
            pytest.fail(said)
        pytest.skip(said)


@pytest.fixture(scope="session")
def tiny(vllm_bin: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Qwen3.5-MoE checkpoint."""
    del vllm_bin
    return tiny_model.make_tiny_model(tmp_path_factory.mktemp("model") / "tiny-qwen35moe")


@pytest.fixture(scope="session")
def serve(vllm_bin: str, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start ``qwenhost serve --target cpu`` with further flags; whatever is left is ended at the end."""
    started: list[Served] = []

    def start(*flags: str, api_key: str | None = None, name: str = "e2e") -> Served:
        root = tmp_path_factory.mktemp("state")
        output = root / "serve.out"
        port = free_port()
        environ = {k: v for k, v in os.environ.items() if k != "QWENHOST_API_KEY"}
        environ |= {"QWENHOST_STATE_DIR": str(root), "NO_COLOR": "1"}
        if api_key:
            environ["QWENHOST_API_KEY"] = api_key
        command = [sys.executable, "-m", "qwenhost.cli.main", "serve", "--target", "cpu"]
        command += ["--model", str(tiny), "--port", str(port), "--vllm-bin", vllm_bin, "--name", name, *flags]
        with output.open("w") as file:
            process = subprocess.Popen(
                command, env=environ, stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )
        served = Served(process, ServiceHome(name, root=root), f"http://127.0.0.1:{port}", api_key, output)
        started.append(served)
        return served

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.send_signal(signal.SIGTERM)
    for served in started:
        try:
            served.process.wait(60)
        except subprocess.TimeoutExpired:
            served.process.kill()


@pytest.fixture(scope="session")
def engine(serve: Serve) -> Served:
    """A ready vLLM with a key, for all tests that only talk to it."""
    served = serve(api_key=API_KEY)
    served.wait_for(lambda state: state.status == "ready")
    return served

"""No engine outlives its supervisor, however that ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

STAND_IN = Path(__file__).parent / "stand_in.py"
SUPERVISE = textwrap.dedent(
    """
    import json, sys, time
    from pathlib import Path
    from qwenhost.launcher.build import free_port
    from qwenhost.launcher.command import EngineCommand
    from qwenhost.launcher.service import new_home, running_service
    from qwenhost.launcher.launch import Launch

    port = free_port()
    command = EngineCommand(
        engine="vllm", argv=(sys.executable, sys.argv[1], "--port", str(port)), host="127.0.0.1",
        port=port, model="m", label="stand-in",
    )
    with running_service(Launch(command=command), home=new_home("orphan", root=Path(sys.argv[2]))) as service:
        print(service.state.engine_pid, flush=True)
        time.sleep(600)
    """
)


def start(tmp_path: Path, **faults: object) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A process that supervises a stand-in, and the stand-in's family."""
    environ = {**os.environ, "STAND_IN": json.dumps(faults)}
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(STAND_IN), str(tmp_path)],
        stdout=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip
    assert process.stdout is not None
    engine = psutil.Process(int(process.stdout.readline()))
    process.stdout.close()
    guard = engine.parent()
    assert guard is not None
    return process, [guard, engine, *engine.children(recursive=True)]


def gone(family: list[psutil.Process], *, within_s: float) -> bool:
    return not psutil.wait_procs(family, timeout=within_s)[1]


def test_kill_9_of_the_supervisor_ends_the_engine_and_its_workers(tmp_path: Path) -> None:
    """The guard sees the end of its pipe."""
    process, family = start(tmp_path, children=2)
    assert len(family) == 4
    process.kill()
    process.wait()
    assert gone(family, within_s=4)


def test_kill_9_of_the_supervisor_ends_an_engine_that_ignores_sigterm(tmp_path: Path) -> None:
    """After the grace of five seconds it is killed."""
    process, family = start(tmp_path, children=1, ignore_sigterm=True)
    process.kill()
    process.wait()
    assert gone(family, within_s=9)


def test_kill_9_of_the_guard_ends_the_engine_too(tmp_path: Path) -> None:
    """The kernel kills the engine, the supervisor its session; then it is started again."""
    process, family = start(tmp_path)
    guard = family[0]
    guard.kill()
    assert gone(family[1:], within_s=5)
    process.send_signal(signal.SIGINT)
    process.wait(20)


def test_an_interrupted_block_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C inside ``with running_service(...)``."""
    process, family = start(tmp_path, children=2)
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert gone(family, within_s=1)


@pytest.mark.parametrize("times", [3])
def test_killing_again_and_again_leaves_nothing(tmp_path: Path, times: int) -> None:
    """A small soak; the long one is a benchmark."""
    for i in range(times):
        process, family = start(tmp_path / str(i), children=1)
        process.kill()
        process.wait()
        assert gone(family, within_s=4)
        time.sleep(0.01)


@pytest.mark.parametrize("victim", ["supervisor", "guard", "engine", "nobody"])
def test_passing_files_go_with_the_engine(tmp_path: Path, victim: str) -> None:
    """Sockets and the like that a killed engine cannot remove; each one has a folder of its own for them."""
    process, family = start(tmp_path)
    guard, engine = family
    scratch = Path(engine.environ()["TMPDIR"])
    (scratch / "socket").touch()
    if victim == "nobody":
        process.send_signal(signal.SIGINT)
    else:
        {"supervisor": psutil.Process(process.pid), "guard": guard, "engine": engine}[victim].kill()
    deadline = time.monotonic() + 8
    while scratch.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not scratch.exists()
    process.send_signal(signal.SIGINT)
    process.wait(20)

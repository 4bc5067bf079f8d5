"""The scripts of the pods, run for real: with a stand-in for vllm, and against a simulated engine."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chart_kit import CHART, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = CHART / "files" / "scripts"
SIMULATED = ROOT / "tests" / "simulate" / "simulated_process.py"
KEY = "sk-of-the-test-0001"
PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 0.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 70.0
vllm:iteration_tokens_total_count{engine="1",model_name="m"} 5.0
"""


def program(folder: Path, name: str, text: str) -> None:
    """A shell script on the PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + text)
    (folder / name).chmod(0o755)


@pytest.fixture
def pod(tmp_path: Path) -> dict[str, str]:
    """Environment of an engine's container, with a vllm that prints what it was started with."""
    program(tmp_path / "bin", "vllm", 'echo "args: $*"; env; cat "$VLLM_CACHE_ROOT/graph" 2>/dev/null; true')
    for name in ("plan", "cache", "tmp"):
        (tmp_path / name).mkdir()
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "QWENHOST_PLAN_DIR": str(tmp_path / "plan"),
        "QWENHOST_CACHE_DIR": str(tmp_path / "cache"),
        "QWENHOST_CACHE_KEY": "vllm0.33.0-h200-tp2-pp1",
        "TMPDIR": str(tmp_path / "tmp"),
    }


def start(pod: dict[str, str], *arguments: str) -> str:
    """What the engine's script starts."""
    done = subprocess.run(
        ["sh", SCRIPTS / "engine.sh", *arguments], check=True, capture_output=True, text=True, env=pod
    )
    return done.stdout


def test_engine_runs_by_the_plan(pod: dict[str, str]) -> None:
    """VLLM reads the plan's file; the chart's flags come after it and win; its key is drawn for this pod."""
    first, second = start(pod, "--port", "8000"), start(pod, "--port", "8000")
    assert f"args: serve --config {pod['QWENHOST_PLAN_DIR']}/vllm.yaml --port 8000\n" in first
    keys = [
        line for text in (first, second) for line in text.splitlines() if line.startswith("VLLM_API_KEY=")
    ]
    assert len(set(keys)) == 2
    assert all(len(key) == len("VLLM_API_KEY=") + 64 for key in keys)


def test_engine_takes_what_the_init_container_wrote(pod: dict[str, str]) -> None:
    """/plan/env is the environment, /plan/cache-key the folder of compiled code."""
    plan = Path(pod["QWENHOST_PLAN_DIR"])
    (plan / "env").write_text("VLLM_USE_DEEP_GEMM=0\n")
    (plan / "cache-key").write_text("vllm0.33.0-sm80-tp8\n")
    said = start(pod)
    assert "\nVLLM_USE_DEEP_GEMM=0\n" in said
    assert f"VLLM_CACHE_ROOT={pod['QWENHOST_CACHE_DIR']}/vllm0.33.0-sm80-tp8/vllm" in said


def test_one_pod_writes_the_compile_cache(pod: dict[str, str]) -> None:
    """Who comes first writes to the shared folder; while it holds it, another works on a copy."""
    shared = Path(pod["QWENHOST_CACHE_DIR"]) / pod["QWENHOST_CACHE_KEY"]
    (shared / "vllm").mkdir(parents=True)
    (shared / "vllm" / "graph").write_text("compiled before\n")
    assert f"VLLM_CACHE_ROOT={shared}/vllm" in start(pod)
    with (shared / ".writer").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        said = start(pod)
    assert f"VLLM_CACHE_ROOT={pod['TMPDIR']}/compiled/vllm" in said
    assert said.endswith("compiled before\n")


@pytest.mark.parametrize(("index", "headless"), [("0", False), ("1", True)])
def test_groups_use_vllms_own_nodes(pod: dict[str, str], index: str, headless: bool) -> None:
    """Leader and workers get rank and leader from LeaderWorkerSet; workers serve no HTTP."""
    pod |= {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": index, "LWS_LEADER_ADDRESS": "qwen-0.qwen"}
    said = start(pod | {"QWENHOST_MASTER_PORT": "29500"}, "--port", "8000")
    assert f"--nnodes 2 --node-rank {index} --master-addr qwen-0.qwen --master-port 29500 --port 8000" in said
    assert ("--headless" in said) == headless


def test_groups_may_use_ray(pod: dict[str, str], tmp_path: Path) -> None:
    """A worker joins the leader's Ray cluster; the leader waits for every node, then starts vLLM on it."""
    program(tmp_path / "bin", "ray", 'echo "ray $*"')
    program(tmp_path / "bin", "python3", "echo 2")
    pod |= {
        "LWS_GROUP_SIZE": "2",
        "LWS_LEADER_ADDRESS": "lead",
        "QWENHOST_MULTI_NODE": "ray",
        "VLLM_HOST_IP": "10.0.0.1",
    }
    worker = start(pod | {"LWS_WORKER_INDEX": "1"})
    assert worker == "ray start --address=lead:6379 --node-ip-address=10.0.0.1 --block\n"
    leader = start(pod | {"LWS_WORKER_INDEX": "0"})
    assert leader.startswith("ray start --head --port=6379 --node-ip-address=10.0.0.1")
    assert "--distributed-executor-backend ray" in leader


def fetch(tmp_path: Path, **told: str) -> subprocess.CompletedProcess[str]:
    """The download's script with a `qwenhost fetch` that prints where it put the weights."""
    snapshot = tmp_path / "weights" / "key" / "hub" / "models--a--b" / "snapshots" / "c0"
    program(
        tmp_path / "bin", "qwenhost", f'echo "$*" >> {tmp_path}/calls; mkdir -p {snapshot}; echo {snapshot}'
    )
    env = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "TARGET": str(tmp_path / "weights" / "key"),
        **told,
    }
    return subprocess.run(["sh", SCRIPTS / "fetch.sh"], check=False, capture_output=True, text=True, env=env)


def test_download_marks_what_is_complete(tmp_path: Path) -> None:
    """The marker comes last, the model's path is relative, a second run fetches nothing."""
    assert fetch(tmp_path, REPO="a/b", REVISION="c0").returncode == 0
    folder = tmp_path / "weights" / "key"
    assert (folder / ".complete").is_file()
    assert str((folder / "model").readlink()) == "hub/models--a--b/snapshots/c0"
    assert fetch(tmp_path, REPO="a/b", REVISION="c0").returncode == 0
    assert (tmp_path / "calls").read_text() == f"fetch a/b --revision c0 --cache {folder}/hub\n"


def test_failed_download_is_not_marked(tmp_path: Path) -> None:
    """A fetch that fails ends the Job's attempt and leaves no marker."""
    program(tmp_path / "bin", "qwenhost", "exit 4")
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TARGET": str(tmp_path / "key"), "REPO": "a/b"}
    done = subprocess.run(["sh", SCRIPTS / "fetch.sh"], check=False, env=env)
    assert done.returncode == 4
    assert not (tmp_path / "key" / ".complete").exists()


def test_engine_waits_for_the_marker(tmp_path: Path) -> None:
    """The wait ends when every folder is marked, not before."""
    (tmp_path / "a").mkdir()
    command = ["sh", str(SCRIPTS / "wait.sh"), str(tmp_path / "a")]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command, check=False, timeout=1, capture_output=True)
    (tmp_path / "a" / ".complete").touch()
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith(
        "a: complete\n"
    )


@pytest.fixture
def alive() -> Any:
    """The liveness probe as a module."""
    sys.path.insert(0, str(SCRIPTS))
    import alive

    yield alive
    sys.path.remove(str(SCRIPTS))


def test_liveness_tells_a_stalled_engine(alive: Any, tmp_path: Path) -> None:
    """An engine with requests and no step all the time is dead; an idle one or one that steps is not."""
    state = str(tmp_path / "state")
    assert alive.stalled_engines(PAGE, {}, state, 600, 0.0) == ""
    assert alive.stalled_engines(PAGE, alive.load(state), state, 600, 599.0) == ""
    said = alive.stalled_engines(PAGE, alive.load(state), state, 600, 600.0)
    assert said == "engine 0: 3 requests run, no step for 600 s"
    stepped = PAGE.replace("} 70.0", "} 71.0")
    assert alive.stalled_engines(stepped, alive.load(state), state, 600, 601.0) == ""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """A simulated engine with the test's key."""
    key = tmp_path / "keys"
    key.write_text(KEY + "\n")
    given = json.dumps({"key_file": str(key), "step_ms": 1.0, "thinking_share": 0.5})
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, SIMULATED, given], stdout=out, stderr=out)
    try:
        for _ in range(600):
            if "startup complete" in log.read_text():
                break
            time.sleep(0.1)
        yield re.findall(r"server on (http://\S+)", log.read_text())[0]
    finally:
        process.terminate()
        process.wait(20)


def test_liveness_asks_a_running_engine(endpoint: str, tmp_path: Path) -> None:
    """Alive while it answers, dead with a reason when nobody listens."""
    (tmp_path / "metrics-key").write_text(KEY)
    command = [
        sys.executable,
        "-I",
        SCRIPTS / "alive.py",
        "--key-file",
        tmp_path / "metrics-key",
        "--state",
        tmp_path / "state",
        "--timeout",
        "5",
    ]
    assert subprocess.run([*command, "--url", endpoint], check=False).returncode == 0
    assert set(json.loads((tmp_path / "state").read_text())) == {"0"}
    dead = subprocess.run(
        [*command, "--url", "http://127.0.0.1:9"], check=False, capture_output=True, text=True
    )
    assert dead.returncode == 1
    assert "/health: " in dead.stderr


def test_selftest_reports_each_test(endpoint: str, tmp_path: Path) -> None:
    """A line of JSON for each; what an engine without a model cannot answer fails with what was wanted."""
    (tmp_path / "client-key").write_text(KEY)
    done = subprocess.run(
        [sys.executable, "-I", SCRIPTS / "selftest.py", "no-key", "chat"],
        check=False,
        capture_output=True,
        text=True,
        env={"URL": endpoint, "MODEL": "qwen", "KEY_FILE": str(tmp_path / "client-key"), "TIMEOUT": "20"},
    )
    assert done.returncode == 1
    no_key, chat = map(json.loads, done.stdout.splitlines())
    assert (no_key["test"], no_key["passed"]) == ("no-key", True)
    assert (chat["test"], chat["passed"]) == ("chat", False)
    assert chat["problem"].startswith("WrongAnswerError: wanted an answer with Paris in it, got ")


def test_selftest_knows_its_names() -> None:
    """A test that does not exist is a usage error."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / "selftest.py", "caht"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: selftest.py chat tool-call")


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse(script: Path) -> None:
    """Plain sh takes them."""
    subprocess.run(["sh", "-n", script], check=True)

"""The two commands over real plans."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "qwenhost.cli.main"]
DEADLINE_S = 30.0


def qwenhost(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=60, check=False)


def simulated(*args: str) -> dict[str, Any]:
    """The command's JSON."""
    done = qwenhost("simulate", "--gpus", "2xH200", "--json", *args)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved plan for two H200."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    done = qwenhost("plan", "--gpus", "2xH200", "--workload", "chat", "--save", str(path))
    assert done.returncode == 0, done.stderr
    return path


class TestSimulate:
    def test_an_open_loop(self) -> None:
        """The contract's keys, the rate asked for, and nothing claimed as measured."""
        found = simulated("--workload", "chat", "--rate", "4", "--requests", "200", "--seed", "7")
        assert found["schema"] == "qwenhost.simulation/1"
        assert (found["basis"], found["simulated"], found["seed"]) == ("modelled", True, 7)
        assert found["requests"] == {"sent": 200, "completed": 200, "failed": 0, "by_error": {}}
        assert found["load"]["rate"] == 4
        assert 0 < found["tpot_ms"]["p50"] < found["ttft_ms"]["p50"] < found["e2e_ms"]["p50"]
        assert {"preemptions", "kv_cache_usage", "wall_s", "output_tokens_per_s"} <= set(found)
        assert found["gpus"] == "2x NVIDIA H200"
        assert any("lognormal" in line for line in found["assumptions"])

    def test_the_seed_decides(self) -> None:
        """The same seed gives the same figures, another one others."""
        args = ("--input-tokens", "500", "--output-tokens", "50", "--rate", "5", "--requests", "50")
        first, again, other = (simulated(*args, "--seed", seed) for seed in ("1", "1", "2"))
        assert first | {"wall_s": 0} == again | {"wall_s": 0}
        assert first["ttft_ms"] != other["ttft_ms"]

    def test_more_users_more_throughput_slower_tokens(self) -> None:
        """Batching: 32 at once give more tokens a second, each more slowly, than one."""
        one, many = (
            simulated(
                "--input-tokens", "500", "--output-tokens", "50", "--concurrency", users, "--requests", "64"
            )
            for users in ("1", "32")
        )
        assert many["output_tokens_per_s"] > 4 * one["output_tokens_per_s"]
        assert many["tpot_ms"]["p50"] > one["tpot_ms"]["p50"]

    def test_a_trace(self, tmp_path: Path) -> None:
        """A recorded prefix is found again where prefix caching is on."""
        trace = tmp_path / "mooncake.jsonl"
        row = {"timestamp": 0, "input_length": 12000, "output_length": 20, "hash_ids": list(range(24))}
        trace.write_text("\n".join(json.dumps(row | {"timestamp": 9000 * i}) for i in range(3)))
        found = simulated("--trace", str(trace), "--enable-prefix-caching", "--num-speculative-tokens", "0")
        assert found["requests"]["completed"] == 3
        assert found["workload"]["id"] == "mooncake.jsonl"
        # Two of three prompts resume behind their last full block.
        assert 0.3 < found["prefix_cache_hit_rate"] < 2 / 3

    def test_people_read_that_it_is_simulated(self) -> None:
        """The word stands first."""
        done = qwenhost("simulate", "--gpus", "2xH200", "--rate", "2", "--requests", "20")
        assert done.returncode == 0
        assert done.stdout.startswith("SIMULATED ")

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (("--rate", "1", "--concurrency", "2"), "--rate and --concurrency exclude each other"),
            (("--trace", "/nowhere.csv"), "/nowhere.csv"),
            (("--num-speculative-tokens", "1", "--acceptance", "2"), "--acceptance"),
            (("--plan", "plan.json"), "plan.json has decided that"),
        ],
    )
    def test_bad_input_is_a_sentence(self, args: tuple[str, ...], message: str) -> None:
        """Exit 2, no traceback."""
        done = qwenhost("simulate", "--gpus", "2xH200", *args)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_the_engine_serves_a_plan(plan: Path, tmp_path: Path) -> None:
    """From the saved plan to an answer over HTTP, behind a key, and to a clean end."""
    key, log = tmp_path / "key", tmp_path / "log"
    key.write_text("secret\n")
    args = ["_simulated-engine", "--plan", str(plan), "--port", "0", "--api-key-file", str(key)]
    args += ["--startup-seconds", "0.2", "--served-model-name", "qwen"]
    with log.open("w") as file, subprocess.Popen([*COMMAND, *args], stderr=file) as process:
        try:
            url = _url(process, log)
            body = {"model": "qwen", "prompt": "Hello there", "max_tokens": 3, "ignore_eos": True}
            request = urllib.request.Request(
                f"{url}/v1/completions",
                json.dumps(body).encode(),
                {"Authorization": "Bearer secret", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                assert response.headers["x-qwenhost-simulated"] == "true"
                assert json.load(response)["usage"]["completion_tokens"] == 3
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    text = log.read_text()
    size = json.loads(plan.read_text())["chosen"]["kv_cache"]["tokens"]
    assert f"GPU KV cache size: {size:,} tokens" in text
    assert "secret" not in text


def test_an_unknown_fault_is_a_sentence(plan: Path) -> None:
    """Exit 2 with the kinds there are."""
    done = qwenhost("_simulated-engine", "--plan", str(plan), "--fault", "flood")
    assert done.returncode == 2
    assert "start-oom" in done.stderr


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end and process.poll() is None:
        text = log.read_text()
        if "Application startup complete" in text:
            found = re.search(r"http://127\.0\.0\.1:\d+", text)
            assert found
            return found.group()
        time.sleep(0.02)
    raise AssertionError(log.read_text())

"""Going on with a run that was killed or interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qwenhost.errors import BadInputError
from qwenhost.facts import TokenStats
from qwenhost.probe import run_probe
from qwenhost.probe.records import measurements_from
from qwenhost.probe.resume import read_resumption, require_same_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.probe import ProbeResult

    Measure = Callable[..., ProbeResult]


def cut(file: Path, *, records: int, half_a_line: bool = True) -> None:
    """Leave what a killed process would have: a head, some records, a piece of another."""
    lines = file.read_bytes().splitlines(keepends=True)
    rest = lines[records + 1][:40] if half_a_line else b""
    file.write_bytes(b"".join(lines[: records + 1]) + rest)


def go_on(file: Path) -> ProbeResult:
    resumption = read_resumption(file)
    config = msgspec.structs.replace(resumption.head.config, records=file)
    return run_probe(config, resumption=resumption)


@pytest.mark.parametrize("load", [{"concurrency": 2}, {"rate": 20.0}])
def test_what_is_missing_is_sent_and_nothing_twice(
    truth: Any, measure: Measure, tmp_path: Path, load: dict[str, Any]
) -> None:
    """Killed after 5 of 12: seven more, the same prompts that the whole run would have sent."""
    file = tmp_path / "run.jsonl"
    url = truth.url("log=body")
    truth.told()
    measure(url, requests=12, records=file, seed=7, **load)
    whole = {name: entry["body"] for name, entry in truth.told().items() if name.startswith("qwenhost-7")}
    cut(file, records=5)
    done = read_resumption(file).earlier.done
    result = go_on(file)
    again = {name: entry["body"] for name, entry in truth.told().items() if name.startswith("qwenhost-7")}
    warm = {name for name in again if int(name.split("-", 2)[2]) < 0}
    assert len(again.keys() - warm) == 7
    assert all(whole[name] == again[name] for name in again.keys() - warm)
    assert not {f"qwenhost-7-{index}" for index in done} & again.keys()
    assert sorted(r.index for r in result.records) == list(range(12))


def test_its_clock_goes_on_where_it_stood(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """Nothing of the second part is due before the end of the first."""
    file = tmp_path / "run.jsonl"
    measure(truth.url("ttft=0.02"), requests=10, rate=40.0, records=file, seed=1)
    cut(file, records=4)
    until = read_resumption(file).earlier.until_s
    later = go_on(file).records[4:]
    assert until > 0
    assert min(r.scheduled_s for r in later) == pytest.approx(until)


def test_the_file_tells_the_whole_run(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """The same figures as the run itself gave, and that it was resumed."""
    file = tmp_path / "run.jsonl"
    measure(truth.url(), requests=12, records=file, seed=7)
    cut(file, records=5)
    result = go_on(file)
    found = measurements_from(file, None)
    assert msgspec.to_builtins(found) == msgspec.to_builtins(result.measurements)
    assert found.requests.completed == 12
    assert any(said.startswith("resumed 1 time:") for said in found.warnings)


def test_a_run_is_resumed_again_and_again(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """Killed twice."""
    file = tmp_path / "run.jsonl"
    measure(truth.url(), requests=12, records=file, seed=7)
    cut(file, records=3)
    go_on(file)
    cut(file, records=8)  # The mark of the resumption is a line as well.
    result = go_on(file)
    assert sorted(r.index for r in result.records) == list(range(12))
    assert any(said.startswith("resumed 2 times:") for said in result.measurements.warnings)


def test_sessions_go_on_with_their_next_turn(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """Two sessions of three turns, killed after four requests: two are left, with stand-in answers."""
    file = tmp_path / "run.jsonl"
    truth.told()
    options: dict[str, Any] = {"turns": 3, "concurrency": 1, "input_tokens": TokenStats(mean=200)}
    measure(truth.url("log=body"), requests=6, records=file, seed=5, output=5, **options)
    cut(file, records=4)
    truth.told()
    result = go_on(file)
    sent = [
        entry["body"]["messages"] for name, entry in sorted(truth.told().items()) if name[-2:] in ("-4", "-5")
    ]
    assert sorted((r.session, r.turn) for r in result.records) == [(s, t) for s in (0, 1) for t in (0, 1, 2)]
    assert [len(messages) for messages in sent] == [3, 5]
    assert len(sent[0][1]["content"].split()) in range(3, 8)  # About five tokens in place of the answer.


def test_a_complete_run_has_nothing_to_resume(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """And says how to look at it."""
    file = tmp_path / "run.jsonl"
    measure(truth.url(), requests=4, records=file)
    with pytest.raises(BadInputError, match="is complete"):
        read_resumption(file)


def test_other_settings_are_refused(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """What changes nothing of the load may change: a service level, a key."""
    file = tmp_path / "run.jsonl"
    measure(truth.url(), requests=4, records=file)
    config = read_recorded(file)
    require_same_settings(config, {"concurrency": 4, "api_key": "other", "gpus": "2xH200"})
    with pytest.raises(BadInputError, match="begun with concurrency = 4, not 8"):
        require_same_settings(config, {"concurrency": 8})


def read_recorded(file: Path) -> Any:
    cut(file, records=2)
    return read_resumption(file).head.config


def test_another_model_is_refused(truth: Any, measure: Measure, tmp_path: Path) -> None:
    """One run is of one server's model and version."""
    file = tmp_path / "run.jsonl"
    measure(truth.url(), requests=4, records=file)
    cut(file, records=2)
    file.write_bytes(file.read_bytes().replace(b'"version":"1.2.3"', b'"version":"1.2.2"'))
    with pytest.raises(BadInputError, match=r"truth on vllm 1\.2\.2, but truth on vllm 1\.2\.3"):
        go_on(file)


def command(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "qwenhost.cli.main", "probe", *map(str, arguments)]


def test_a_killed_process_is_resumed_from_the_command_line(truth: Any, tmp_path: Path) -> None:
    """SIGKILL in the middle; --resume needs nothing but the file, and takes no other load."""
    file = tmp_path / "run.jsonl"
    load = ["--requests", "30", "--concurrency", "2", "--output-tokens", "5", "--input-tokens", "50"]
    process = subprocess.Popen(command(truth.url("ttft=0.1"), *load, "--records", file))
    deadline = time.monotonic() + 30
    while not file.exists() or file.read_bytes().count(b"\n") < 6:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    other = subprocess.run(
        command("--resume", file, "--concurrency", "3"), capture_output=True, text=True, check=False
    )
    assert other.returncode == 2
    assert "begun with concurrency = 2, not 3" in other.stderr
    done = subprocess.run(
        command("--resume", file, "--requests", "30", "--json"), capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 5), done.stderr  # Void where this machine is too busy.
    assert json.loads(done.stdout)["requests"]["completed"] == 30

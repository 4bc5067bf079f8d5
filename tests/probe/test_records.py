"""A run's file of records, and the figures drawn anew from it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo
from qwenhost.measurements import RequestRecord
from qwenhost.probe.records import measurements_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.probe import ProbeResult

    Measure = Callable[..., ProbeResult]


@pytest.fixture
def recorded(truth: Any, measure: Measure, tmp_path: Path) -> tuple[Path, ProbeResult]:
    """Twelve requests, each third failing, judged by a TTFT of 10 s."""
    file = tmp_path / "run.jsonl"
    url = truth.url("ttft=0.05,fault=status_503,every=3")
    return file, measure(url, requests=12, records=file, slo=Slo(ttft_ms=10_000), api_key="secret-key-9")


def test_a_line_a_request_between_head_and_tail(recorded: tuple[Path, ProbeResult]) -> None:
    """The records of the result, in order, and no key."""
    file, result = recorded
    head, *lines, tail = file.read_bytes().splitlines()
    assert tuple(msgspec.json.decode(line, type=RequestRecord) for line in lines) == result.records
    assert json.loads(head)["schema"] == "qwenhost.records/1"
    assert json.loads(tail)["interrupted"] is False
    assert b"secret" not in file.read_bytes()


def test_the_figures_come_out_the_same(recorded: tuple[Path, ProbeResult]) -> None:
    """Every one of them, from the file alone."""
    file, result = recorded
    assert msgspec.to_builtins(measurements_from(file, None)) == msgspec.to_builtins(result.measurements)


def test_any_slo_can_be_judged_afterwards(recorded: tuple[Path, ProbeResult]) -> None:
    """10 s is kept by all eight that succeeded of twelve, 10 ms by none; latencies do not change."""
    file, result = recorded
    strict = measurements_from(file, Slo(ttft_ms=10))
    assert result.measurements.goodput is not None
    assert result.measurements.goodput.fraction == pytest.approx(8 / 12)
    assert strict.goodput is not None
    assert strict.goodput.fraction == 0
    assert strict.ttft_ms == result.measurements.ttft_ms


def test_a_recording_that_was_cut_off_still_counts(recorded: tuple[Path, ProbeResult]) -> None:
    """Killed within its ninth record: eight are left, and what cannot be known is said."""
    file, _ = recorded
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:9]) + lines[9][:30])
    found = measurements_from(file, None)
    assert found.requests.sent == 8
    assert found.interrupted
    assert any("cut off" in said for said in found.warnings)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "line 1"), ("{}\n", "schema is None, expected"), ("nonsense\n", "line 1")],
)
def test_another_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    """With the line and how to write one."""
    file = tmp_path / "other.jsonl"
    file.write_text(content)
    with pytest.raises(BadInputError, match=message):
        measurements_from(file, None)


def test_a_broken_line_is_named(recorded: tuple[Path, ProbeResult]) -> None:
    """The third."""
    file, _ = recorded
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], b"{broken\n", *lines[3:]]))
    with pytest.raises(BadInputError, match="line 3"):
        measurements_from(file, None)


def qwenhost(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwenhost.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_reads_it_without_a_server(recorded: tuple[Path, ProbeResult]) -> None:
    """The truth server is not asked; a missed limit is exit 5."""
    file, _ = recorded
    done = qwenhost("probe", "--from-records", str(file), "--slo-ttft-ms", "10", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 5
    assert found["goodput"]["slo"]["ttft_ms"] == 10
    assert found["requests"]["sent"] == 12


@pytest.mark.parametrize("arguments", [[], ["http://127.0.0.1:9", "--from-records", "x.jsonl"]])
def test_one_of_url_and_file(arguments: list[str]) -> None:
    """Neither or both is exit 2."""
    done = qwenhost("probe", *arguments)
    assert done.returncode == 2
    assert "--from-records" in done.stderr

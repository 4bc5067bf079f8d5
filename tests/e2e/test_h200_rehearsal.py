"""The H200 campaign's code, run for real on vLLM's CPU build: every step but its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "h200" / "campaign.py"

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_a_start_is_predicted_made_and_compared_and_not_made_twice(tmp_path: Path, vllm_bin: str) -> None:
    assert vllm_bin
    command = [sys.executable, str(CAMPAIGN), "memory", "--only", "int4", "--rehearse"]
    command += ["--out", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    kept = json.loads((tmp_path / "results" / "memory.int4.json").read_text())
    assert kept["stage"] == "rehearsal"
    assert "failed" not in kept
    assert kept["predicted"]["kv_cache"]["tokens"] > 0
    assert {row["figure"] for row in kept["check"]["differences"]} >= {"KV cache size", "block size"}
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == "complete\n"

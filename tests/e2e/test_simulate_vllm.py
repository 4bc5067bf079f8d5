"""The simulated engine beside real vLLM: the same requests, calibrated on others, and the same decisions.

The benchmark does the work; here all requests of a load come at once, so that what vLLM has to decide (who
runs, who waits, who is preempted, whose prefix is found) does not depend on how busy the machine is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "simulated_against_vllm.py"
REQUESTS = 14
BLOCK_TOKENS = 256


@pytest.fixture(scope="module")
def rows(vllm_bin: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each load: what vLLM did, what was predicted, and what the simulator does at vLLM's pace."""
    del vllm_bin  # that there is an engine
    output = tmp_path_factory.mktemp("simulated") / "rows.json"
    command = [
        sys.executable,
        str(BENCHMARK),
        "--at-once",
        "--requests",
        str(REQUESTS),
        "--output",
        str(output),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return {row["load"]: row for row in json.loads(output.read_text())["rows"]}


@pytest.mark.parametrize("load", ["cache exhausted", "shared prefix"])
def test_every_request_is_answered_in_both(rows: dict[str, Any], load: str) -> None:
    """And both have asked the cache for the same prompt tokens, each prompt's once."""
    row = rows[load]["paced"]
    assert row["requests"] == REQUESTS
    real, simulated = row["prefix_queries"]
    assert real == simulated > 0


def test_a_cache_too_small_preempts_as_often(rows: dict[str, Any]) -> None:
    """Six of some 560 + 260 tokens and three state blocks each want 42 of 40 blocks: someone must go.

    In which of the first steps a request comes in depends on its way through the HTTP server, and a
    preemption or two follow from that. Where every step's requests are known the two agree exactly
    (``test_scheduler_oracle``).
    """
    for kind in ("paced", "predicted"):
        real, simulated = rows["cache exhausted"][kind]["preemptions"]
        assert real > 0
        assert abs(real - simulated) <= max(2, real // 3)


def test_the_same_prefixes_are_found(rows: dict[str, Any]) -> None:
    """600 shared tokens are two whole blocks of 256: each request but the first few finds them."""
    for kind in ("paced", "predicted"):
        real, simulated = rows["shared prefix"][kind]["prefix_hits"]
        assert real % BLOCK_TOKENS == 0
        assert real >= BLOCK_TOKENS * REQUESTS
        assert abs(real - simulated) <= 2 * BLOCK_TOKENS


@pytest.mark.parametrize("load", ["cache exhausted", "shared prefix"])
@pytest.mark.parametrize(("name", "slack"), [("running", 0.35), ("waiting", 0.5), ("kv_cache_usage", 0.06)])
def test_queue_and_cache_follow_over_time(rows: dict[str, Any], load: str, name: str, slack: float) -> None:
    """At vLLM's pace: means over the run, and the mean distance at each instant.

    ``/metrics`` is read every 50 ms and may lag a step behind: a step of six sequences changes running or
    waiting by one, or the cache by one of its 40 blocks, for a small part of the time.
    """
    paced = rows[load]["paced"]
    real, simulated = paced[name]
    assert real > 0
    assert simulated == pytest.approx(real, abs=slack)
    assert paced[f"{name}_mean_difference"] <= 2 * slack
    assert paced[f"{name}_max"][1] == pytest.approx(paced[f"{name}_max"][0], rel=0.2)


@pytest.mark.parametrize("load", ["cache exhausted", "shared prefix"])
def test_the_queue_itself_is_predicted(rows: dict[str, Any], load: str) -> None:
    """Step times from another load: however fast the machine, 14 at once are 8 more than may run.

    A mean over a run's own time does not change when all its steps take twice as long, so that a machine
    that was busier than during the calibration does no harm.
    """
    predicted = rows[load]["predicted"]
    whole_s, (real_s, simulated_s) = max(predicted["duration_s"]), predicted["duration_s"]
    for name in ("running", "waiting", "kv_cache_usage"):
        real, simulated = predicted[name]
        assert simulated * whole_s / simulated_s == pytest.approx(real * whole_s / real_s, rel=0.2)
    assert predicted["running_max"] == [6, 6]

"""How the benchmarks of load generators climb, judge and print, on figures that can be checked by hand."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[dict[str, ModuleType]]:
    """The scripts import each other as they do when run."""
    before = list(sys.path)
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    names = {
        "capacity": "probe_capacity",
        "table": "probe_capacity_table",
        "soak": "probe_soak",
        "peers": "probe_peers",
    }
    yield {short: importlib.import_module(name) for short, name in names.items()}
    sys.path[:] = before


def level(rate: float, lag_ms: float) -> dict[str, Any]:
    return {"strict": lag_ms < 5, "lenient": lag_ms < 50, "rate": rate}


@pytest.mark.parametrize(
    ("lags", "following"),
    [
        ({25: 3.0}, 50),  # Both held: up.
        ({25: 20.0}, 50),  # Strict failed, lenient held: further up for lenient first.
        ({25: 20.0, 50: 60.0}, 12.5),  # Lenient is bracketed; strict has nothing that held.
        ({25: 20.0, 50: 60.0, 12.5: 9.0, 6.25: 8.0}, 3.125),
        ({25: 20.0, 50: 60.0, 12.5: 4.0}, 35.4),  # Halfway of 25 and 50 for the lenient: sqrt(1250).
        ({25: 20.0, 50: 60.0, 12.5: 4.0, 35.4: 51.0}, 17.7),  # And of 12.5 and 25 for the strict.
        ({25: 20.0, 50: 60.0, 12.5: 4.0, 17.7: 6.0, 35.4: 51.0}, None),
        ({25: 80.0, 12.5: 70.0, 6.25: 60.0, 3.125: 55.0}, None),  # Nothing held down to the slowest.
        ({25: 20.0, 50: 4.0}, 100),  # What failed below a level that held is chance.
        ({1600: 2.0}, None),  # The highest.
    ],
)
def test_a_climb_brackets_both_verdicts(
    benchmarks: dict[str, ModuleType], lags: dict[float, float], following: float | None
) -> None:
    """Doubling and halving first, then once halfway for each."""
    levels = {rate: level(rate, lag) for rate, lag in lags.items()}
    assert benchmarks["capacity"].next_rate(levels) == following


def test_p99_of_a_hundred_is_not_its_worst(benchmarks: dict[str, ModuleType]) -> None:
    """Nearest rank: 99 of 100 values are at or below the 99th."""
    at_share = benchmarks["capacity"].at_share
    assert at_share([float(i) for i in range(1, 101)], 0.99) == 99
    assert at_share([1.0, 2.0, 3.0], 0.99) == 3
    assert at_share([1.0, 2.0], 0.5) == 1
    assert at_share([], 0.99) == 0


def test_cpu_per_token_is_a_slope_over_levels_far_apart(benchmarks: dict[str, ModuleType]) -> None:
    """9 s to start and 100 us a token: 1,000 to 60,000 tokens tell it, 1,000 to 3,000 do not."""
    slope = benchmarks["capacity"].slope

    def levels(*tokens: int) -> list[dict[str, Any]]:
        return [{"tokens": n, "answered": n // 100, "client_cpu_s": 9 + n * 100e-6} for n in tokens]

    assert slope(levels(1000, 20_000, 60_000)) == pytest.approx(100)
    assert slope(levels(1000, 3000)) is None
    assert slope([]) is None


def test_send_lag_is_what_the_server_saw(benchmarks: dict[str, ModuleType]) -> None:
    """Ten a second; the twentieth comes 30 ms late, and the first second does not count."""
    load = benchmarks["peers"].Load("http://x", 10.0, 30, 100, Path(), "t")
    arrivals = [5 + i / 10 + (0.03 if i in (3, 20) else 0.0) for i in range(30)]
    log = {"requests": [[at, at + 0.2, at + 2.2, 100] for at in arrivals], "late": [0.001]}
    judged = benchmarks["capacity"].judged(log, load)
    assert (judged["answered"], judged["judged"], judged["tokens"]) == (30, 20, 3000)
    assert judged["send_lag_p99_ms"] == pytest.approx(30)
    assert judged["ttft_ms"]["p50"] == pytest.approx(200)
    assert judged["tokens_per_s"] == pytest.approx(3000 / (arrivals[-1] + 2.2 - 5))


def test_the_table_says_how_many_times_ours(benchmarks: dict[str, ModuleType]) -> None:
    """40,000 against 1,000 tokens/s, 10 us against 150; who held nothing says what failed."""
    capacity_level = {"strict": True, "offered_tokens_per_s": 1000.0, "ttft_error_ms": {"p50": 1, "p99": -2}}
    failed = capacity_level | {"strict": False, "offered_tokens_per_s": 312.0}

    def client(name: str, strict: float, lenient: float, cpu: float | None, one: Any) -> dict[str, Any]:
        rates = {"strict": strict, "lenient": lenient}
        return {"client": name, "version": "1.0", "sustained_tokens_per_s": rates, "cpu_us_per_token": cpu,
                "levels": [one]}  # fmt: skip

    rows = {
        "peer": client("peer", 1000, 5000, 150.0, capacity_level),
        "qwenhost": client("qwenhost probe", 40_000, 60_000, 10.0, capacity_level),
        "slow": client("slow", 0, 0, None, failed),
    }
    lines = (
        benchmarks["table"]
        .table({"clients": rows, "conditions": "One server", "missing": ["gone"]})
        .splitlines()
    )
    assert lines[2] == "| qwenhost probe 1.0 | 40,000 | 60,000 | 10 us | 1.0 | +1.0 / -2.0 ms |"
    assert lines[3].startswith("| peer 1.0 | 1,000 | 5,000 | 150 us | 15.0 |")
    assert lines[4].startswith("| slow 1.0 | none (312 failed) | none (312 failed) | - | - |")
    said = "\n".join(lines)
    assert "40 times the sustained rate of peer within 5 ms, 12 times the sustained rate" in said
    assert "15 times as many tokens for the same CPU as peer" in said
    assert "Not here, so not measured: gone." in said


def test_memory_is_judged_once_the_bounds_are_passed(benchmarks: dict[str, ModuleType]) -> None:
    """120 requests/s hold all they will after 833 s; 1 MiB in 100 s from there on is 36 an hour."""
    soak, asked = benchmarks["soak"], argparse.Namespace(minutes=25.0, rate=120.0, tokens=20)
    assert soak.bounds_passed_s(asked) == pytest.approx(100_000 / 120)
    memory = [(10.0 * i, 100.0 + min(10.0 * i, 890.0)) for i in range(150)]
    flat = soak.growth_after_bounds(memory, asked)
    assert flat["mib_per_h"] == pytest.approx(0, abs=1e-6)
    leaking = [(at, mib + max(0.0, at - 890) / 100) for at, mib in memory]
    assert soak.growth_after_bounds(leaking, asked)["mib_per_h"] == pytest.approx(36)
    assert soak.growth_after_bounds(memory[:90], asked) is None

"""Wall time of whole commands, each beside a bare ``python -c pass`` in the same interleaved run.

Bars: ``qwenhost --help`` under 150 ms, ``qwenhost plan --gpus 2xH200 --json`` under 500 ms (median).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import write_result

QWENHOST = Path(sys.executable).with_name("qwenhost")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "qwenhost --help": [str(QWENHOST), "--help"],
    "qwenhost plan --gpus 2xH200 --json": [str(QWENHOST), "plan", "--gpus", "2xH200", "--json"],
    "qwenhost plan --gpus 8xH100-80GB --json": [str(QWENHOST), "plan", "--gpus", "8xH100-80GB", "--json"],
}
BARS_MS = {"qwenhost --help": 150, "qwenhost plan --gpus 2xH200 --json": 500}
ROUNDS = 15


def wall_ms(argv: list[str]) -> float:
    """One run, start to exit."""
    start = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Run all commands in turn, ``ROUNDS`` times; the first round warms the file cache and is dropped."""
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_index in range(ROUNDS + 1):
        for name, argv in COMMANDS.items():
            took = wall_ms(argv)
            if round_index:
                samples[name].append(took)
    rows = {
        name: {
            "min_ms": round(min(times), 1),
            "median_ms": round(statistics.median(times), 1),
            "max_ms": round(max(times), 1),
            "bar_ms": BARS_MS.get(name),
        }
        for name, times in samples.items()
    }
    for name, row in rows.items():
        figures = " ".join(f"{row[key]:8.1f}" for key in ("min_ms", "median_ms", "max_ms"))
        print(f"{name:45} {figures}  bar {row['bar_ms']}")
    print(write_result("startup", {"rounds": ROUNDS, "rows": rows}))


if __name__ == "__main__":
    main()

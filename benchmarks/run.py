"""``make bench``: every benchmark in turn; names on the command line pick some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_BENCHMARKS = {
    "common",
    "probe_capacity_table",
    "probe_peers",
    "run",
    "speed_points",
    "strangers",
    "token_server",
}


def main() -> int:
    """Run each script in this folder; the exit code tells how many failed."""
    wanted = sys.argv[1:] or sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NOT_BENCHMARKS)
    failed = 0
    for name in wanted:
        print(f"== {name}", flush=True)
        failed += subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())

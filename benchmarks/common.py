"""What every benchmark shares: the machine it ran on and where its dated result goes."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """CPU, cores, kernel and Python of this machine."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """The commit measured, with a mark when the tree differs from it."""
    return _git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain") else "")


def _git(*argv: str) -> str:
    here = Path(__file__).parent
    return subprocess.run(
        ["git", *argv], cwd=here, capture_output=True, text=True, check=False
    ).stdout.strip()


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Keep a result as ``results/<name>-<date>.json`` with the machine and the commit."""
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{today}.json"
    path.write_text(
        json.dumps(
            {"benchmark": name, "date": today, "commit": commit(), "machine": machine(), **result}, indent=2
        )
        + "\n"
    )
    return path

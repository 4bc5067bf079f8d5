"""Does the probe stay what it is for as long as it runs: memory, send lag, agreement with the server.

    python benchmarks/probe_soak.py [--minutes 25] [--rate 120] [--tokens 20]

``qwenhost probe`` as a user starts it, an open loop against token_server.py (first token after 200 ms, then
one each 20 ms), recorded to a file. By default it passes both bounds of what a run holds, 100,000 records
and 2 million token times, after 14 minutes; memory grows up to there by design and must not after it. Every
10 s the client's resident memory is read, and the server's log, which is the truth for every third of the
run. Writes results/probe_soak-DATE.json. Exit code 1 where memory went on growing by more than 5 % an
hour, the run was void, or a request failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from common import write_result
from probe_capacity import SERVER, at_share, told

from qwenhost.probe.records import read_recording
from qwenhost.probe.store import KEPT_RECORDS, KEPT_TIMES

EVERY_S: Final = 10.0
GROWTH_PER_H: Final = 0.05
SETTLED_S: Final = 60.0
"""After the bounds were passed: the last buffers grow."""


def main() -> int:
    """Run, watch, judge, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--rate", type=float, default=120.0)
    parser.add_argument("--tokens", type=int, default=20)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, str(SERVER), "0.2", "0.02"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server,
    ):
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        result = soak(url, asked, Path(folder))
        server.kill()
    print(json.dumps({k: v for k, v in result.items() if k != "memory"}, indent=2))
    if asked.minutes * 60 * asked.rate > KEPT_RECORDS:
        print(write_result("probe_soak", result))
    else:
        print("Too short to pass the bounds: nothing was kept.", file=sys.stderr)
    return 0 if result["held"] else 1


def soak(url: str, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run, watched from outside."""
    records, saved = folder / "records.jsonl", folder / "run.json"
    command = [
        str(Path(sys.executable).with_name("qwenhost")), "probe", url, "--rate", str(asked.rate),
        "--duration", f"{asked.minutes}m", "--input-tokens", "64", "--output-tokens", str(asked.tokens),
        "--warmup", "0", "--records", str(records), "--save", str(saved),
    ]  # fmt: skip
    memory: list[tuple[float, float]] = []
    seen: list[list[float]] = []
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
        while client.poll() is None:
            seen += told(url)["requests"]
            memory.append((time.monotonic() - began, rss_mib(client.pid)))
            try:
                client.wait(EVERY_S)
            except subprocess.TimeoutExpired:
                continue
        code = client.returncode
    seen += told(url)["requests"]
    measured = json.loads(saved.read_text())
    growth = growth_after_bounds(memory, asked)
    return {
        "conditions": (
            f"{asked.minutes:g} minutes at {asked.rate:g} requests/s (Poisson), {asked.tokens} tokens each, "
            f"server and client on the same {os.cpu_count()} cores, others' work beside it: load average "
            f"{os.getloadavg()[2]:.1f} over the last 15 minutes"
        ),
        "requests": measured["requests"],
        "bounds_passed_s": bounds_passed_s(asked),
        "memory": {"at_s": [round(at) for at, _ in memory], "rss_mib": [round(mib, 1) for _, mib in memory]},
        "growth_after_bounds": growth,
        "thirds": thirds(records, seen),
        "send_lag_ms": measured["send_lag_ms"],
        "client": measured["client"],
        "warnings": measured["warnings"],
        "void": measured["void_reason"],
        "held": code == 0
        and not measured["requests"]["failed"]
        and (growth is None or growth["share_per_h"] <= GROWTH_PER_H),
    }


def rss_mib(pid: int) -> float:
    """Resident memory of a process; 0 once it is gone."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        found = None
    return int(found[1]) / 1024 if found else 0.0


def bounds_passed_s(asked: argparse.Namespace) -> float:
    """When the run holds as many records and token times as it ever will."""
    return float(max(KEPT_RECORDS / asked.rate, KEPT_TIMES / (asked.rate * asked.tokens)))


def growth_after_bounds(
    memory: list[tuple[float, float]], asked: argparse.Namespace
) -> dict[str, Any] | None:
    """The straight line through memory once the bounds lay behind, up to the last send; None if too short."""
    since, until = bounds_passed_s(asked) + SETTLED_S, asked.minutes * 60
    flat = [(at, mib) for at, mib in memory if since <= at <= until and mib]
    if len(flat) < 6:
        return None
    line = statistics.linear_regression([at for at, _ in flat], [mib for _, mib in flat])
    middle = statistics.median(mib for _, mib in flat)
    return {
        "from_s": since,
        "to_s": until,
        "median_rss_mib": middle,
        "lowest_rss_mib": min(mib for _, mib in flat),
        "highest_rss_mib": max(mib for _, mib in flat),
        "mib_per_h": line.slope * 3600,
        "share_per_h": line.slope * 3600 / middle,
    }


def thirds(records: Path, seen: list[list[float]]) -> list[dict[str, Any]]:
    """What client and server say of each third of the run; both in the order of sending."""
    kept: list[tuple[float, float, float]] = []

    def take(record: Any) -> None:
        if record.ok:
            kept.append((record.scheduled_s, record.send_lag_ms, record.ttft_ms))

    read_recording(records, take)
    kept.sort()
    seen.sort()
    told_of = []
    for i in range(3):
        mine = kept[i * len(kept) // 3 : (i + 1) * len(kept) // 3]
        theirs = seen[i * len(seen) // 3 : (i + 1) * len(seen) // 3]
        ttft = sorted(ms for _, _, ms in mine)
        true = sorted((first - received) * 1000 for received, first, *_ in theirs)
        lag = sorted(ms for _, ms, _ in mine)
        told_of.append(
            {"requests": len(mine), "send_lag_p99_ms": at_share(lag, 0.99)}
            | {f"ttft_p{q}_ms": at_share(ttft, q / 100) for q in (50, 99)}
            | {f"server_ttft_p{q}_ms": at_share(true, q / 100) for q in (50, 99)}
        )
    return told_of


if __name__ == "__main__":
    sys.exit(main())

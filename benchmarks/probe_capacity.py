"""How many tokens a second each load generator bears before it sends late: ours and its peers.

    python benchmarks/probe_capacity.py [--only qwenhost,vllm,aiperf,guidellm] [--seconds 6] [--minutes 8.5]

One server (token_server.py: first token after 200 ms, then one each 20 ms, 100 a request), one client at a
time, both on this machine's cores. Each client offers an open loop of requests at even distances, the rate
doubled and halved until both verdicts are bracketed, then halfway between. Two verdicts on a level: strict
(99th percentile of send lag below 5 ms) and lenient (below 50 ms, a tenth of what a reader notices); both
ask that every request was answered in full, and strict also that the client does not call its run void.
A level has 100 judged requests at least, so that its p99 is not its worst, unless they would take more
than 18 s. Send lag is taken from the server's log, the same for all: arrival less the schedule, which is
laid so that no request came early; the first second, in which connections are opened, is left out. CPU
per token is the slope of a straight line through all of the client's levels, all its processes together,
so that its start cancels out; none is given where the levels are not four times apart in tokens.

Peers: ``python -m venv $QWENHOST_PEERS/peer-guidellm`` with ``pip install guidellm`` in it, the same for
aiperf (default folder /tmp); vLLM is the end-to-end tests' engine. A missing one is left out and said.
Writes results/probe_capacity-DATE.json and results/probe_capacity.md, unless --only leaves clients out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from common import RESULTS, write_result
from probe_capacity_table import LIMITS_MS, table
from probe_peers import Client, Load, clients, tokenizer

SERVER: Final = Path(__file__).with_name("token_server.py")
TOKENS: Final = 100
JUDGED: Final = 100
LONGEST_S: Final = 18.0
FIRST_RATE: Final = {"qwenhost": 100.0}
SLOWEST: Final = 6.0
HIGHEST: Final = 1600.0
HALVED: Final = 1.9
"""Rates further apart than this have not been looked at halfway."""
FAR_APART: Final = 4.0
DEADLINE_S: Final = 90.0
SHARES: Final = {"qwenhost": 0.15, "vllm": 0.28, "aiperf": 0.26, "guidellm": 0.31}
"""Of the time: a peer needs 10 to 25 s to start, at every level anew."""


def main() -> None:
    """Climb with each client, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(SHARES))
    parser.add_argument("--seconds", type=float, default=6.0, help="of sending at each level")
    parser.add_argument(
        "--minutes", type=float, default=8.5, help="for all; no level begins that would pass it"
    )
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    command = [sys.executable, str(SERVER), "0.2", "0.02"]
    known, found, missing = clients(), {}, []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        for name in arguments.only.split(","):
            if Path(known[name].program).exists():
                until = time.monotonic() + SHARES[name] * arguments.minutes * 60
                found[name] = climb(name, known[name], url, arguments.seconds, until)
            else:
                missing.append(name)
        server.kill()
    result = {
        "conditions": (
            f"One server, TTFT 200 ms, ITL 20 ms, {TOKENS} tokens a request, and one client on the same "
            f"{os.cpu_count()} cores; open loop, even distances, {arguments.seconds:g} s a level or "
            f"{JUDGED} requests, {LONGEST_S:g} s at most"
        ),
        "limits_ms": LIMITS_MS,
        "clients": found,
        "missing": missing,
    }
    print(table(result))
    if set(arguments.only.split(",")) == set(SHARES):
        print(write_result("probe_capacity", result))
        (RESULTS / "probe_capacity.md").write_text(table(result))
    else:
        print("Not all clients were asked for: nothing was kept.", file=sys.stderr)


def climb(name: str, client: Client, url: str, seconds: float, until: float) -> dict[str, Any]:
    """Bracket both verdicts by doubling and halving, then look halfway, while there is time."""
    levels: dict[float, dict[str, Any]] = {}
    began = time.monotonic()

    def look(rate: float) -> None:
        levels[rate] = level = one_level(client, url, rate, seconds)
        shown = {k: v for k, v in level.items() if k != "ttft_ms"}
        print(name, rate, shown, file=sys.stderr, flush=True)

    rate: float | None = FIRST_RATE.get(name, 25.0)
    while rate is not None:
        look(rate)
        each = (time.monotonic() - began) / len(levels)
        rate = next_rate(levels) if time.monotonic() + each < until else None
    best = {verdict: held(levels, verdict) for verdict in LIMITS_MS}
    return {
        "client": client.name,
        "version": version_of(client.program),
        "sustained_tokens_per_s": {verdict: rate * TOKENS for verdict, rate in best.items()},
        "cpu_us_per_token": slope(list(levels.values())),
        "levels": [levels[rate] for rate in sorted(levels)],
    }


def next_rate(levels: dict[float, dict[str, Any]]) -> float | None:
    """Where to look next; None when both verdicts are bracketed and looked at halfway.

    Failures below a level that held are chance and bracket nothing.
    """
    halfway = None
    for verdict in reversed(LIMITS_MS):  # Lenient first: it alone leads further up.
        best = held(levels, verdict)
        above = [r for r, level in levels.items() if not level[verdict] and r > best]
        if not above and best < HIGHEST:
            return max(levels) * 2
        if not best and min(levels) > SLOWEST:
            return min(levels) / 2
        if best and above and halfway is None and min(above) / best > HALVED:
            halfway = round(math.sqrt(best * min(above)), 1)
    return halfway


def held(levels: dict[float, dict[str, Any]], verdict: str) -> float:
    """The highest rate that was sustained; 0 if none was."""
    return max((rate for rate, level in levels.items() if level[verdict]), default=0.0)


def one_level(client: Client, url: str, rate: float, seconds: float) -> dict[str, Any]:
    """One run of the client, judged by the server's log."""
    told(url)
    wanted = max(rate * seconds, min(JUDGED + rate, rate * LONGEST_S))
    with tempfile.TemporaryDirectory() as folder:
        load = Load(url, rate, math.ceil(wanted), TOKENS, Path(folder), tokenizer())
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        code = run(client, load)
        wall_s = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        truth = told(url)
        reported = reported_by(client, load)
    level: dict[str, Any] = judged(truth, load) | {
        "request_rate": rate,
        "exit_code": code,
        "wall_s": round(wall_s, 1),
        "client_cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "void": reported.get("void"),
        "reports_send_lag_p99_ms": reported.get("send_lag_p99"),
    }
    if "p99" in reported and level["answered"]:
        level["ttft_error_ms"] = {q: reported[q] - level["ttft_ms"][q] for q in ("p50", "p99")}
    whole = level["answered"] == level["asked"] and code in (0, 5)
    for verdict, limit in LIMITS_MS.items():
        level[verdict] = whole and level["send_lag_p99_ms"] < limit
    level["strict"] = level["strict"] and level["void"] is None
    return level


def run(client: Client, load: Load) -> int:
    """The client's exit code; 124 where it took too long."""
    environment = os.environ | dict(client.environment)
    with (load.out / "out").open("w+") as out:
        command = [client.program, *client.arguments(load)]
        try:
            return subprocess.run(
                command, env=environment, stdout=out, stderr=out, timeout=DEADLINE_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return 124


def reported_by(client: Client, load: Load) -> dict[str, Any]:
    """What the client says of itself; nothing where it wrote nothing."""
    try:
        return dict(client.ttft_ms(load))
    except (OSError, KeyError, StopIteration, ValueError) as error:
        print(client.name, repr(error), file=sys.stderr)
        return {}


def judged(truth: dict[str, Any], load: Load) -> dict[str, Any]:
    """What the server saw of one run."""
    requests = sorted(r for r in truth["requests"] if r[3] == load.tokens)
    arrivals = [received for received, *_ in requests]
    begun = min((at - i / load.rate for i, at in enumerate(arrivals)), default=0.0)
    lags = [(at - begun - i / load.rate) * 1000 for i, at in enumerate(arrivals)]
    settled = sorted(lags[round(load.rate) :] or lags)
    ttft = sorted((first - received) * 1000 for received, first, *_ in requests)
    span = max((last for _, _, last, _ in requests), default=1.0) - min(arrivals, default=0.0)
    tokens = sum(count for *_, count in requests)
    return {
        "asked": load.requests,
        "answered": len(requests),
        "judged": len(settled),
        "tokens": tokens,
        "offered_tokens_per_s": load.rate * load.tokens,
        "tokens_per_s": tokens / span,
        "send_lag_p99_ms": at_share(settled, 0.99),
        "ttft_ms": {"p50": at_share(ttft, 0.5), "p99": at_share(ttft, 0.99)},
        "server_late_p99_ms": at_share(truth["late"], 0.99) * 1000,
    }


def at_share(ordered: list[float], share: float) -> float:
    """Nearest rank of an ascending sample: the smallest value that so many do not exceed; 0 of nothing."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0


def slope(levels: list[dict[str, Any]]) -> float | None:
    """CPU in us per further token: the straight line through all levels that were answered."""
    tokens = [level["tokens"] for level in levels if level["answered"]]
    if not tokens or max(tokens) < FAR_APART * min(tokens):
        return None
    spent = [level["client_cpu_s"] * 1e6 for level in levels if level["answered"]]
    return statistics.linear_regression(tokens, spent).slope


def version_of(program: str) -> str:
    """The first thing that looks like a version in what ``--version`` says last."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"\d+(?:\.\d+)+[\w.+-]*", said.strip().splitlines()[-1] if said.strip() else "")
    return str(found[0]) if found else ""


def told(url: str) -> dict[str, Any]:
    """The server's log since it was last asked."""
    with urllib.request.urlopen(f"{url}/v1/truth") as answer:
        log: dict[str, Any] = json.load(answer)
    return log


if __name__ == "__main__":
    main()

"""How many tokens a second each load generator bears before it sends late: ours and its peers.

    python benchmarks/probe_capacity.py [--only qwenhost,vllm,aiperf,guidellm] [--seconds 6]

One server (token_server.py: first token after 200 ms, then one each 20 ms, 100 a request), one client at a
time, both on this machine's cores. Each client offers an open loop of requests at even distances, doubled
until it fails, then halfway between. A level is sustained when the 99th percentile of send lag stays under
5 ms, all requests are answered in full, and the client itself does not call the run void. Send lag is
taken from the server's log, the same for all: arrival less the schedule, which is laid so that no request
came early; the first second, in which connections are opened, is left out. CPU per token is the slope
between the client's lowest and highest level, all its processes together, start cancelled.

Peers: ``python -m venv $QWENHOST_PEERS/peer-guidellm`` with ``pip install guidellm`` in it, the same for
aiperf (default folder /tmp); vLLM is the end-to-end tests' engine. A missing one is left out and said.
Writes results/probe_capacity-DATE.json and results/probe_capacity.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from common import RESULTS, commit, machine, write_result
from probe_peers import Client, Load, clients, tokenizer

SERVER: Final = Path(__file__).with_name("token_server.py")
TOKENS: Final = 100
LAG_MS: Final = 5.0
FIRST_RATE: Final = {"qwenhost": 100.0}
SLOWEST: Final = 6.0
HIGHEST: Final = 1600.0
DEADLINE_S: Final = 150.0


def main() -> None:
    """Climb with each client, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="qwenhost,vllm,aiperf,guidellm")
    parser.add_argument("--seconds", type=float, default=6.0, help="of sending at each level")
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
                found[name] = climb(name, known[name], url, arguments.seconds)
            else:
                missing.append(name)
        server.kill()
    result = {
        "conditions": (
            f"one server, TTFT 200 ms, ITL 20 ms, {TOKENS} tokens a request, and one client on "
            f"the same {os.cpu_count()} cores; open loop, even distances, {arguments.seconds:g} s a level"
        ),
        "sustained": f"p99 send lag below {LAG_MS:g} ms from the server's log, all answered, not void",
        "clients": found,
        "missing": missing,
    }
    print(write_result("probe_capacity", result))
    (RESULTS / "probe_capacity.md").write_text(table(result))
    print(table(result))


def climb(name: str, client: Client, url: str, seconds: float) -> dict[str, Any]:
    """Double the rate until the client fails, halve it until it does not, then try halfway."""
    levels: dict[float, dict[str, Any]] = {}

    def holds(rate: float) -> bool:
        levels[rate] = level = one_level(client, url, rate, seconds)
        print(name, rate, {k: v for k, v in level.items() if k != "ttft_ms"}, file=sys.stderr, flush=True)
        return bool(level["sustained"])

    rate = FIRST_RATE.get(name, 25.0)
    good = holds(rate)
    if good:
        while good and rate < HIGHEST:
            rate *= 2
            good = holds(rate)
    else:
        while not good and rate > SLOWEST:
            rate /= 2
            good = holds(rate)
    best = max((r for r, level in levels.items() if level["sustained"]), default=0.0)
    worst = min((r for r, level in levels.items() if not level["sustained"]), default=None)
    if best and worst:
        holds(round((best * worst) ** 0.5, 1))
        best = max(r for r, level in levels.items() if level["sustained"])
    version = subprocess.run(
        [client.program, "--version"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "client": client.name,
        "version": version.splitlines()[-1] if version else "",
        "sustained_tokens_per_s": best * TOKENS,
        "cpu_us_per_token": slope(list(levels.values())),
        "levels": [levels[rate] for rate in sorted(levels)],
    }


def one_level(client: Client, url: str, rate: float, seconds: float) -> dict[str, Any]:
    """One run of the client, judged by the server's log."""
    told(url)
    with tempfile.TemporaryDirectory() as folder:
        load = Load(url, rate, max(20, round(rate * seconds)), TOKENS, Path(folder), tokenizer())
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        environment = os.environ | dict(client.environment)
        with (Path(folder) / "out").open("w+") as out:
            try:
                command = [client.program, *client.arguments(load)]
                code = subprocess.run(
                    command, env=environment, stdout=out, stderr=out, timeout=DEADLINE_S, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = 124
        wall_s = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        truth = told(url)
        try:
            reported = dict(client.ttft_ms(load))
        except (OSError, KeyError, StopIteration, ValueError) as error:
            reported = {}
            print(client.name, repr(error), file=sys.stderr)
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
    level["sustained"] = (
        level["answered"] == level["asked"]
        and level["send_lag_p99_ms"] < LAG_MS
        and level["void"] is None
        and code in (0, 5)
    )
    return level


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
        "tokens": tokens,
        "offered_tokens_per_s": load.rate * load.tokens,
        "tokens_per_s": tokens / span,
        "send_lag_p99_ms": at_share(settled, 0.99),
        "ttft_ms": {"p50": at_share(ttft, 0.5), "p99": at_share(ttft, 0.99)},
        "server_late_p99_ms": at_share(truth["late"], 0.99) * 1000,
    }


def at_share(ordered: list[float], share: float) -> float:
    """Nearest rank of an ascending sample; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def slope(levels: list[dict[str, Any]]) -> Any:
    """CPU per further token between the levels with the fewest and the most tokens."""
    whole = sorted((level["tokens"], level["client_cpu_s"]) for level in levels if level["answered"])
    if len(whole) < 2 or whole[-1][0] == whole[0][0]:
        return None
    return (whole[-1][1] - whole[0][1]) / (whole[-1][0] - whole[0][0]) * 1e6


def told(url: str) -> dict[str, Any]:
    """The server's log since it was last asked."""
    with urllib.request.urlopen(f"{url}/v1/truth") as answer:
        log: dict[str, Any] = json.load(answer)
    return log


def table(result: dict[str, Any]) -> str:
    """As Markdown, with the conditions."""
    box = machine()
    lines = [
        "| client | tokens/s sustained | p99 send lag there | CPU per token | TTFT error there, p50 / p99 |",
        "|---|---|---|---|---|",
    ]
    for one in sorted(result["clients"].values(), key=lambda c: -c["sustained_tokens_per_s"]):
        held = [level for level in one["levels"] if level["sustained"]]
        best = held[-1] if held else one["levels"][0]
        error = best.get("ttft_error_ms")
        cpu = one["cpu_us_per_token"]
        lines.append(
            f"| {one['client']} {one['version'].split()[-1] if one['version'] else ''} "
            f"| {one['sustained_tokens_per_s']:,.0f}{'' if held else ' (none of the levels)'} "
            f"| {best['send_lag_p99_ms']:.1f} ms | {'-' if cpu is None else f'{cpu:,.0f} us'} "
            f"| {'-' if error is None else '{p50:+.1f} / {p99:+.1f} ms'.format(**error)} |"
        )
    lines += ["", f"{result['conditions']}. Sustained: {result['sustained']}.", ""]
    lines.append(f"{box['cpu']}, Python {box['python']}, commit {commit()}.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

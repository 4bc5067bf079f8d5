"""The same real vLLM measured by ``vllm bench serve`` and by ``qwenhost probe``, in turns.

    python benchmarks/probe_against_vllm_bench.py [--rounds 3] [--rate 1] [--requests 30]

The end-to-end tests' engine (vLLM's CPU build) serves their tiny model; each round is one run of either
client, an open loop at even distances, streamed chat completions of exactly 32 tokens. Agreement is asked
of the means over rounds: TTFT, TPOT and ITL may differ by no more than one client's own rounds do. Writes
results/probe_against_vllm_bench-DATE.json; exit code 1 where they disagree.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from common import write_result
from probe_peers import Load, clients, tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS: Final = 32
START_WITHIN_S: Final = 400.0
RUN_WITHIN_S: Final = 300.0
NAMES: Final = ("ttft_ms", "tpot_ms", "itl_ms")


def main() -> int:
    """Serve, measure in turns, compare, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--requests", type=int, default=30)
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {"qwenhost": [], "vllm": []}
    with served() as (url, model):
        for number in range(-1, arguments.rounds):  # The first round warms engine and disk, and is dropped.
            requests = arguments.requests if number >= 0 else 4
            for name in runs if number % 2 else reversed(runs):
                figures = one_run(name, url, model, arguments.rate, requests)
                print(number, name, figures, file=sys.stderr, flush=True)
                if number >= 0:
                    runs[name].append(figures)
    compared = {name: compare(name, runs) for name in NAMES}
    result = {
        "conditions": (
            f"vLLM's CPU build with the tiny model on the same {os.cpu_count()} cores, "
            f"{arguments.rate:g} requests/s at even distances, {arguments.requests} requests a run, "
            f"{TOKENS} tokens each, {arguments.rounds} rounds in turns"
        ),
        "runs": runs,
        "compared": compared,
        "agree": all(one["agree"] for one in compared.values()),
    }
    print(json.dumps(result, indent=2))
    print(write_result("probe_against_vllm_bench", result))
    return 0 if result["agree"] else 1


def compare(name: str, runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Difference of the clients' means, and the wider range of one client's own rounds."""
    ours, theirs = ([run[name] for run in runs[client]] for client in ("qwenhost", "vllm"))
    difference = sum(ours) / len(ours) - sum(theirs) / len(theirs)
    spread = max(max(ours) - min(ours), max(theirs) - min(theirs))
    return {
        "qwenhost_mean": sum(ours) / len(ours),
        "vllm_bench_mean": sum(theirs) / len(theirs),
        "difference": difference,
        "spread_of_rounds": spread,
        "agree": abs(difference) <= spread,
    }


def one_run(name: str, url: str, model: str, rate: float, requests: int) -> dict[str, float]:
    """Mean TTFT, TPOT and ITL as the client reports them."""
    client = clients()[name]
    extra = {"qwenhost": ["--exact-output"], "vllm": ["--ignore-eos"]}[name]
    with tempfile.TemporaryDirectory() as folder:
        load = Load(url, rate, requests, TOKENS, Path(folder), tokenizer(), model)
        done = subprocess.run(
            [client.program, *client.arguments(load), *extra],
            env=os.environ | dict(client.environment),
            capture_output=True,
            text=True,
            timeout=RUN_WITHIN_S,
            check=False,
        )
        if done.returncode not in (0, 5):  # 5: void, which the result says.
            raise SystemExit(f"{client.name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        if name == "vllm":
            found = json.loads((load.out / "vllm.json").read_text())
            return {key: found[f"mean_{key}"] for key in NAMES}
        found = json.loads((load.out / "qwenhost.json").read_text())
        return {key: found[key]["mean"] for key in NAMES} | {"void": found["void_reason"]}


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """A ready engine: its URL and the name of its model."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(Path(sys.executable).with_name("qwenhost")), "serve", "--target", "cpu",
            "--model", tokenizer(), "--port", str(port), "--vllm-bin", clients()["vllm"].program,
        ]  # fmt: skip
        environment = os.environ | {"QWENHOST_STATE_DIR": folder, "NO_COLOR": "1"}
        log = Path(folder) / "serve.out"
        with (
            log.open("w") as out,
            subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT) as server,
        ):
            try:
                yield url, wait_for_model(url, server, log)
            finally:
                server.terminate()
                server.wait(60)


def wait_for_model(url: str, server: subprocess.Popen[bytes], log: Path) -> str:
    """The served model's name, once a model is served."""
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as answer:
                return str(json.load(answer)["data"][0]["id"])
        except (urllib.error.URLError, OSError, ValueError, KeyError, IndexError):
            time.sleep(1.0)
    raise SystemExit(f"the engine did not start:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())

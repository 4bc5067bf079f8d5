"""What a streamed token costs the probe: client CPU, accuracy under load, streams at once.

    python benchmarks/probe_cost.py [--repeats 3] [--streams 10000]

The truth server of the tests emits 100 tokens a request, the first after 200 ms, then one every 20 ms,
each stream on its own timers. CPU per token is the slope between 64 and 256 streams, which cancels start
and calibration; recording is complete (every arrival kept, every event decoded, every record written to
a file). A bare reader, which receives and stamps and does nothing else, is measured in the same way against
the same server in between: the floor that the kernel sets on this machine at this hour. Writes
results/probe_cost-DATE.json. ``cpu_wait_share`` tells how much other processes disturbed it.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from array import array
from pathlib import Path
from typing import Any

from common import write_result

from qwenhost.facts import TokenStats
from qwenhost.measurements import percentile
from qwenhost.probe import ProbeConfig, ProbeResult, run_probe

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "tests/probe/truth_server.py"
TOKENS = 100
WAVES = 8


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--streams", type=int, default=10_000, help="open so many streams at once")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        found: dict[str, Any] = {
            "conditions": f"truth server on the same machine, TTFT 200 ms, ITL 20 ms, {TOKENS} tokens",
            "runs": [slope(port) for _ in range(arguments.repeats)],
        }
        found["streams"] = many_streams(port, arguments.streams)
        server.kill()
    for name in ("us_per_token", "bare_reader_us_per_token"):
        found[f"best_{name}"] = min(run[name] for run in found["runs"])
    print(json.dumps(found, indent=2))
    print(write_result("probe_cost", found))


def slope(port: int) -> dict[str, Any]:
    """CPU per further token between 64 and 256 streams, and the accuracy at 256."""
    few, many = one_run(port, 64), one_run(port, 256)
    bare_few, bare_many = bare_reader(port, 64), bare_reader(port, 256)
    return {
        "us_per_token": (many["cpu_s"] - few["cpu_s"]) / (many["tokens"] - few["tokens"]) * 1e6,
        "bare_reader_us_per_token": (bare_many[0] - bare_few[0]) / (bare_many[1] - bare_few[1]) * 1e6,
        "us_per_token_start_included": many["cpu_s"] / many["tokens"] * 1e6,
        "bare_reader_us_per_token_start_included": bare_many[0] / bare_many[1] * 1e6,
        "at_64": few,
        "at_256": many,
    }


def bare_reader(port: int, streams: int) -> tuple[float, int]:
    """CPU seconds and segments of a loop that only receives and stamps, waking as often as the probe."""
    asked = json.dumps({"model": "truth", "stream": True, "messages": [], "max_completion_tokens": TOKENS})
    request = (
        f"POST /ttft=0.2,itl=0.02/v1/chat/completions HTTP/1.1\r\nHost: bare\r\nx-request-id: bare-0\r\n"
        f"Content-Length: {len(asked)}\r\n\r\n{asked}"
    ).encode()
    waiting, buffer = select.epoll(), bytearray(1 << 18)
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(streams)]
    for sock in sockets:
        waiting.register(sock.fileno(), select.EPOLLIN)
        sock.setblocking(False)
        sock.send(request)
    by_descriptor = {sock.fileno(): sock for sock in sockets}
    more, live, stamps = streams * (WAVES - 1), streams, array("d")
    before = time.process_time()
    while live:
        time.sleep(0.0005)
        for descriptor, _ in waiting.poll(0, streams):
            size = by_descriptor[descriptor].recv_into(buffer)
            stamps.append(time.monotonic())
            if buffer.endswith(b"0\r\n\r\n", 0, size):
                if more:
                    by_descriptor[descriptor].send(request)
                    more -= 1
                else:
                    live -= 1
    spent = time.process_time() - before
    for sock in sockets:
        sock.close()
    waiting.close()
    return spent, len(stamps)


def one_run(port: int, concurrency: int) -> dict[str, Any]:
    """One closed loop and what it cost."""
    told(port)
    before = time.process_time()
    result = probe(
        port, concurrency=concurrency, requests=WAVES * concurrency, output=TOKENS, path="ttft=0.2,itl=0.02"
    )
    cpu_s = time.process_time() - before
    measured = result.measurements
    return {
        "cpu_s": cpu_s,
        "tokens": sum(record.output_tokens for record in result.records),
        "output_tokens_per_s": measured.output_tokens_per_s,
        "ttft_ms": {"p50": measured.ttft_ms.p50, "p99": measured.ttft_ms.p99},
        "reported_minus_true_ttft_ms": difference(result, told(port)),
        "send_lag_p99_ms": measured.send_lag_ms.p99,
        "client": dict(measured.client),
        "void": measured.void_reason,
    }


def difference(result: ProbeResult, truth: dict[str, Any]) -> dict[str, float]:
    """Percentiles of the reported TTFT less those of the server's own, both from the due time."""
    seed = result.measurements.workload.seed
    reported, true = [], []
    for record in result.records:
        due = record.scheduled_s + result.clock_zero_s
        reported.append(record.ttft_ms or 0.0)
        true.append((truth[f"qwenhost-{seed:x}-{record.index}"]["tokens"][0] - due) * 1000)
    reported.sort()
    true.sort()
    return {f"p{q}": percentile(reported, q) - percentile(true, q) for q in (50, 99)}


def many_streams(port: int, streams: int) -> dict[str, Any]:
    """All streams open before the first token comes."""
    wait_s = max(5.0, streams / 1000)  # All are open by then: slots open at 2,000 a second.
    result = probe(port, concurrency=streams, requests=streams, output=5, path=f"ttft={wait_s},itl=0.5")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "asked": streams,
        "completed": result.measurements.requests.completed,
        "by_error": dict(result.measurements.requests.by_error),
        "client_peak_rss_mib": peak_mib,
        "void": result.measurements.void_reason,
    }


def probe(port: int, *, concurrency: int, requests: int, output: int, path: str) -> ProbeResult:
    """A closed loop against the truth server, without warm-up, recorded to a file."""
    with tempfile.TemporaryDirectory() as folder:
        return run_probe(
            ProbeConfig(
                url=f"http://127.0.0.1:{port}/{path}",
                concurrency=concurrency,
                requests=requests,
                warmup=0,
                input_tokens=TokenStats(mean=64),
                output_tokens=TokenStats(mean=output),
                records=Path(folder) / "records.jsonl",
            )
        )


def told(port: int) -> dict[str, Any]:
    """What the server did since it was last asked."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/truth") as answer:
        truth: dict[str, Any] = json.load(answer)
    return truth


def raise_descriptor_limit() -> None:
    """Every stream is a descriptor, here and in the server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()

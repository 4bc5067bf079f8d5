"""The simulated engine: virtual seconds a second, and tokens a core can stream.

1. Virtual time: requests at 5/s with the chat sizes on two H200, per second of CPU. Bar: one day of them
   (432,000) in 60 s of one core.
2. Memory: the peak of a run over a trace of a million requests, its reading included. Bar: 2 GB.
3. Real time: streams over loopback from a process that is not paced (speed-up 100,000); its CPU seconds
   per token, since the client competes for the machine. Bar: 20,000 tokens/s.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import write_result

QWENHOST = str(Path(sys.executable).with_name("qwenhost"))
REQUESTS = 43_200
STREAMS, TOKENS = 200, 1_000
DEADLINE_S = 120
DAY_REQUESTS, DAY_BAR_S, STREAM_BAR = 432_000, 60, 20_000
TRACE_REQUESTS, MEMORY_BAR_BYTES = 1_000_000, 2_000_000_000


def virtual(plan: str) -> dict[str, float]:
    """CPU seconds of a run, its start included, extrapolated to a day by its number of requests."""
    argv = [QWENHOST, "simulate", "--plan", plan, "--rate", "5", "--requests", str(REQUESTS), "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "requests": REQUESTS,
        "simulated_s": round(result["load"]["duration_s"], 1),
        "wall_s": round(result["wall_s"], 2),
        "cpu_s": round(cpu, 2),
        "day_cpu_s": round(cpu * DAY_REQUESTS / REQUESTS, 1),
        "bar_s": DAY_BAR_S,
    }


def million(plan: str, folder: Path) -> dict[str, float]:
    """Peak memory and CPU seconds of a long trace: chat's mean sizes with a spread, 5 a second."""
    trace, rng = folder / "trace.csv", random.Random(0)  # noqa: S311 - a model's draws
    began = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    with trace.open("w") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        at = 0.0
        for _ in range(TRACE_REQUESTS):
            at += rng.expovariate(5.0)
            moment = (began + dt.timedelta(seconds=at)).strftime("%Y-%m-%d %H:%M:%S.%f")
            prompt, answer = 1 + rng.expovariate(1 / 1155), 1 + rng.expovariate(1 / 211)
            file.write(f"{moment}0,{int(prompt)},{int(answer)}\n")
    argv = [QWENHOST, "simulate", "--plan", plan, "--trace", str(trace), "--json"]
    with tempfile.TemporaryFile() as said, subprocess.Popen(argv, stdout=said) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"simulate --trace ended with {process.returncode}")
        said.seek(0)
        result = json.load(said)
    return {
        "requests": result["requests"]["sent"],
        "simulated_days": round(result["load"]["duration_s"] / 86_400, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_bytes": used.ru_maxrss * 1024,
        "bar_bytes": MEMORY_BAR_BYTES,
    }


def real_time(plan: str) -> dict[str, float]:
    """CPU seconds the server spends on so many tokens."""
    argv = [QWENHOST, "_simulated-engine", "--plan", plan, "--port", "0", "--startup-seconds", "0"]
    argv += ["--speedup", "100000", "--served-model-name", "m"]
    with psutil.Popen(argv, stderr=subprocess.PIPE, text=True) as server:
        lines = iter(server.stderr.readline, "")
        port = next(int(line.rsplit(":", 1)[1]) for line in lines if "Starting vLLM server" in line)
        next(line for line in lines if "startup complete" in line)
        before, begun = server.cpu_times(), time.perf_counter()
        try:
            asyncio.run(client(port))
            wall, after = time.perf_counter() - begun, server.cpu_times()
        finally:
            server.terminate()
    cpu = after.user + after.system - before.user - before.system
    return {
        "tokens": STREAMS * TOKENS,
        "wall_s": round(wall, 2),
        "server_cpu_s": round(cpu, 2),
        "tokens_per_cpu_s": round(STREAMS * TOKENS / cpu),
        "bar": STREAM_BAR,
    }


class Stream(asyncio.Protocol):
    """One streamed request, read to its end mark and not decoded."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send."""
        self._transport = transport  # type: ignore[assignment]
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Wait for the end mark, which may come in two pieces."""
        if not self._tail and not data.startswith(b"HTTP/1.1 200"):
            sys.exit(f"the engine refused: {data[:200]!r}")
        self._tail = (self._tail + data)[-16:]
        if b"[DONE]" in self._tail and self._transport is not None:
            self._transport.close()
            self.done.set_result(None)


async def client(port: int) -> None:
    """All streams at once."""
    fields = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": TOKENS}
    body = json.dumps(fields | {"ignore_eos": True, "stream": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: Stream(request), "127.0.0.1", port) for _ in range(STREAMS)
    ]
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(stream.done for _, stream in opened))


def main() -> None:
    """Plan once, run all, keep the result."""
    with tempfile.TemporaryDirectory() as folder:
        plan = str(Path(folder) / "plan.json")
        argv = [QWENHOST, "plan", "--gpus", "2xH200", "--workload", "chat", "--num-speculative-tokens", "0"]
        subprocess.run([*argv, "--save", plan], check=True, stdout=subprocess.DEVNULL)
        rows = {
            "virtual": virtual(plan),
            "million_request_trace": million(plan, Path(folder)),
            "real_time": real_time(plan),
        }
    print(json.dumps(rows, indent=2))
    print(write_result("simulated_engine", {"rows": rows}))


if __name__ == "__main__":
    main()

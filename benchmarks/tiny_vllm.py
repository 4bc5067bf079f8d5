"""Real vLLM on a CPU with the tiny model: started with given flags, its metrics read, its limits found."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from probe_peers import clients, tokenizer

from qwenhost.simulate.config import EngineConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import aiohttp

START_WITHIN_S: Final = 400.0
SAMPLE_S: Final = 0.05
STATE_GROUPS: Final = 3
"""The tiny model has three Gated DeltaNet layers and one of full attention, each a group."""


class Engine(NamedTuple):
    """What differs between the engines compared."""

    caching: bool
    blocks: int


class Sample(NamedTuple):
    """One reading of ``/metrics``."""

    at_s: float
    running: float
    waiting: float
    kv_cache_usage: float
    preemptions: float
    prefix_hits: float
    prefix_queries: float
    steps: float = 0.0
    """With output, since the start."""


@contextmanager
def served(engine: Engine, flags: Sequence[str], folder: Path) -> Iterator[str]:
    """A ready engine's URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        clients()["vllm"].program, "serve", tokenizer(), "--port", str(port), "--served-model-name", "m",
        "--dtype", "bfloat16", "--language-model-only", "--enforce-eager", *flags,
        "--num-gpu-blocks-override", str(engine.blocks),
        "--enable-prefix-caching" if engine.caching else "--no-enable-prefix-caching",
    ]  # fmt: skip
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    log = folder / "serve.out"
    with (
        log.open("w") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT) as server,
    ):
        try:
            _wait(url, server, log)
            yield url
        finally:
            server.terminate()
            server.wait(60)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(1.0)
    raise SystemExit(f"the engine did not start:\n{log.read_text()[-3000:]}")


def read_config(url: str, engine: Engine, flags: Sequence[str]) -> EngineConfig:
    """The scheduler's limits, as the engine says them."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        info = next(
            line for line in answer.read().decode().splitlines() if line.startswith("vllm:cache_config_info")
        )
    labels = dict(re.findall(r'(\w+)="([^"]*)"', info))
    given = dict(zip(flags[::2], map(int, flags[1::2]), strict=True))
    return EngineConfig(
        max_model_len=given["--max-model-len"],
        max_num_seqs=given["--max-num-seqs"],
        max_num_batched_tokens=given["--max-num-batched-tokens"],
        num_blocks=int(labels["num_gpu_blocks"]),
        block_size=int(labels["block_size"]),
        state_blocks_per_sequence=STATE_GROUPS,
        enable_prefix_caching=engine.caching,
        async_scheduling=False,
    )


async def sample_metrics(
    session: aiohttp.ClientSession, url: str, begun: float, samples: list[Sample]
) -> None:
    """Read ``/metrics`` at even distances until cancelled."""
    loop = asyncio.get_running_loop()
    names = (
        "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "num_preemptions_total",
        "prefix_cache_hits_total", "prefix_cache_queries_total", "iteration_tokens_total_count",
    )  # fmt: skip
    pattern = re.compile(r"^vllm:(\w+)\{[^}]*\} (\S+)$", re.MULTILINE)
    while True:
        due = loop.time() + SAMPLE_S
        async with session.get(f"{url}/metrics") as response:
            text = await response.text()
        found = {name: float(value) for name, value in pattern.findall(text)}
        samples.append(Sample(loop.time() - begun, *(found[name] for name in names)))
        await asyncio.sleep(max(0.0, due - loop.time()))

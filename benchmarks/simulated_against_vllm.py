"""Real vLLM under four loads, and the simulated engine under the same arrivals.

    python benchmarks/simulated_against_vllm.py [--requests 60] [--at-once] [--output FILE]

vLLM's CPU build serves the end-to-end tests' tiny model with a small cache, once with prefix caching and
once without. Step times come from a short calibration that no comparison uses: decoding at several batch
sizes, and prompts of several lengths one at a time. Then other loads (below what it carries, bursts, a cache
too small, a shared prefix) are offered while ``/metrics`` is read every 50 ms; the simulated engine gets the
instants and lengths that were really sent. Compared: running, waiting and cache use over time, preemptions,
prefix hits, and TTFT, TPOT and end-to-end latency. ``cpu_wait_share`` is how much of a load's time the real
engine was ready to run and had no core, because of other processes: where it is not small, the calibration
holds no more and ``predicted`` says little. Writes results/simulated_against_vllm-DATE.json and .md, or FILE.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
import numpy as np
import psutil
from common import RESULTS, write_result
from simulated_replay import Replay, compare, replay
from tiny_vllm import Engine, Sample, read_config, sample_metrics, served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.simulate.config import EngineConfig

FLAGS: Final = ("--max-model-len", "2048", "--max-num-seqs", "6", "--max-num-batched-tokens", "512")
VOCABULARY: Final = 300
BATCHES: Final = (1, 2, 3, 4, 6)
AT_ONCE: Final = ("cache exhausted", "shared prefix")
PROMPTS: Final = (16, 128, 256, 384, 500)


class Ask(NamedTuple):
    """A request: when it is due, its prompt's tokens, and how many to answer."""

    at_s: float
    prompt: list[int]
    output_tokens: int


class Answer(NamedTuple):
    """What became of it; instants on the run's clock."""

    ask: Ask
    sent_s: float
    first_s: float
    last_s: float


class StepTimes(NamedTuple):
    """Seconds: of any step, of each decoding sequence, of a prompt token; and outside of steps."""

    step_s: float
    sequence_s: float
    prompt_token_s: float
    outside_s: float

    def seconds(self, shape: Any) -> float:
        """Of a step."""
        return (
            self.step_s
            + self.sequence_s * shape.decode_sequences
            + self.prompt_token_s * shape.prefill_tokens
        )


async def send(session: aiohttp.ClientSession, url: str, ask: Ask, begun: float) -> Answer:
    """One streamed completion of exactly its tokens."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(max(0.0, begun + ask.at_s - loop.time()))
    body = {
        "model": "m", "prompt": ask.prompt, "max_tokens": ask.output_tokens, "ignore_eos": True,
        "temperature": 0, "stream": True,
    }  # fmt: skip
    sent, first, last = loop.time(), 0.0, 0.0
    async with session.post(f"{url}/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {"):
                last = loop.time()
                first = first or last
    return Answer(ask, sent - begun, first - begun, last - begun)


async def offer(url: str, asks: Sequence[Ask], *, sampled: bool = False) -> tuple[list[Answer], list[Sample]]:
    """All requests when due, whatever the engine does, with metrics read beside them."""
    loop = asyncio.get_running_loop()
    timeout = aiohttp.ClientTimeout(total=600)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        begun = loop.time() + 0.2
        samples: list[Sample] = []
        sampler = asyncio.create_task(sample_metrics(session, url, begun, samples)) if sampled else None
        answers = await asyncio.gather(*(send(session, url, ask, begun) for ask in asks))
        if sampler:
            await asyncio.sleep(0.3)
            sampler.cancel()
    return list(answers), samples


def prompt(rng: random.Random, tokens: int) -> list[int]:
    """Tokens nobody else's prompt begins with."""
    return [rng.randrange(10, VOCABULARY) for _ in range(tokens)]


def calibrate(url: str, rng: random.Random) -> StepTimes:
    """Least squares over decoding at several batch sizes and prompts one at a time."""
    rows, times = [], []
    for batch in BATCHES:
        for _ in range(3):
            answers, _ = asyncio.run(offer(url, [Ask(0.0, prompt(rng, 8), 60) for _ in range(batch)]))
            rows.append([1.0, batch, 0.0, 0.0])
            times.append(min((a.last_s - a.first_s) / (a.ask.output_tokens - 1) for a in answers))
    for tokens in PROMPTS:
        for _ in range(4):
            answers, _ = asyncio.run(offer(url, [Ask(0.0, prompt(rng, tokens), 2)]))
            rows.append([1.0, 0.0, tokens, 1.0])
            times.append(answers[0].first_s - answers[0].sent_s)
    weights = 1 / np.array(times)
    found, *_ = np.linalg.lstsq(np.array(rows) * weights[:, None], np.ones(len(times)), rcond=None)
    return StepTimes(*(max(0.0, float(value)) for value in found))


def loads(rng: random.Random, times: StepTimes, requests: int) -> dict[str, list[Ask]]:
    """Four loads, each unlike the calibration: rates are shares of what the fitted steps carry."""

    def drawn(count: int, share: float, input_tokens: int, output_tokens: int, prefix: int = 0) -> list[Ask]:
        full = times.step_s / 6 + times.sequence_s
        service = output_tokens * full + input_tokens * times.prompt_token_s
        shared, now, asks = prompt(rng, prefix), 0.0, []
        for _ in range(count):
            now += rng.expovariate(share / service)
            size = max(2, round(rng.lognormvariate(0, 0.5) * input_tokens))
            answer = max(2, round(rng.lognormvariate(0, 0.5) * output_tokens))
            asks.append(Ask(now, [*shared, *prompt(rng, min(size, 700))], min(answer, 500)))
        return asks

    bursts = [ask._replace(at_s=ask.at_s // 4 * 4) for ask in drawn(requests, 0.8, 60, 60)]
    return {
        "below saturation": drawn(requests, 0.5, 100, 40),
        "bursts, max_num_seqs reached": bursts,
        "cache exhausted": drawn(requests, 0.9, 450, 220),
        "shared prefix": drawn(requests, 0.7, 60, 50, prefix=600),
    }


def main() -> int:
    """Serve, calibrate, offer, replay, compare, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument(
        "--at-once", action="store_true",
        help="one engine, two loads, all requests together: the same queue on any machine",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="write the rows here and no results")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    engines: list[dict[str, Any]] = []
    for engine in (Engine(caching=True, blocks=40), Engine(caching=False, blocks=28))[
        : 2 - arguments.at_once
    ]:
        with tempfile.TemporaryDirectory() as folder, served(engine, FLAGS, Path(folder)) as url:
            rng = random.Random(20261123)  # noqa: S311 - not a secret
            config = read_config(url, engine, FLAGS)
            asyncio.run(offer(url, [Ask(0.0, prompt(rng, 500), 20) for _ in range(6)]))  # warm up
            times = calibrate(url, rng)
            print(config, times, file=sys.stderr, flush=True)
            engines.append({"config": repr(config), "step_times": times._asdict()})
            offered = loads(rng, times, arguments.requests)
            if arguments.at_once:
                offered = {name: [ask._replace(at_s=0.0) for ask in offered[name]] for name in AT_ONCE}
            for name, asks in offered.items():
                rows.append(one(url, name, config, times, asks))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps({"engines": engines, "rows": rows}))
        return 0
    print(write_result("simulated_against_vllm", {"engines": engines, "rows": rows}))
    (RESULTS / "simulated_against_vllm.md").write_text(table(rows))
    return 0


def core_wait_s() -> float:
    """Seconds that the engine's main threads have waited for a core since they began; this one's apart."""
    children = psutil.Process().children(recursive=True)
    return sum(int(Path(f"/proc/{p.pid}/schedstat").read_text().split()[1]) for p in children) / 1e9


def one(url: str, name: str, config: EngineConfig, times: StepTimes, asks: list[Ask]) -> dict[str, Any]:
    """One load on both engines."""
    waited_s = core_wait_s()
    answers, samples = asyncio.run(offer(url, asks, sampled=True))
    waited_s = core_wait_s() - waited_s
    arrivals = [(answer.sent_s, answer.ask.prompt, answer.ask.output_tokens) for answer in answers]
    simulated = replay(config, times.seconds, arrivals, outside_s=times.outside_s)
    paced = replay(config, times.seconds, arrivals, outside_s=times.outside_s, pace=samples)
    real = Replay(
        first_s=[a.first_s for a in answers],
        last_s=[a.last_s for a in answers],
        instants=samples,
        preemptions=round(samples[-1].preemptions - samples[0].preemptions),
        prefix_hits=round(samples[-1].prefix_hits - samples[0].prefix_hits),
        prefix_queries=round(samples[-1].prefix_queries - samples[0].prefix_queries),
    )
    return {
        "load": name,
        "prefix_caching": config.enable_prefix_caching,
        "cpu_wait_share": waited_s / max(answer.last_s for answer in answers),
        "predicted": compare(arrivals, real, simulated),
        "paced": compare(arrivals, real, paced),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """What the documentation shows."""
    lines = [
        "# The simulated engine against real vLLM on a CPU",
        "",
        "Measured / predicted / paced; running, waiting and cache use are means over the run of what",
        "`/metrics` said every 50 ms. `predicted`: step times from the calibration alone. `paced`: each step",
        "ends when the real engine's did, so that only the scheduler's decisions differ. Latencies are the",
        "prediction's errors; they hold as far as the engine had its cores: how long it had to wait for one,",
        "as a share of the time, is beside them.",
        "",
        (
            "| load | prefix caching | running | waiting | cache use | preemptions | prefix hit tokens "
            "| TTFT median, p90 | TPOT median, p90 | E2E median, p90 | waits for a core |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        s, paced = row["predicted"], row["paced"]
        pairs = [
            f"{s[name][0]:.2f} / {s[name][1]:.2f} / {paced[name][1]:.2f}"
            for name in ("running", "waiting", "kv_cache_usage")
        ]
        counts = [
            f"{s[name][0]:,} / {s[name][1]:,} / {paced[name][1]:,}" for name in ("preemptions", "prefix_hits")
        ]
        errors = [f"{s[name]['p50']:+.1%}, {s[name]['p90']:+.1%}" for name in ("ttft", "tpot", "e2e")]
        caching = "on" if row["prefix_caching"] else "off"
        wait = f"{row['cpu_wait_share']:.0%}"
        lines.append(f"| {' | '.join([row['load'], caching, *pairs, *counts, *errors, wait])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

"""The simulated engine beside vidur on the same trace and model size: requests per CPU second, and memory.

    python -m venv /tmp/vidur && /tmp/vidur/bin/pip install vidur==0.0.26
    QWENHOST_VIDUR_PYTHON=/tmp/vidur/bin/python python benchmarks/simulated_against_vidur.py

Conditions. One replica, the same requests (chat's sizes, Poisson), no prefix caching on either side. vidur
knows no Qwen3.5: its Llama-3-70B stands in, which for its speed is a number of layers in a sum. Its
profiles lie on a hub that not every machine reaches, so the tables it looks its times up in hold our step
times; with equal limits both then simulate the same service, which their TTFT and TPOT show. It is given
its Sarathi scheduler (chunked prefill) and no plots or Chrome trace; we are given no asynchronous
scheduling, which it does not know. Counted is the CPU time of the run, without the start of Python and the
filling of tables; vidur's is that of its native predictor or without, whichever is better.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from common import write_result

from qwenhost.cli.simulation_setup import planned_engine
from qwenhost.cli.wiring import make_plan
from qwenhost.plan import StepShape
from qwenhost.profiles import load_catalog
from qwenhost.simulate.load import Arrival, arrival_times, drawn_requests
from qwenhost.simulate.virtual import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.simulate.config import EngineConfig

PYTHON = os.environ.get("QWENHOST_VIDUR_PYTHON", "")
RATE = 5.0
COUNTS = (1_000, 10_000)
MODEL, LAYERS, TP = "meta-llama/Llama-3-70B", 80, 4
MAX_TOKENS, CHUNK, SEQS, GRANULE = 32_768, 8_192, 256, 256


def limits(config: EngineConfig) -> EngineConfig:
    """The plan's engine with the limits both are given."""
    return msgspec.structs.replace(
        config, max_model_len=MAX_TOKENS, max_num_seqs=SEQS, max_num_batched_tokens=CHUNK, block_size=16,
        num_blocks=65_537, state_blocks_per_sequence=0, enable_prefix_caching=False, align_prefill=False,
        async_scheduling=False,
    )  # fmt: skip


def question(step_time: Callable[[StepShape], float]) -> dict[str, Any]:
    """Our step times as vidur's tables: by tokens, and what context adds to decoding and to prefill."""

    def ms(**shape: int) -> float:
        return 1000 * step_time(StepShape(**shape))

    bare = {n: ms(decode_sequences=n, decode_context_tokens=n) for n in range(1, SEQS + 1)}
    prompts = {n: ms(prefill_tokens=n, prefill_sequences=1) for n in range(32, CHUNK + SEQS + 33, 32)}
    tokens = [(n, bare[n] if n <= SEQS else prompts[-(-n // 32) * 32]) for n in range(1, CHUNK + SEQS + 9)]
    contexts = range(0, MAX_TOKENS + CHUNK + 1, GRANULE)
    decode = [
        (b, kv, max(0.0, ms(decode_sequences=b, decode_context_tokens=max(b, b * kv)) - bare[b]))
        for b in range(1, SEQS + 1)
        for kv in contexts
    ]
    prefill = [
        (kv, n, max(0.0, ms(prefill_tokens=n, prefill_sequences=1, prefill_context_tokens=kv) - prompts[n]))
        for n in range(32, CHUNK + 1, 32)
        for kv in contexts
    ]
    return {
        "tokens_ms": tokens, "decode_ms": decode, "prefill_ms": prefill, "model": MODEL, "layers": LAYERS,
        "tp": TP, "max_num_seqs": SEQS, "max_num_batched_tokens": CHUNK, "max_tokens": MAX_TOKENS,
        "block_size": 16, "num_blocks": 65_536,
    }  # fmt: skip


def theirs(asked: dict[str, Any], arrivals: list[Arrival], *, native: bool) -> dict[str, Any]:
    """The run of vidur, in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        trace, answer = Path(folder) / "trace.csv", Path(folder) / "answer.json"
        with trace.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["Date", "Time", "PromptTokenCount", "CompletionTokenCount"])
            for one in arrivals:
                rows.writerow(["2026-01-01", one.at_s, one.request.prompt_tokens, one.request.output_tokens])
        body = {**asked, "trace": str(trace), "answer": str(answer), "folder": folder, "native": native}
        done = subprocess.run(
            [PYTHON, str(Path(__file__).with_name("peers_vidur.py"))],
            input=json.dumps(body), capture_output=True, text=True, cwd=folder, check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"},
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"vidur failed:\n{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(answer.read_text())
        return found


def ours(count: int) -> None:
    """Run by ourselves in a process of its own, so that the peak of memory is this run's."""
    config, step_time, arrivals = prepared(count)
    began = time.process_time()
    simulator = Simulator(config, step_time, seed=0)
    simulator.open_loop(arrivals)
    ended = time.process_time()
    records = simulator.run.records
    found = {
        "cpu_s": ended - began,
        "start_cpu_s": began,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "completed": len(records),
        "ttft_s": [r.ttft_ms / 1000 for r in records if r.ttft_ms is not None],
        "tpot_s": [r.tpot_ms / 1000 for r in records if r.tpot_ms is not None],
    }
    print(json.dumps(found))


def prepared(count: int) -> tuple[EngineConfig, Callable[[StepShape], float], list[Arrival]]:
    """Engine, step times and the trace."""
    known = load_catalog([])
    plan = make_plan(known, {"gpus": "2xH200", "workload": "chat", "num_speculative_tokens": 0})
    config, step_time = planned_engine(known, plan, None)
    config = limits(config)
    due = zip(
        arrival_times("poisson", RATE, 0),
        islice(drawn_requests(known.workloads["chat"], config, 0), count),
        strict=False,
    )
    return config, step_time, [Arrival(at, request) for at, request in due]


def row(name: str, count: int, found: dict[str, Any]) -> dict[str, Any]:
    """One line of the result."""
    return {
        "simulator": name,
        "requests": count,
        "completed": found["completed"],
        "cpu_s": round(found["cpu_s"], 3),
        "requests_per_cpu_s": round(count / found["cpu_s"], 1),
        "start_cpu_s": round(found["start_cpu_s"], 2),
        "peak_mib": round(found["peak_bytes"] / 2**20),
        "ttft_p50_ms": round(1000 * statistics.median(found["ttft_s"]), 2),
        "tpot_p50_ms": round(1000 * statistics.median(found["tpot_s"]), 3),
    }


def main() -> None:
    """Each size on either, and what a day of it would take."""
    if len(sys.argv) > 1:
        ours(int(sys.argv[1]))
        return
    if not Path(PYTHON).is_file():
        sys.exit(f"QWENHOST_VIDUR_PYTHON={PYTHON!r} is no Python with vidur.\n\n{__doc__}")
    rows = []
    for count in COUNTS:
        _, step_time, arrivals = prepared(count)
        asked = question(step_time)
        alone = subprocess.run(
            [sys.executable, __file__, str(count)], check=True, capture_output=True, text=True
        )
        rows.append(row("qwenhost", count, json.loads(alone.stdout)))
        rows.append(row("vidur 0.0.26", count, theirs(asked, arrivals, native=False)))
        rows.append(row("vidur 0.0.26, native predictor", count, theirs(asked, arrivals, native=True)))
        for line in rows[-3:]:
            print(json.dumps(line))
    mine, *others = rows[-3:]
    best = max(other["requests_per_cpu_s"] for other in others)
    result = {
        "conditions": " ".join(str(__doc__).split("Conditions.")[1].split()),
        "rate_per_s": RATE,
        "rows": rows,
        "times_faster": round(mine["requests_per_cpu_s"] / best, 1),
    }
    print(write_result("simulated_against_vidur", result))


if __name__ == "__main__":
    main()

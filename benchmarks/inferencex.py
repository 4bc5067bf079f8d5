"""Layouts that InferenceX measured side by side on data centre GPUs, as questions to the speed model.

``data/inferencex_layouts.csv`` holds the rows of its database dump of 2026-04-27 that aiconfigurator-core
0.12.0 (Apache-2.0) carries in ``systems/silicon_sample.csv``: MiniMax-M2.5 on vLLM and Qwen3.5-397B on
SGLang. Only rows of the dump: other files there mix in runs with drafts and do not mark them. Made with:

    python benchmarks/inferencex.py SILICON_SAMPLE_CSV
"""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qwenhost.node import parse_gpus
from qwenhost.plan import Parallelism, PlanRequest
from qwenhost.planner.context import Context
from qwenhost.planner.option import Option
from qwenhost.planner.service import Demand, Load, Service, closed_loop
from qwenhost.profiles import load_catalog

DATA = Path(__file__).parent / "data"
LAYOUTS = DATA / "inferencex_layouts.csv"
MODELS = {("MiniMaxAI/MiniMax-M2.5", "vllm"), ("Qwen/Qwen3.5-397B-A17B", "sglang")}
CHECKPOINTS = {
    ("MiniMaxAI/MiniMax-M2.5", "fp8"): "minimax-m2.5-fp8",
    ("MiniMaxAI/MiniMax-M2.5", "fp4"): "minimax-m2.5-nvfp4",
    ("Qwen/Qwen3.5-397B-A17B", "fp8"): "397b-fp8",
    ("Qwen/Qwen3.5-397B-A17B", "fp4"): "397b-nvfp4",
    ("Qwen/Qwen3.5-397B-A17B", "bf16"): "397b-bf16",
}
GPUS = {"h100_sxm": "h100-80gb", "h200_sxm": "h200", "b200_sxm": "b200", "b300_sxm": "b300"}
COLUMNS = (
    "model", "engine", "version", "gpu", "precision", "input_tokens", "output_tokens", "concurrency",
    "tp", "dp", "moe_tp", "moe_ep", "ttft_ms", "tpot_ms", "config_id", "measured",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One layout under one load."""

    model: str
    engine: str
    version: str
    gpu: str
    precision: str
    input_tokens: int
    output_tokens: int
    concurrency: int
    layout: Parallelism
    ttft_s: float
    tpot_s: float

    @property
    def checkpoint(self) -> str:
        """Id of its checkpoint."""
        return CHECKPOINTS[self.model, self.precision]

    @property
    def output_tok_s(self) -> float:
        """Of all GPUs, from the mean times of a closed loop: every user always waits for one answer."""
        answer_s = self.ttft_s + self.tpot_s * (self.output_tokens - 1)
        return self.concurrency * self.output_tokens / answer_s

    def predicted(self) -> Service:
        """The model's service of one data-parallel rank, constants as shipped."""
        users = self.concurrency / self.layout.data_parallel_size
        demand = Demand(float(self.input_tokens), 0.0, float(self.output_tokens))
        return closed_loop(_step_model(self), demand, Load(users, _batch(self.gpu)))

    @property
    def predicted_tok_s(self) -> float:
        """The same of the whole engine."""
        return self.predicted().requests_per_s * self.layout.data_parallel_size * self.output_tokens


def runs() -> tuple[list[Run], int]:
    """Every run of a layout that vLLM has, and how many were left out because it has not.

    Left out: experts both split and spread (moe_tp and moe_ep above 1), layouts of more GPUs than a node's
    eight, which in these files are the product of two sizes of one node.
    """
    taken, out = [], 0
    with LAYOUTS.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        sizes = {name: int(row[name]) for name in ("tp", "dp", "moe_tp", "moe_ep")}
        spread = sizes["moe_ep"] > 1
        if sizes["tp"] * sizes["dp"] > 8 or (spread and sizes["moe_tp"] > 1):
            out += 1
            continue
        layout = Parallelism(
            tensor_parallel_size=sizes["tp"], data_parallel_size=sizes["dp"], enable_expert_parallel=spread
        )
        taken.append(
            Run(
                model=row["model"],
                engine=row["engine"],
                version=row["version"],
                gpu=GPUS[row["gpu"]],
                precision=row["precision"],
                input_tokens=int(row["input_tokens"]),
                output_tokens=int(row["output_tokens"]),
                concurrency=int(row["concurrency"]),
                layout=layout,
                ttft_s=float(row["ttft_ms"]) / 1000,
                tpot_s=float(row["tpot_ms"]) / 1000,
            )
        )
    return taken, out


@cache
def _catalog() -> Any:
    return load_catalog([DATA / "profiles", DATA / "layout_profiles"])


@cache
def _context(gpu: str) -> Context:
    catalog = _catalog()
    workload = next(iter(catalog.workloads.values()))
    node = parse_gpus(f"8x{gpu}", catalog.gpus)
    return Context(PlanRequest(node=node, workload=workload, slo=workload.slo), catalog)


def _step_model(run: Run) -> Any:
    dtype = _catalog().checkpoints[run.checkpoint].declared_kv_cache_dtype or "auto"
    return _context(run.gpu).step_model(Option(run.checkpoint, run.layout, dtype, 0, False))


def _batch(gpu: str) -> int:
    return _context(gpu).default_batched_tokens


def main(source: str) -> int:
    """Write the CSV from aiconfigurator-core's."""
    kept = []
    with Path(source).open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        found = re.search(
            r"db-dump/2026-04-27; config_id=(\d+); silicon_concurrency=(\d+); measured=([\d-]+)",
            row["silicon_data_source"],
        )
        if found and (row["model_path"], row["backend"]) in MODELS:
            values = (
                row["model_path"], row["backend"], row["backend_version"], row["system"], row["precision"],
                row["isl"], row["osl"], found[2], row["tp_size"], row["attention_dp_size"],
                row["moe_tp_size"], row["moe_ep_size"], f"{float(row['silicon_ttft_ms']):.1f}",
                f"{float(row['silicon_tpot_ms']):.3f}", found[1], found[3],
            )  # fmt: skip
            kept.append(values)
    with LAYOUTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted(kept))
    print(f"{len(kept)} rows in {LAYOUTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

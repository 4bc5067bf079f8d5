"""aiconfigurator's prediction beside ours and the measurement, for points that both can do.

    python -m venv /tmp/aic && /tmp/aic/bin/pip install aiconfigurator==0.12.0
    python benchmarks/peers_speed.py /tmp/aic/bin/python

Points: MiniMax-M2.5 on vLLM 0.19 as InferenceX measured it (``inferencex.py``), 1,024 tokens in and out.
Both tools are asked for the same layout and load; neither was fitted to these rows by us. aiconfigurator has
tables of vLLM 0.24 for these GPUs. Those of its FP8 block GEMM have a floor of 60 to 300 us a call; what it
answers where BF16 GEMM is asked for in their place stands in a column of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import RESULTS, write_result
from inferencex import Run, runs

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEMS = {"h100-80gb": "h100_sxm", "h200": "h200_sxm", "b200": "b200_sxm", "b300": "b300_sxm"}
CONCURRENCIES = (4, 16, 64, 256)
MODEL, ENGINE = "MiniMaxAI/MiniMax-M2.5", "vllm"
WORKAROUND = {"gemm_quant_mode": "bfloat16"}
FIND_CONFIG = (
    "import aiconfigurator_core as a, pathlib; print(pathlib.Path(a.__file__).parent / 'model_configs')"
)
ENOUGH_S = 480.0


@dataclass(frozen=True)
class Line:
    """One point, all predictions as output tokens a second."""

    gpu: str
    layout: str
    precision: str
    concurrency: int
    measured: float
    ours: float
    theirs: float | None
    theirs_with_workaround: float | None
    why_not: str


def questions(taken: list[Run], model_dir: Path) -> list[dict[str, Any]]:
    """Of every point two: as it comes, and with the workaround."""
    found = []
    for number, run in enumerate(taken):
        layout = run.layout
        ranks = layout.tensor_parallel_size * layout.data_parallel_size
        spread = layout.enable_expert_parallel
        asked = {
            "model_path": str(model_dir), "system_name": SYSTEMS[run.gpu], "backend_name": run.engine,
            "isl": run.input_tokens, "osl": run.output_tokens,
            "batch_size": max(1, run.concurrency // layout.data_parallel_size),
            "tp_size": layout.tensor_parallel_size, "attention_dp_size": layout.data_parallel_size,
            "moe_tp_size": 1 if spread else ranks, "moe_ep_size": ranks if spread else 1,
        }  # fmt: skip
        found.append(asked | {"index": 2 * number})
        found.append(asked | WORKAROUND | {"index": 2 * number + 1})
    return found


def answers(python: str, asked: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """From aiconfigurator's own environment."""
    here = Path(__file__).parent
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaints:
        with subprocess.Popen(
            [python, str(here / "peers_aiconfigurator.py")],
            stdin=subprocess.PIPE, stdout=said, stderr=complaints, text=True,
        ) as process:  # fmt: skip
            try:
                process.communicate("".join(json.dumps(one) + "\n" for one in asked), timeout=ENOUGH_S)
            except subprocess.TimeoutExpired:
                process.kill()  # what it said until then counts
        said.seek(0)
        complaints.seek(0)
        lines = [line.removeprefix("ANSWER ") for line in said if line.startswith("ANSWER ")]
        if not lines:
            sys.exit(f"no answer from aiconfigurator: {complaints.read()[-2000:]}")
    return {answer.pop("index"): answer for answer in map(json.loads, lines)}


def rate(run: Run, answer: dict[str, Any]) -> float | None:
    """Output tokens a second of all GPUs, from mean times as for the measurement."""
    if "error" in answer or not answer.get("tpot_ms"):
        return None
    answer_s = (answer["ttft_ms"] + answer["tpot_ms"] * (run.output_tokens - 1)) / 1000
    return float(run.concurrency * run.output_tokens / answer_s)


def table(lines: list[Line]) -> list[dict[str, Any]]:
    """Median and 90th percentile of the absolute error, on the points all of them can do."""
    columns: dict[str, Callable[[Line], float]] = {
        "qwenhost": lambda line: line.ours,
        "aiconfigurator": lambda line: line.theirs or 0.0,
        "aiconfigurator, BF16 GEMM asked for": lambda line: line.theirs_with_workaround or 0.0,
    }
    both = [line for line in lines if line.theirs and line.theirs_with_workaround]
    found = []
    for name, column in columns.items():
        errors = sorted(abs(column(line) / line.measured - 1) for line in both)
        bias = statistics.mean(column(line) / line.measured - 1 for line in both)
        found.append(
            {
                "tool": name,
                "points": len(both),
                "median": statistics.median(errors),
                "p90": errors[-(-9 * len(errors) // 10) - 1],
                "worst": errors[-1],
                "bias": bias,
            }
        )
    return found


def markdown(summary: list[dict[str, Any]], lines: list[Line], version: str) -> str:
    """Summary first, then every point."""
    text = [
        "# Speed: aiconfigurator beside qwenhost and the measurement",
        "",
        "| prediction | points | median abs error | p90 | worst | bias |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in summary:
        figures = " | ".join(f"{row[name]:.1%}" for name in ("median", "p90", "worst"))
        text += [f"| {row['tool']} | {row['points']} | {figures} | {row['bias']:+.1%} |"]
    text += [
        "",
        f"aiconfigurator {version}, backend vLLM, its default database. Output tokens/s of MiniMax-M2.5,",
        "1,024 tokens in and out, as InferenceX measured it on vLLM (dump of 2026-04-27): a sibling by its",
        "experts, not of this architecture. Only the points on which all three answer are counted.",
        "",
        "| GPUs | layout | precision | in flight | measured | qwenhost | aiconfigurator | with BF16 GEMM |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for line in lines:
        cells = (
            line.gpu, line.layout, line.precision, line.concurrency, f"{line.measured:,.0f}",
            _cell(line.ours, line.measured), _cell(line.theirs, line.measured),
            _cell(line.theirs_with_workaround, line.measured),
        )  # fmt: skip
        text.append(f"| {' | '.join(map(str, cells))} |")
    reasons = sorted({line.why_not for line in lines if line.why_not})
    return "\n".join([*text, "", *(f"- no answer: {reason}" for reason in reasons)]) + "\n"


def _cell(value: float | None, measured: float) -> str:
    return "none" if value is None else f"{value:,.0f} ({value / measured - 1:+.0%})"


def main(python: str) -> int:
    """Print the table and keep it."""
    taken = [
        run
        for run in runs()[0]
        if (run.model, run.engine) == (MODEL, ENGINE)
        and (run.input_tokens, run.output_tokens) == (1024, 1024)
        and run.concurrency in CONCURRENCIES
        and run.precision == "fp8"
    ]
    taken = list({(run.gpu, run.layout, run.precision, run.concurrency): run for run in taken}.values())
    configs = Path(
        subprocess.run(
            [python, "-c", FIND_CONFIG], capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
    )
    with tempfile.TemporaryDirectory() as folder:
        config = (configs / f"{MODEL.replace('/', '--')}_config.json").read_bytes()
        Path(folder, "config.json").write_bytes(config)
        got = answers(python, questions(taken, Path(folder)))
    lines = []
    for number, run in enumerate(taken):
        plain, other = (got.get(2 * number + i, {"error": "no answer in time"}) for i in (0, 1))
        lines.append(
            Line(
                gpu=f"{run.layout.world_size}x {run.gpu}",
                layout=run.layout.label,
                precision=run.precision,
                concurrency=run.concurrency,
                measured=run.output_tok_s,
                ours=run.predicted_tok_s,
                theirs=rate(run, plain),
                theirs_with_workaround=rate(run, other),
                why_not=plain.get("error", ""),
            )
        )
    version = _version(python)
    summary = table(lines)
    for row in summary:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    (RESULTS / "peers_speed.md").write_text(markdown(summary, lines, version))
    path = write_result(
        "peers_speed",
        {
            "aiconfigurator": version,
            "qwenhost": metadata.version("qwenhost"),
            "summary": summary,
            "lines": [vars(line) for line in lines],
        },
    )
    print(f"kept {path.name} and peers_speed.md")
    return 0


def _version(python: str) -> str:
    words = [python, "-c", "from importlib.metadata import version; print(version('aiconfigurator'))"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

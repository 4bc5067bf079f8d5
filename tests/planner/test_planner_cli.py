"""``qwenhost plan`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.cli.main import run
from qwenhost.plan import load_plan

if TYPE_CHECKING:
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


def plan_json(capsys: Capture, *args: str) -> tuple[int, dict[str, Any], str]:
    try:
        code = run(["plan", *args, "--json"])
    except SystemExit as error:  # pragma: no cover - click in standalone mode
        code = int(error.code or 0)
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {}, captured.err


def test_contract_keys(capsys: Capture) -> None:
    """The keys of ``qwenhost.plan/1`` are there, and stdout is JSON and nothing else."""
    code, plan, _ = plan_json(capsys, "--gpus", "2xH200")
    assert code == 0
    assert plan["schema"] == "qwenhost.plan/1"
    assert plan["inputs"].keys() >= {"node", "workload", "objective", "catalog_digest"}
    chosen = plan["chosen"]
    assert chosen["checkpoint"].keys() >= {"repo_id", "revision", "quantization"}
    assert chosen["parallelism"].keys() >= {
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel",
    }  # fmt: skip
    assert chosen["vllm_argv"][:2] == ["vllm", "serve"]
    assert chosen["memory_per_gpu"].keys() >= {
        "total_bytes", "usable_bytes", "weights_bytes", "activation_bytes", "cudagraph_bytes",
        "non_torch_bytes", "kv_cache_bytes",
    }  # fmt: skip
    assert chosen["kv_cache"].keys() >= {
        "num_blocks", "block_size", "tokens", "max_concurrency_at_max_model_len", "bytes_per_token",
        "state_bytes_per_sequence",
    }  # fmt: skip
    for name in ("output_tokens_per_s", "input_tokens_per_s", "ttft_ms", "tpot_ms", "concurrency"):
        assert chosen["estimate"][name].keys() >= {"value", "low", "high", "basis", "bound"}
    assert chosen["usd_per_hour"] == pytest.approx(2 * plan["inputs"]["gpu_price"]["usd_per_gpu_hour"])
    assert all(one["vllm_argv"] for one in plan["alternatives"])
    assert all(one["candidate"]["vllm_argv"] for one in plan["fallbacks"])
    assert all(r.keys() >= {"checkpoint", "parallelism", "rule", "message"} for r in plan["rejections"])


@pytest.mark.parametrize(
    "gpus", ["1xH200", "2xH200", "4xH100-80GB", "8xA100-80GB", "2x RTX PRO 6000", "1xB200", "1xRTX PRO 6000"]
)
def test_feasible(capsys: Capture, gpus: str) -> None:
    """These nodes run the model."""
    code, plan, _ = plan_json(capsys, "--gpus", gpus)
    assert (code, plan["chosen"] is None) == (0, False)


@pytest.mark.parametrize("gpus", ["1xL40S", "1xRTX 4090", "2xRTX 4090"])
def test_infeasible_ends_with_3_and_reasons(capsys: Capture, gpus: str) -> None:
    """These do not: JSON with the rejections, one sentence on stderr, exit code 3."""
    code, plan, err = plan_json(capsys, "--gpus", gpus)
    assert (code, plan["chosen"]) == (3, None)
    assert plan["schema"] == "qwenhost.plan/1"
    assert all(
        r["need_bytes"] > r["have_bytes"] for r in plan["rejections"] if r["rule"] == "weights_do_not_fit"
    )
    assert "Nothing fits" in err


def test_reasons_for_people(capsys: Capture) -> None:
    """Without --json the reasons stand on stderr and stdout stays empty."""
    assert run(["plan", "--gpus", "1xL40S"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "gptq-int4, TP1: weights do not fit." in captured.err


def test_first_screen(capsys: Capture) -> None:
    """The choice, the three numbers, speed with its basis, money, the command and what next."""
    assert run(["plan", "--gpus", "2xH200", "--gpu-price", "3"]) == 0
    out = capsys.readouterr().out
    for words in (
        "context per request", "requests at once", "headroom", "output", "per token", "calibration hopper",
        "$6.00/h", "vllm serve ", "Alternatives", "Next:",
    ):  # fmt: skip
        assert words in out


def test_explain_and_save(capsys: Capture, tmp_path: Path) -> None:
    """--explain prints the arithmetic; --save writes a plan that loads again."""
    target = tmp_path / "plan.json"
    assert run(["plan", "--gpus", "4xH100", "--explain", "--save", str(target)]) == 0
    captured = capsys.readouterr()
    assert "Memory of one GPU" in captured.out
    assert "left for the cache" in captured.out
    assert f"Saved {target}" in captured.err
    assert load_plan(target).inputs.node.gpu_count == 4


def test_why_not(capsys: Capture) -> None:
    """A refused one shows what it lacks, a worse one its figures, the best one itself."""
    assert run(["plan", "--gpus", "2xH200", "--why-not", "bf16/TP1"]) == 0
    assert "weights do not fit" in capsys.readouterr().out
    assert run(["plan", "--gpus", "2xH200", "--checkpoint", "fp8", "--why-not", "fp8/TP1 DP2"]) == 0
    worse = capsys.readouterr().out
    assert "fits and ranks" in worse
    assert "left for the cache" in worse
    assert run(["plan", "--gpus", "2xH200", "--checkpoint", "fp8", "-tp", "2", "--why-not", "TP2"]) == 0
    assert "is the choice." in capsys.readouterr().out


def test_cache_from_a_log_figure(capsys: Capture) -> None:
    """The GB10 log again: 26.26 GiB, vLLM 0.19, 547 blocks, 4.14x."""
    code, plan, _ = plan_json(
        capsys, "--gpus", "1xGB10", "--checkpoint", "int4-autoround", "--available-kv-gib", "26.26",
        "--vllm-version", "0.19.0",
    )  # fmt: skip
    assert code == 0
    assert plan["chosen"]["kv_cache"]["num_blocks"] == 547
    assert round(plan["chosen"]["kv_cache"]["max_concurrency_at_max_model_len"], 2) == 4.14


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--gpus", "2xH900"), "no GPU called 'H900'"),
        (("--gpus", "2xH200", "--checkpoint", "fp9"), "no such checkpoint"),
        (("--gpus", "2xH200", "--vllm-version", "new"), "not a version"),
        (("--gpus", "2xH200", "--workload", "poetry"), "no such preset"),
    ],
)
def test_bad_input_is_one_sentence(capsys: Capture, args: tuple[str, ...], words: str) -> None:
    """Exit code 2, the sentence and the remedy, no traceback."""
    code, plan, err = plan_json(capsys, *args)
    assert (code, plan) == (2, {})
    assert words in err
    assert "Traceback" not in err


def test_start_up_imports_nothing_heavy() -> None:
    """Planning to JSON needs no rich, jinja2, uvicorn or psutil."""
    script = (
        "import sys; from qwenhost.cli.main import run; run(['plan', '--gpus', '2xH200', '--json']); "
        "heavy = {'rich', 'jinja2', 'uvicorn', 'psutil', 'numpy', 'huggingface_hub'}; "
        "print(','.join(sorted(heavy & set(sys.modules))), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""

"""A log held against its prediction, and what is kept from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwenhost.cli.main import run
from qwenhost.node import parse_gpus
from qwenhost.plan import Parallelism
from qwenhost.planner.check import Launch, Start
from qwenhost.planner.differences import ObservedStart, differences, learned
from qwenhost.profiles import load_catalog
from qwenhost.units import GIB

LOGS = Path(__file__).parents[1] / "logs"
GB10 = LOGS / "assembled" / "gb10-int4-autoround.log"
CPU = LOGS / "vllm-0.32-cpu-start.log"
Capture = pytest.CaptureFixture[str]
TINY = """
architectures:
- {id: tiny, hf_architecture: Qwen3_5MoeForConditionalGeneration, model_type: qwen3_5_moe, hidden_size: 256,
   num_hidden_layers: 4, full_attention_interval: 4, num_attention_heads: 4, num_key_value_heads: 2,
   head_dim: 64, attn_output_gate: true, linear_num_key_heads: 2, linear_num_value_heads: 4,
   linear_key_head_dim: 64, linear_value_head_dim: 64, linear_conv_kernel_dim: 4, num_experts: 8,
   num_experts_per_tok: 2, moe_intermediate_size: 64, shared_expert_intermediate_size: 64, vocab_size: 320,
   tie_word_embeddings: false, max_position_embeddings: 8192, yarn_max_position_embeddings: 8192,
   mtp_num_hidden_layers: 1, mamba_ssm_dtype: float32, vision: null,
   source: {where: the test, as_of: 2026-11-23}}
checkpoints:
- {id: tiny, repo_id: local/tiny, architecture: tiny, quantization: none, formats: {default: bf16}, mtp: true,
   disk_bytes: 1, disk_bytes_basis: modelled, min_compute_capability: 0.0, max_tensor_parallel_size: 1,
   recommended: false, source: {where: the test, as_of: 2026-11-23}}
"""


@pytest.fixture(autouse=True)
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's empty config folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "qwenhost" / "profiles"


def check_json(capsys: Capture, *args: str) -> dict[str, Any]:
    """``qwenhost plan --check ... --json``."""
    assert run(["plan", "--json", *args]) == 0
    return dict(json.loads(capsys.readouterr().out))


def by_figure(found: dict[str, Any], given: str) -> dict[str, tuple[float, float]]:
    """(predicted, observed) by figure."""
    return {
        row["figure"]: (row["predicted"], row["observed"])
        for row in found["differences"]
        if row["given"] == given
    }


def test_figures_of_a_gb10_log(capsys: Capture) -> None:
    """Flags and checkpoint come from the log; given its 26.26 GiB, tokens and concurrency are equal."""
    found = check_json(capsys, "--gpus", "1xGB10", "--check", str(GB10))
    launch = found["launch"]
    assert (launch["checkpoint"], launch["vllm_version"]) == ("int4-autoround", "0.17.0rc1")
    assert (launch["gpu_memory_utilization"], launch["max_num_batched_tokens"]) == (0.85, 8192)
    cache = by_figure(found, "available memory")
    assert cache["KV cache size"] == (285_056, 285_056)
    assert round(cache["concurrency at full context"][0], 2) == 4.14
    alone = by_figure(found, "flags")
    assert alone["block size"] == (2096, 2096)
    loading, logged = alone["model loading"]
    assert loading == pytest.approx(logged, rel=0.015)


def test_real_cpu_log_is_met_exactly(tmp_path: Path, capsys: Capture) -> None:
    """The 4-layer toy on vLLM 0.32: 1 GiB is 1,198,372 tokens in blocks of 256, 585.14x."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert (
        run(["--profiles", str(tmp_path), "plan", "--check", str(CPU), "--checkpoint", "tiny", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["node"] == "CPU"
    assert by_figure(found, "available memory") == {
        "block size": (256, 256),
        "KV cache size": (1_198_372, 1_198_372),
        "concurrency at full context": (pytest.approx(585.14, abs=0.005), 585.14),
    }


def test_calibrated_plans_predict_the_log(own_config: Path, capsys: Capture) -> None:
    """What was kept lies under the user's config with its source, and the same log is then predicted."""
    kept = check_json(capsys, "--gpus", "1xGB10", "--check", str(GB10), "--calibrate")["calibration"]
    assert Path(kept) == own_config / "measured-gb10.yaml"
    row = yaml.safe_load(Path(kept).read_text())["calibrations"][0]
    assert row["source"]["where"] == str(GB10)
    again = by_figure(check_json(capsys, "--gpus", "1xGB10", "--check", str(GB10)), "flags")
    assert again["model loading"][0] == pytest.approx(62.65, abs=0.001)
    assert again["available KV cache memory"][0] == pytest.approx(26.26, abs=0.01)
    # Another GPU's plans stay as they were, and this one's speeds too.
    assert run(["plan", "--gpus", "1xGB10", "--json"]) == 0
    assert (
        "calibration gb10 " in json.loads(capsys.readouterr().out)["chosen"]["estimate"]["ttft_ms"]["source"]
    )


def test_a_log_that_says_more_was_free_lowers_the_buffers() -> None:
    """Available memory above the prediction empties the buffers first, then the activations' base."""
    catalog = load_catalog([])
    node, launch = parse_gpus("2xH200", catalog.gpus), Launch(
        checkpoint="fp8", parallelism=Parallelism(tensor_parallel_size=2), max_num_seqs=64
    )  # fmt: skip
    start = Start(launch, node, catalog)
    predicted = start.figures().available_kv_bytes / GIB
    found = learned(launch, node, catalog, ObservedStart(available_kv_gib=predicted + 0.5))
    buffers = start.context.constants["persistent_buffer_bytes"]
    assert found["persistent_buffer_bytes"] == pytest.approx(buffers - 0.5 * GIB, abs=2)
    emptied = learned(launch, node, catalog, ObservedStart(available_kv_gib=predicted + 5))
    assert (emptied["persistent_buffer_bytes"], emptied["activation_base_bytes"]) == (0, 0)


def test_a_load_of_another_checkpoint_teaches_nothing() -> None:
    """50 GiB where 116 are computed is another model, not a margin."""
    catalog = load_catalog([])
    node = parse_gpus("1xH200", catalog.gpus)
    assert learned(Launch(checkpoint="fp8"), node, catalog, ObservedStart(model_loading_gib=50.0)) == {}


def test_defaults_follow_version_and_gpu() -> None:
    """A GB10 has the small tier from 0.20 on, as an A100; 0.19 asks for 0.9 and leaves graphs out."""
    catalog = load_catalog([])

    def settings(gpu: str, version: str) -> tuple[int, int, float]:
        start = Start(Launch(checkpoint="fp8", vllm_version=version), parse_gpus(gpu, catalog.gpus), catalog)
        return (
            start.settings.max_num_batched_tokens, start.settings.most_sequences, start.settings.utilization,
        )  # fmt: skip

    assert settings("1xGB10", "0.33.0") == (2048, 256, 0.92)
    assert settings("1xGB10", "0.32.0") == (2048, 256, 0.92)
    assert settings("1xGB10", "0.19.0") == (8192, 1024, 0.9)
    assert settings("1xH100", "0.19.0") == (8192, 1024, 0.9)
    assert settings("1xB200", "0.33.0") == (16384, 1024, 0.92)
    assert settings("1xA100", "0.33.0") == (2048, 256, 0.92)


def test_every_difference_is_named_once_per_basis() -> None:
    """Nothing is compared that the log does not say."""
    catalog = load_catalog([])
    start = Start(Launch(checkpoint="fp8"), parse_gpus("1xH200", catalog.gpus), catalog)
    rows = differences(start, ObservedStart(model_loading_gib=116.0))
    assert [(row.figure, row.given) for row in rows] == [("model loading", "flags")]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--check", "/nowhere.log", "--gpus", "1xGB10"], "/nowhere.log: No such file"),
        (["--check", str(LOGS / "vllm-0.32-cpu-bad-flag.log"), "--gpus", "1xGB10"], "the log names no model"),
        (["--check", str(CPU), "--gpus", "1xGB10"], "is no checkpoint of the catalog"),
        (["--check", str(CPU), "--checkpoint", "fp8", "--calibrate"], "teaches nothing about a GPU"),
        (["--calibrate"], "--calibrate needs --check LOG"),
    ],
)
def test_mistakes_are_named(args: list[str], words: str, capsys: Capture) -> None:
    """One sentence on stderr, exit code 2."""
    assert run(["plan", *args]) == 2
    assert words in capsys.readouterr().err


def test_table_for_people(capsys: Capture) -> None:
    """Without --json a table: predicted beside the log."""
    assert run(["plan", "--gpus", "1xGB10", "--check", str(GB10)]) == 0
    out = capsys.readouterr().out
    assert "285,056 tokens" in out
    assert "available KV cache memory" in out


def test_why_not_shows_the_arithmetic_of_a_refusal(capsys: Capture) -> None:
    """FP8 on one H100: the terms from the whole GPU down, and what one request would need beside."""
    assert run(["plan", "--gpus", "1xH100", "--why-not", "fp8/TP1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "fp8, TP1: weights do not fit." in lines[0]
    assert "fp8 TP1 at its tightest" in lines[1]
    amounts = [float(line.split()[0]) for line in lines[3:8]]
    usable, weights, activations, graphs, buffers = amounts
    left = float(next(line for line in lines if "left for the cache" in line).split()[0])
    assert usable + weights + activations + graphs + buffers == pytest.approx(left, abs=0.03)
    assert left < 0
    # 1 attention block, 9 of state and the null block, 49.5 MiB each: 0.53 GiB.
    assert (
        "1 x 2,112 tokens, 9 x Gated DeltaNet state and 1 null block of 49.50 MiB each: 0.53 GiB" in lines[-1]
    )


def test_why_not_shows_what_fits_and_is_not_listed(capsys: Capture) -> None:
    """BF16 TP4 on eight H200 fits and is slower than two dozen others: its figures stand there too."""
    assert run(["plan", "--gpus", "8xH200", "--why-not", "bf16/TP4"]) == 0
    assert "bf16 TP4 fits, with" in capsys.readouterr().out


def test_why_not_where_nothing_fits(capsys: Capture) -> None:
    """Exit code 3, and the arithmetic with the reasons on stderr."""
    assert run(["plan", "--gpus", "1xL40S", "--why-not", "int4-autoround"]) == 3
    assert "weights of int4-autoround" in capsys.readouterr().err


def test_first_screen_numbers_follow_from_the_blocks(capsys: Capture) -> None:
    """Context, requests at typical and at full length, headroom: recomputed by hand from the pool."""
    assert run(["plan", "--gpus", "2xH200", "--checkpoint", "fp8", "-tp", "2", "--json"]) == 0
    chosen = json.loads(capsys.readouterr().out)["chosen"]
    cache, args, memory = chosen["kv_cache"], chosen["engine_args"], chosen["memory_per_gpu"]
    typical = 1366  # chat: 1,155 in and 211 out
    held = -(-typical // cache["block_size"]) + cache["state_blocks_per_sequence"]
    in_flight = min(args["max_num_seqs"], (cache["num_blocks"] - 1) // held)
    assert chosen["concurrency_at_workload"] == in_flight
    charged = -(-args["max_model_len"] // cache["block_size"]) + cache["reserved_blocks_per_sequence"]
    assert chosen["concurrency_at_max_model_len"] == pytest.approx(cache["num_blocks"] / charged)
    terms = ("weights_bytes", "activation_bytes", "cudagraph_bytes", "non_torch_bytes", "kv_cache_bytes")
    assert sum(memory[name] for name in terms) == memory["usable_bytes"]
    assert memory["kv_cache_bytes"] // cache["block_bytes"] == cache["num_blocks"]

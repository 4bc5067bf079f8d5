"""What we render is read by vLLM's own parser, and read as we meant it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e import engine_env

sys.path.insert(0, str(Path(__file__).parent.parent / "render"))

from render_samples import candidate, plan

from qwenhost.plan import SpeculativeConfig
from qwenhost.render import render, vllm_argv

# Runs in the engine's Python: vLLM's real `main`, except that `serve` prints what it was given.
SCRIPT = """
import json, sys
from vllm.entrypoints.cli import main, serve

def show(args):
    plain = {name: value for name, value in vars(args).items() if name != "dispatch_function"}
    print("PARSED", json.dumps(plain, default=str), flush=True)

serve.ServeSubcommand.cmd = staticmethod(show)
for words in json.load(sys.stdin):
    sys.argv = words
    try:
        main.main()
    except SystemExit as error:
        print("PARSED", json.dumps({"refused": error.code}), flush=True)
"""

CANDIDATES = {
    "all defaults of a plan": candidate(),
    "everything set": candidate(
        kv_cache_dtype="fp8",
        mamba_ssm_cache_dtype="bfloat16",
        gdn_prefill_backend="triton",
        moe_backend="marlin",
        enable_prefix_caching=True,
        language_model_only=True,
        enforce_eager=True,
        speculative_config=SpeculativeConfig(num_speculative_tokens=2, moe_backend="triton"),
        extra={
            "served_model_name": ["qwen", "claude-sonnet-4-6"],
            "limit_mm_per_prompt": {"image": 4},
            "cudagraph_capture_sizes": [1, 2, 4],
            "mm_encoder_tp_mode": "data",
            "skip_mm_profiling": True,
            "trust_remote_code": False,
            "shutdown_timeout": 60,
        },
    ),
}


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """How vLLM reads each candidate, as command line and as config file, and of a wrong flag."""
    folder = tmp_path_factory.mktemp("configs")
    lines: dict[str, list[str]] = {}
    for number, (name, made) in enumerate(CANDIDATES.items()):
        config = folder / f"{number}.yaml"
        config.write_text(render(plan(made), "config"))
        lines[name] = vllm_argv(made)
        lines[f"{name}, config"] = ["vllm", "serve", "--config", str(config)]
    lines["wrong flag"] = [*vllm_argv(candidate()), "--max-num-sequences-at-once", "4"]
    engine_env.build()
    done = subprocess.run(
        [str(engine_env.engine_python()), "-c", SCRIPT],
        input=json.dumps(list(lines.values())), capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    answers = [line[7:] for line in done.stdout.splitlines() if line.startswith("PARSED ")]
    assert len(answers) == len(lines), done.stderr[-3000:]
    return dict(zip(lines, map(json.loads, answers), strict=True))


@pytest.mark.engine
def test_every_flag_is_accepted(parsed: dict[str, dict[str, Any]]) -> None:
    """Of our command lines vLLM refuses none; it does refuse a flag that it does not have."""
    assert [name for name, args in parsed.items() if "refused" in args] == ["wrong flag"]
    assert parsed["wrong flag"] == {"refused": 2}


@pytest.mark.engine
@pytest.mark.parametrize("name", CANDIDATES)
def test_values_arrive(parsed: dict[str, dict[str, Any]], name: str) -> None:
    """Each engine argument has the plan's value once vLLM has parsed it."""
    args, got = CANDIDATES[name].engine_args, parsed[name]
    for field in (
        "max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization",
        "kv_cache_dtype", "mamba_ssm_cache_dtype", "enable_prefix_caching", "language_model_only",
        "enforce_eager", "moe_backend", "gdn_prefill_backend", "tool_call_parser", "reasoning_parser",
    ):  # fmt: skip
        if getattr(args, field) is not None:  # None leaves vLLM its own default
            assert got[field] == getattr(args, field), field
    for field, value in args.extra.items():
        assert got[field] == value, field
    assert got["speculative_config"]["num_speculative_tokens"] == args.num_speculative_tokens
    assert got["enable_auto_tool_choice"] is True
    assert got["tensor_parallel_size"] == 2
    assert got["enable_expert_parallel"] is False
    assert (got["host"], got["port"]) == ("127.0.0.1", 8000)
    assert got["model_tag"] == "Qwen/Qwen3.5-122B-A10B-FP8"
    assert got["revision"] == CANDIDATES[name].checkpoint.revision


@pytest.mark.engine
@pytest.mark.parametrize("name", CANDIDATES)
def test_config_file_means_the_same(parsed: dict[str, dict[str, Any]], name: str) -> None:
    """The config file leaves no argument different from the command line's."""
    line, config = parsed[name], parsed[f"{name}, config"]
    different = {key for key in line.keys() | config.keys() if line.get(key) != config.get(key)}
    # `vllm serve MODEL` and `model: MODEL` fill the same argument by two names.
    assert different <= {"model", "model_tag", "config"}

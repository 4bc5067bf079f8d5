"""Ask vLLM's own model classes what one rank holds: cases in, bytes out, both JSON.

    PYTHONPATH=<vllm sources> <engine>/bin/python tests/e2e/weight_oracle.py < cases.json > results.json

On the stage of `gpu_stage` vLLM builds the model of a rank on PyTorch's meta device, so that every
parameter has its true, sharded shape and type and takes no memory. What loading does afterwards
(repacking, dropped zero points) is not run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import gpu_stage


def answer(case: dict[str, Any]) -> dict[str, Any]:
    """Bytes of every parameter of the rank, by name."""
    gpu_stage.set_gpu(case.get("compute_capability", "9.0"))
    target, draft = gpu_stage.build_rank(
        engine_config(case), case.get("pipeline_rank", 0), case.get("tensor_rank", 0)
    )
    return {"target": parameters(target), "draft": {} if draft is None else parameters(draft)}


def engine_config(case: dict[str, Any]) -> Any:
    """Make vLLM's complete configuration for the case."""
    from vllm.engine.arg_utils import EngineArgs

    draft = case.get("num_speculative_tokens", 0)
    return EngineArgs(
        model=model_directory(case),
        skip_tokenizer_init=True,
        language_model_only=not case.get("vision", True),
        max_num_seqs=8,
        max_model_len=4096,
        enforce_eager=True,
        enable_prefix_caching=False,
        compilation_config={"pass_config": {"fuse_allreduce_rms": False}},
        distributed_executor_backend="mp",
        tensor_parallel_size=case.get("tensor_parallel_size", 1),
        pipeline_parallel_size=case.get("pipeline_parallel_size", 1),
        enable_expert_parallel=case.get("enable_expert_parallel", False),
        speculative_config={"method": "mtp", "num_speculative_tokens": draft} if draft else None,
        **case.get("engine_args", {}),
    ).create_engine_config()


def model_directory(case: dict[str, Any]) -> str:
    """A model directory with a ``config.json``, its quantization taken from the case."""
    config = json.loads(Path(case["config"]).read_text())
    if case.get("quantization_config"):
        config["quantization_config"] = case["quantization_config"]
    directory = Path(tempfile.mkdtemp(prefix="vllm-stage-"))
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


def parameters(model: Any) -> dict[str, int]:
    """Bytes by name; what two names share is counted once."""
    return {name: value.numel() * value.element_size() for name, value in model.named_parameters()}


if __name__ == "__main__":
    gpu_stage.raise_curtain()
    json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)

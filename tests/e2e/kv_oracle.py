"""Ask vLLM's own code how it would lay out the cache: cases in, results out, both JSON.

    PYTHONPATH=<vllm sources> <engine>/bin/python tests/e2e/kv_oracle.py < cases.json > results.json

Without ``PYTHONPATH`` the engine's own, older vLLM answers.

Called, in the order of a start-up, on the stage of `gpu_stage`:

1. ``EngineArgs(...).create_engine_config()`` on a directory holding the real ``config.json``:
   prefix-caching mode, SSM type, speculative config, data and context parallelism.
2. ``initialize_model`` for the target on every pipeline rank (tensor rank 0: all are alike) and for
   the MTP draft on the last: ``QwenGatedDeltaNetAttention`` and ``Attention`` layers with their own
   state shapes, types, GDN prefill backend and attention backend. The mixture of experts and the
   vision tower hold no cache and are left empty here for speed.
3. ``Platform.update_block_size_for_backend``: block size, page padding.
4. ``get_kv_cache_spec`` of the model runner, for every rank.
5. ``EngineCore._initialize_kv_caches``: layout, groups, the fit check or automatic
   ``max_model_len``, blocks, capacity, prefix-hit granularity. Its executor is a stand-in that hands
   out the specs of step 4 and the case's available bytes.
6. ``CompilationConfig.resolve_cudagraph_mode_and_sizes`` with full CUDA graphs: the largest
   ``max_num_seqs`` it lets through.
"""

from __future__ import annotations

import copy
import json
import re
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_stage

ESTIMATED_LENGTH = re.compile(r"estimated maximum model length is (\d+)")


def answer(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Start one engine with each of the case's available bytes; a refusal to start is an answer too."""
    gpu_stage.set_gpu(case["compute_capability"])
    try:
        vllm_config = engine_config(case)
    except ValueError as error:
        refusal = {"starts": False, "refused_by": "config", "error": str(error)}
        return [refusal for _ in case["available_bytes"]]
    workers = worker_specs(vllm_config)
    cache_config, length = vllm_config.cache_config, vllm_config.model_config.max_model_len
    answers = []
    for available_bytes in case["available_bytes"]:
        # A start-up writes what it resolved into the configuration.
        vllm_config.cache_config = copy.copy(cache_config)
        vllm_config.model_config.max_model_len = length
        answers.append(start(vllm_config, workers, available_bytes) | geometry(vllm_config, workers))
    return answers


def start(vllm_config: Any, workers: list[dict[str, Any]], available_bytes: int) -> dict[str, Any]:
    """Plan the cache, or say what vLLM's refusal says."""
    try:
        kv_cache = initialize(vllm_config, workers, available_bytes)
    except ValueError as error:
        estimate = ESTIMATED_LENGTH.search(str(error))
        return {
            "starts": False,
            "refused_by": "cache",
            "error": str(error),
            "estimated_max_model_len": int(estimate.group(1)) if estimate else 0,
        }
    return {
        "starts": True,
        "max_model_len": vllm_config.model_config.max_model_len,
        "num_blocks": kv_cache.num_blocks,
        "tokens": vllm_config.cache_config.kv_cache_size_tokens,
        "max_concurrency": vllm_config.cache_config.kv_cache_max_concurrency,
        "blocks_per_request": blocks_per_request(vllm_config, kv_cache),
        "cache_hit_alignment_tokens": getattr(kv_cache, "cache_hit_alignment_tokens", None),
        "max_num_seqs": most_sequences(kv_cache),
    }


def engine_config(case: dict[str, Any]) -> Any:
    """Make vLLM's complete configuration for the case."""
    from vllm.engine.arg_utils import EngineArgs

    draft = case.get("num_speculative_tokens", 0)
    speculative = {"method": "mtp", "num_speculative_tokens": draft} if draft else None
    return EngineArgs(
        model=model_directory(case["config"]),
        skip_tokenizer_init=True,
        language_model_only=True,
        max_num_batched_tokens=16384,  # any; the default depends on the GPU and on who asks
        max_num_seqs=8,
        enforce_eager=True,  # compiling the model is not needed to plan its cache
        compilation_config={"pass_config": {"fuse_allreduce_rms": False}},
        distributed_executor_backend="mp",
        tensor_parallel_size=case.get("tensor_parallel_size", 1),
        pipeline_parallel_size=case.get("pipeline_parallel_size", 1),
        decode_context_parallel_size=case.get("decode_context_parallel_size", 1),
        max_model_len=case["max_model_len"],
        kv_cache_dtype=case.get("kv_cache_dtype", "auto"),
        mamba_ssm_cache_dtype=case.get("mamba_ssm_cache_dtype", "auto"),
        enable_prefix_caching=case.get("enable_prefix_caching", True),
        prefix_match_unit=case.get("prefix_match_unit"),
        attention_backend=case.get("attention_backend"),
        gdn_prefill_backend=case.get("gdn_prefill_backend"),
        speculative_config=speculative,
    ).create_engine_config()


@cache
def model_directory(config: str) -> str:
    """A model directory with nothing but this ``config.json``; it lasts as long as the process."""
    directory = Path(tempfile.mkdtemp(prefix="vllm-stage-"))
    (directory / "config.json").write_text(Path(config).read_text())
    return str(directory)


def worker_specs(vllm_config: Any) -> list[dict[str, Any]]:
    """KV cache specs of every pipeline rank, as its model runner reports them."""
    from vllm.config import set_current_vllm_config
    from vllm.platforms import current_platform
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    specs = []
    for rank in range(vllm_config.parallel_config.pipeline_parallel_size):
        gpu_stage.build_rank(vllm_config, rank)
        with set_current_vllm_config(vllm_config):
            current_platform.update_block_size_for_backend(vllm_config)
            specs.append(get_kv_cache_spec(vllm_config))
    return specs


def initialize(vllm_config: Any, workers: list[dict[str, Any]], available_bytes: int) -> Any:
    """``EngineCore._initialize_kv_caches`` with an executor that answers from the case."""
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.worker.worker_base import get_current_attn_backends

    layouts = [
        layout.name for layout in get_supported_kv_cache_layouts(get_current_attn_backends(vllm_config))
    ]
    executor = SimpleNamespace(
        get_kv_cache_specs=lambda: workers,
        get_supported_kv_cache_layouts=lambda: [layouts] * len(workers),
        set_kv_cache_layout=lambda *_: None,
        determine_available_memory=lambda: [available_bytes] * len(workers),
        initialize_from_config=lambda _: None,
        compile_or_warm_up_model=lambda: None,
    )
    core = SimpleNamespace(model_executor=executor, collective_rpc=lambda *_, **__: None)
    return EngineCore._initialize_kv_caches(core, vllm_config)


def geometry(vllm_config: Any, workers: list[dict[str, Any]]) -> dict[str, Any]:
    """Tokens of an attention block, bytes of a page, bytes of a block on the fullest rank."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    planning = planning_module()
    whole = {name: spec for specs in workers for name, spec in specs.items()}
    groups = planning.get_kv_cache_groups(vllm_config, whole)
    per_rank = [planning._project_kv_cache_groups_to_worker(groups, specs) for specs in workers]
    specs = [group.kv_cache_spec for group in groups]
    return {
        "block_size": next(spec.block_size for spec in specs if isinstance(spec, FullAttentionSpec)),
        "page_bytes": planning.get_uniform_page_size(specs),
        "block_bytes": max(planning._pool_bytes_per_block(vllm_config, rank) for rank in per_rank),
    }


def planning_module() -> Any:
    """Where the release keeps its planning functions."""
    try:
        from vllm.v1.core import kv_cache_planning
    except ImportError:  # to 0.32
        from vllm.v1.core import kv_cache_utils

        return kv_cache_utils
    return kv_cache_planning


def blocks_per_request(vllm_config: Any, kv_cache: Any) -> int:
    """Blocks charged to a request of ``max_model_len``, from vLLM's own concurrency."""
    from vllm.v1.core.kv_cache_utils import get_max_concurrency_for_kv_cache_config

    return round(kv_cache.num_blocks / get_max_concurrency_for_kv_cache_config(vllm_config, kv_cache))


def most_sequences(kv_cache: Any) -> int:
    """Largest ``max_num_seqs`` for which full CUDA graphs are captured."""
    lowest, highest = 0, 2 * kv_cache.num_blocks + 2
    while lowest < highest:
        middle = (lowest + highest + 1) // 2
        lowest, highest = (middle, highest) if _captures(kv_cache, middle) else (lowest, middle - 1)
    return lowest


def _captures(kv_cache: Any, max_num_seqs: int) -> bool:
    from vllm.config import CompilationConfig, CUDAGraphMode
    from vllm.v1.attention.backend import AttentionCGSupport

    config = CompilationConfig(cudagraph_mode=CUDAGraphMode.FULL_AND_PIECEWISE)
    try:
        config.resolve_cudagraph_mode_and_sizes(
            AttentionCGSupport.UNIFORM_BATCH, "any", kv_cache_config=kv_cache, max_num_reqs=max_num_seqs
        )
    except ValueError:
        return False
    return True


def leave_out_what_holds_no_cache() -> None:
    """Build layers without experts and vision, and take no notes for reloading: most of the time."""
    import torch
    from vllm.model_executor.model_loader import utils
    from vllm.model_executor.models import qwen3_5, qwen3_5_mtp, qwen3_next

    class Nothing(torch.nn.Module):  # type: ignore[misc]
        experts = None
        n_logical_experts = n_physical_experts = n_local_physical_experts = 0
        n_routed_experts = n_redundant_experts = 0

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

    qwen3_5.Qwen3_VisionTransformer = Nothing
    for module in (qwen3_5, qwen3_5_mtp, qwen3_next):
        module.Qwen3NextSparseMoeBlock = Nothing
    utils.record_metadata_for_reloading = lambda _: None


def main() -> int:
    """Answer the cases on standard input."""
    cases = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, sys.stderr  # vLLM prints
    gpu_stage.raise_curtain()
    leave_out_what_holds_no_cache()
    answers: dict[int, Any] = {}
    for index, case in sorted(enumerate(cases), key=lambda item: item[1]["compute_capability"]):
        answers[index] = answer(case)
    json.dump([answers[index] for index in range(len(cases))], output)
    return 0


if __name__ == "__main__":
    sys.exit(main())

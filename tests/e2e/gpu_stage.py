"""A stage on which vLLM believes in GPUs: its models are built, its cache is planned, nothing runs.

Runs under the engine's Python (`engine_env`), against the installed vLLM or against newer sources on
``PYTHONPATH`` (`vllm_sources`). vLLM's own classes build the model of one rank on PyTorch's meta
device: every layer has its true, sharded shapes and no memory. What a machine without a GPU lacks is
replaced here, and nothing of it computes a size:

====================================  ==============================================================
replaced                              by
====================================  ==============================================================
``vllm.platforms.current_platform``   vLLM's CUDA platform with a given compute capability and memory
compiled extensions, ``torch.ops._C`` empty modules; "does this kernel exist" answers no
``torch.cuda.Stream``, ``Event``      objects that do nothing
``triton.Config`` of vLLM's           a record of its arguments (read at import on Hopper)
placeholder for Triton
model inspection in a subprocess      the same function, called here (a subprocess has no stage)
process groups                        `RankGroup`: size and rank, no communication
``flashinfer``                        importable, with names and nothing behind them
====================================  ==============================================================
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib.abc
import importlib.machinery
import os
import shutil
import sys
import tempfile
import types
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPILED_MODULES = (
    "vllm._C",
    "vllm._C_stable_libtorch",
    "vllm._moe_C",
    "vllm._moe_C_stable_libtorch",
    "vllm.vllm_flash_attn._vllm_fa2_C",
    "vllm.vllm_flash_attn._vllm_fa3_C",
)
KERNEL_QUERIES = (
    "cutlass_group_gemm_supported",
    "cutlass_scaled_mm_supports_block_fp8",
    "cutlass_scaled_mm_supports_fp4",
    "cutlass_scaled_mm_supports_fp8",
)
KERNELS_NAMED_BY_LAYERS = ("silu_and_mul",)
GPU_MEMORY_BYTES = 140 * 2**30


class RankGroup:
    """What layers ask of a process group: how many ranks there are and which one this is."""

    def __init__(self, world_size: int, rank: int) -> None:
        self.world_size = world_size
        self.rank = self.rank_in_group = self.local_rank = rank
        self.ranks = list(range(world_size))
        self.device_group = SimpleNamespace(size=lambda: world_size, rank=lambda: rank)
        self.cpu_group = self.device_group
        self.is_first_rank = rank == 0
        self.is_last_rank = rank == world_size - 1
        self.use_device_communicator = False
        self.device_communicator = None


def raise_curtain() -> None:
    """Prepare this process; before anything of vLLM is imported, once."""
    tempfile.tempdir = tempfile.mkdtemp(prefix="vllm-stage-")
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_HAS_FLASHINFER_CUBIN": "1",
        "VLLM_CACHE_ROOT": tempfile.mkdtemp(),
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "VLLM_NO_USAGE_STATS": "1",
    }
    import torch

    for name in COMPILED_MODULES:
        sys.modules[name] = types.ModuleType(name)
    for name in KERNEL_QUERIES:
        setattr(torch.ops._C, name, lambda *_: False)
    for name in KERNELS_NAMED_BY_LAYERS:
        setattr(torch.ops._C, name, lambda *_: None)
    sys.meta_path.append(_HollowFinder())
    torch.cuda.Stream = type("Stream", (_Inert,), {})
    torch.cuda.Event = type("Event", (_Inert,), {})
    _place_platform(torch)
    import vllm.triton_utils

    vllm.triton_utils.triton.Config = _TritonConfig
    from vllm.model_executor.models import registry
    from vllm.v1.attention.backends import flashinfer

    flashinfer._get_multi_ctas_kv_counter_buffer = lambda *_: None  # its size is asked of FlashInfer
    registry._run_in_subprocess = lambda function: function()


def set_gpu(compute_capability: str) -> None:
    """Make every GPU one of this compute capability, e.g. ``9.0``."""
    from vllm.platforms import current_platform
    from vllm.platforms.interface import DeviceCapability

    major, minor = (int(part) for part in compute_capability.split("."))
    platform = type(current_platform)
    if platform.capability == (major, minor):
        return
    platform.capability = DeviceCapability(major, minor)
    # vLLM remembers what it found out about the GPU, such as the attention backend.
    for remembered in [found for found in gc.get_objects() if type(found) is functools._lru_cache_wrapper]:
        if (remembered.__module__ or "").startswith("vllm."):
            remembered.cache_clear()


def build_rank(vllm_config: Any, pipeline_rank: int, tensor_rank: int = 0) -> tuple[Any, Any]:
    """Build the model of one rank, and the draft model if this rank has one, on the meta device.

    Fills ``compilation_config.static_forward_context`` as loading a model does.
    """
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    _enter_rank(vllm_config.parallel_config, pipeline_rank, tensor_rank)
    vllm_config.compilation_config.static_forward_context = {}
    speculative = vllm_config.speculative_config
    draft = None
    with torch.device("meta"), set_default_torch_dtype(vllm_config.model_config.dtype):
        with set_current_vllm_config(vllm_config):
            target = initialize_model(vllm_config, model_config=vllm_config.model_config)
        # v1/worker/gpu/model_runner.py: only the last pipeline rank has a speculator.
        if (
            speculative is not None
            and pipeline_rank == vllm_config.parallel_config.pipeline_parallel_size - 1
        ):
            with set_current_vllm_config(vllm_config), _marking_draft_layers(vllm_config):
                draft = initialize_model(vllm_config, model_config=speculative.draft_model_config)
    return target, draft


@contextlib.contextmanager
def _marking_draft_layers(vllm_config: Any) -> Iterator[None]:
    """As ``v1/worker/gpu/spec_decode/speculator.py load_model`` does."""
    layers = vllm_config.compilation_config.static_forward_context
    before = set(layers)
    yield
    for name in set(layers) - before:
        layers[name].is_draft_layer = True


def _enter_rank(parallel: Any, pipeline_rank: int, tensor_rank: int) -> None:
    from vllm.distributed import parallel_state as state

    tp, pp, dp = parallel.tensor_parallel_size, parallel.pipeline_parallel_size, parallel.data_parallel_size
    state._TP = RankGroup(tp, tensor_rank)
    state._PP = RankGroup(pp, pipeline_rank)
    state._DP = RankGroup(dp, 0)
    state._EP = RankGroup(tp * dp, tensor_rank)
    state._DCP = RankGroup(parallel.decode_context_parallel_size, 0)
    state._PCP = RankGroup(1, 0)
    state._WORLD = RankGroup(tp * pp, pipeline_rank * tp + tensor_rank)


def _place_platform(torch: Any) -> None:
    import vllm.platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    class StageCudaPlatform(NonNvmlCudaPlatform):  # type: ignore[misc,valid-type]
        """vLLM's CUDA platform, with the answers of a driver filled in."""

        capability = DeviceCapability(9, 0)

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:  # noqa: ARG003 - vLLM passes it by name
            return cls.capability

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:  # noqa: ARG003 - vLLM passes it by name
            return "NVIDIA GPU"

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:  # noqa: ARG003 - vLLM passes it by name
            return GPU_MEMORY_BYTES

        @classmethod
        def get_cuda_runtime_major(cls) -> int:
            return 13

        @classmethod
        def device_count(cls) -> int:
            return 64

        @classmethod
        def current_device(cls) -> Any:
            return torch.device("meta")

    vllm.platforms._current_platform = StageCudaPlatform()


class _Inert:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass


class _HollowFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes ``flashinfer`` importable: every name in it is an empty class."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] != "flashinfer":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        return _HollowModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _HollowModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Inert,), {})


class _TritonConfig:
    def __init__(self, kwargs: Any = None, num_warps: int = 4, num_stages: int = 2, **_: Any) -> None:
        self.kwargs = kwargs
        self.num_warps = num_warps
        self.num_stages = num_stages

"""What vLLM will log for given flags, figure by figure, to hold against a log of a real start.

No search: the flags are taken as they are, those not given as vLLM of that version would set them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.facts import Value
from qwenhost.plan import (
    DEFAULT_VLLM_VERSION,
    MemoryBreakdown,
    Parallelism,
    Pins,
    PlanRequest,
    Rejection,
)
from qwenhost.planner.cache import version_tuple
from qwenhost.planner.context import Context
from qwenhost.planner.option import Option
from qwenhost.planner.sizing import DEFAULT_UTILIZATION, Settings, size_as_given
from qwenhost.units import GIB

if TYPE_CHECKING:
    from qwenhost.facts import Catalog
    from qwenhost.node import Node
    from qwenhost.planner.cache import BlockLayout

# vLLM 0.20 took the CUDA-graph estimate out of the cache (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS) and
# raised gpu_memory_utilization from 0.9 in return.
FIRST_TO_COUNT_GRAPHS: Final = (0, 20)
OLD_DEFAULT_UTILIZATION: Final = 0.9
# engine/arg_utils.py: by memory; an A100, and from 0.33 on a GB10, get the small tier.
SMALL_TIER: Final = (2048, 256)
LARGE_TIER: Final = (8192, 1024)
LARGEST_TIER: Final = (16384, 1024)
FIRST_WITH_SMALL_GB10: Final = (0, 20)
"""The code says so from vLLM 0.33 on. Before, NVML could not tell a GB10's memory, which came to the same
(github.com/vllm-project/vllm/pull/57378); but logs of 0.19 start with blocks wider than 2,048 tokens, which
that release refuses in the small tier."""


class Launch(Value, frozen=True, kw_only=True):
    """Engine arguments of one start; None = vLLM's default."""

    checkpoint: str
    """Id in the catalog."""
    parallelism: Parallelism = Parallelism()
    vllm_version: str = DEFAULT_VLLM_VERSION
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_dtype: str = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    num_speculative_tokens: int = 0
    enable_prefix_caching: bool = True
    language_model_only: bool = False
    skip_mm_profiling: bool = False
    enforce_eager: bool = False
    gdn_prefill_backend: str | None = None
    loaded_bytes: int | None = None
    """A known "Model loading took", in place of the computed weights."""


class StartFigures(Value, frozen=True, kw_only=True):
    """What the start-up log will say, and whether the start succeeds."""

    memory: MemoryBreakdown
    available_kv_bytes: int
    """vLLM's "Available KV cache memory"; before 0.20 the CUDA graphs still had to fit beside it."""
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    tokens: int
    concurrency: float
    refusal: Rejection | None
    """Why vLLM would not start; None where it does."""


class Start:
    """One start on one node, looked up once; the cache can be sized for any available memory."""

    def __init__(self, launch: Launch, node: Node, catalog: Catalog) -> None:
        any_workload = next(iter(catalog.workloads.values()))
        self.launch = launch
        self.context = Context(
            PlanRequest(
                node=node,
                workload=any_workload,
                slo=any_workload.slo,
                pins=Pins(
                    checkpoint=launch.checkpoint,
                    mamba_ssm_cache_dtype=launch.mamba_ssm_cache_dtype,
                    max_num_seqs=self._sequences(node, launch),
                ),
                vllm_version=launch.vllm_version,
                memory_margin=0.0,
            ),
            catalog,
        )
        self.option = Option(
            launch.checkpoint,
            launch.parallelism,
            launch.kv_cache_dtype,
            launch.num_speculative_tokens,
            launch.enable_prefix_caching,
        )
        architecture = self.context.architecture_of(self.option)
        self.max_model_len = launch.max_model_len or architecture.max_position_embeddings
        default = OLD_DEFAULT_UTILIZATION if self.is_before_graphs else DEFAULT_UTILIZATION
        self.settings = Settings(
            utilization=launch.gpu_memory_utilization or default,
            vision=not launch.language_model_only,
            max_num_batched_tokens=launch.max_num_batched_tokens or _tier(node, launch.vllm_version)[0],
            most_sequences=self._sequences(node, launch),
            max_model_len=self.max_model_len,
            enforce_eager=launch.enforce_eager,
            gdn_prefill_backend=launch.gdn_prefill_backend,
            profile_vision=not launch.skip_mm_profiling,
        )

    def figures(self) -> StartFigures:
        """From hardware and flags alone."""
        blocks, memory, refusal = self._sized()
        available = memory.kv_cache_bytes + (memory.cudagraph_bytes if self.is_before_graphs else 0)
        return self._figures(blocks, memory, available, refusal)

    def figures_given(self, available_kv_bytes: int) -> StartFigures:
        """The cache of a known amount of memory, as a log states it."""
        blocks, memory, refusal = self._sized()
        known = msgspec.structs.replace(memory, kv_cache_bytes=available_kv_bytes)
        return self._figures(blocks, known, available_kv_bytes, refusal)

    @property
    def block_bytes(self) -> int:
        """Bytes of one cache block."""
        return self._sized()[0].block_bytes

    @property
    def state_blocks(self) -> int:
        """Gated DeltaNet blocks a running request holds."""
        return self._sized()[0].state_blocks

    def _sized(self) -> tuple[BlockLayout, MemoryBreakdown, Rejection | None]:
        return size_as_given(self.context, self.option, self.settings, self.launch.loaded_bytes)

    def _figures(
        self, blocks: BlockLayout, memory: MemoryBreakdown, available: int, refusal: Rejection | None
    ) -> StartFigures:
        pool = blocks.pool(available, self.max_model_len)
        return StartFigures(
            memory=memory,
            available_kv_bytes=available,
            max_model_len=self.max_model_len,
            max_num_seqs=self.settings.most_sequences,
            max_num_batched_tokens=self.settings.max_num_batched_tokens,
            block_size=pool.block_size,
            num_blocks=pool.num_blocks,
            tokens=pool.tokens,
            concurrency=pool.max_concurrency_at_max_model_len,
            refusal=refusal,
        )

    @property
    def is_before_graphs(self) -> bool:
        """Whether this vLLM leaves CUDA graphs out of its cache arithmetic."""
        return version_tuple(self.launch.vllm_version) < FIRST_TO_COUNT_GRAPHS

    @staticmethod
    def _sequences(node: Node, launch: Launch) -> int:
        return launch.max_num_seqs or _tier(node, launch.vllm_version)[1]


def _tier(node: Node, version: str) -> tuple[int, int]:
    """Default max_num_batched_tokens and max_num_seqs of ``vllm serve`` for this GPU."""
    gpu = node.gpus[0]
    small_kinds = ("A100", "GB10") if version_tuple(version) >= FIRST_WITH_SMALL_GB10 else ("A100",)
    if gpu.memory_total_bytes >= 160 * GIB:
        return LARGEST_TIER
    if gpu.memory_total_bytes >= 70 * GIB and not any(kind in gpu.name for kind in small_kinds):
        return LARGE_TIER
    return SMALL_TIER

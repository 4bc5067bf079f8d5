"""GPU memory beside weights and cache: named terms, each from a calibrated constant.

Source of what counts: vLLM 0.33 ``v1/worker/gpu_worker.py`` and ``utils/mem_utils.py``. The snapshot is
taken after CUDA context and NCCL exist, so those lie outside the requested share and only limit it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qwenhost.facts import Value

if TYPE_CHECKING:
    from qwenhost.facts import Architecture
    from qwenhost.plan import Parallelism
    from qwenhost.planner.constants import Constants

BF16_BYTES = 2
# vLLM config/vllm.py: capture sizes reach min(2 * max_num_seqs * (1 + drafts), 512); 1024 on SM10x.
MAX_CAPTURE_SIZE = 512
MAX_CAPTURE_SIZE_SM10X = 1024
# v1/worker/gpu/sample/penalties.py, model runner V2: counts of output tokens (int32) and a bit per prompt
# token, for every sequence and every token of the vocabulary, whether penalties are used or not.
PENALTY_BYTES_PER_SEQUENCE_VOCAB = 4 + 1 / 8
FIRST_V2_RUNNER = (0, 28)
# The processor's largest image or video in tokens; vLLM profiles as many of them as fit into a batch.
LARGEST_ITEM_TOKENS = 16384


class Overheads(Value, frozen=True, kw_only=True):
    """Memory terms of one GPU inside the requested share."""

    activation_bytes: int
    """Transient peak of vLLM's profile run."""
    cudagraph_bytes: int
    non_torch_bytes: int
    """Consumed beside weights: communication buffers, workspaces, persistent buffers."""

    @property
    def total_bytes(self) -> int:
        """Sum."""
        return self.activation_bytes + self.cudagraph_bytes + self.non_torch_bytes


class EngineShape(Value, frozen=True, kw_only=True):
    """The engine arguments that move these terms."""

    max_num_seqs: int
    max_num_batched_tokens: int
    num_speculative_tokens: int = 0
    vision: bool = True
    enforce_eager: bool = False
    v2_runner: bool = True
    """Model runner V2, the default for hybrid models from vLLM 0.28 on."""


def usable_bytes(total_bytes: int, utilization: float, constants: Constants) -> int:
    """What vLLM may use: ceil(total as CUDA reports it * gpu_memory_utilization)."""
    return math.ceil((total_bytes - constants["nvml_minus_cuda_total_bytes"]) * utilization)


def outside_bytes(parallelism: Parallelism, constants: Constants) -> int:
    """Taken before vLLM's snapshot: CUDA context and, with several ranks, NCCL."""
    nccl = constants["nccl_bytes"] if parallelism.engine_gpus > 1 else 0
    return round(constants["nvml_minus_cuda_total_bytes"] + constants["cuda_context_bytes"] + nccl)


def overheads(
    architecture: Architecture,
    parallelism: Parallelism,
    shape: EngineShape,
    constants: Constants,
    compute_capability: float,
) -> Overheads:
    """Every term for one rank."""
    vision = _vision_bytes(parallelism, shape, constants) if shape.vision and architecture.vision else 0.0
    peak = max(
        vision,
        _forward_bytes(architecture, parallelism, shape, constants),
        _sampler_bytes(architecture, shape, constants),
    )
    graphs = 0.0 if shape.enforce_eager else _cudagraph_bytes(shape, constants, compute_capability)
    return Overheads(
        activation_bytes=round(constants["activation_base_bytes"] + peak),
        cudagraph_bytes=round(graphs),
        non_torch_bytes=round(constants["persistent_buffer_bytes"] + _penalty_bytes(architecture, shape)),
    )


def capture_sizes(shape: EngineShape, compute_capability: float) -> int:
    """How many batch sizes vLLM captures: 1, 2, 4, then every 8 to 255, then every 16.

    Source: vLLM 0.33 ``config/vllm.py`` lines 2400-2600.
    """
    limit = MAX_CAPTURE_SIZE_SM10X if 10 <= compute_capability < 11 else MAX_CAPTURE_SIZE
    wanted = 2 * shape.max_num_seqs * (1 + shape.num_speculative_tokens)
    largest = min(wanted, limit, shape.max_num_batched_tokens)
    small = sum(1 for size in (1, 2, 4) if size <= largest)
    middle = min(largest, 255) // 8
    large = max(0, (largest - 256) // 16 + 1) if largest >= 256 else 0
    return small + middle + large


def _penalty_bytes(architecture: Architecture, shape: EngineShape) -> float:
    if not shape.v2_runner:
        return 0.0
    return shape.max_num_seqs * architecture.vocab_size * PENALTY_BYTES_PER_SEQUENCE_VOCAB


def _vision_bytes(parallelism: Parallelism, shape: EngineShape, constants: Constants) -> float:
    items = max(1, shape.max_num_batched_tokens // LARGEST_ITEM_TOKENS)
    return constants["vision_profile_bytes"] * items / parallelism.tensor_parallel_size


def _forward_bytes(
    architecture: Architecture, parallelism: Parallelism, shape: EngineShape, constants: Constants
) -> float:
    tokens = shape.max_num_batched_tokens
    hidden = tokens * architecture.hidden_size * BF16_BYTES * constants["activation_hidden_copies"]
    moe_tokens = tokens * parallelism.data_parallel_size
    experts = (
        moe_tokens
        * architecture.num_experts_per_tok
        * architecture.hidden_size
        * constants["moe_workspace_bytes_per_token_expert_hidden"]
    )
    projection = (
        tokens
        * (architecture.linear_conv_dim + architecture.linear_value_dim)
        / parallelism.tensor_parallel_size
        * constants["gdn_projection_bytes_per_token_channel"]
    )
    dense = (
        tokens
        * (0 if architecture.num_experts else architecture.shared_expert_intermediate_size)
        / parallelism.tensor_parallel_size
        * constants["mlp_bytes_per_token_channel"]
    )
    return hidden + max(experts, projection, dense)


def _sampler_bytes(architecture: Architecture, shape: EngineShape, constants: Constants) -> float:
    rows = min(shape.max_num_seqs * (1 + shape.num_speculative_tokens), shape.max_num_batched_tokens)
    name = "sampler_bytes_per_row_vocab_v2" if shape.v2_runner else "sampler_bytes_per_row_vocab"
    return rows * architecture.vocab_size * constants[name]


def _cudagraph_bytes(shape: EngineShape, constants: Constants, compute_capability: float) -> float:
    captured = capture_sizes(shape, compute_capability) * constants["cudagraph_bytes_per_capture_size"]
    return min(constants["cudagraph_max_bytes"], constants["cudagraph_base_bytes"] + captured)

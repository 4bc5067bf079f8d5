"""vLLM's KV-cache arithmetic for the hybrid model: one pool of equal blocks, block for block.

A block is one page for each layer of a group: one group of full-attention layers, whose pages hold
``block_size`` tokens, and several groups of Gated DeltaNet layers, whose pages hold one state. Every
group takes its blocks from the same pool. Source: vLLM 0.33 ``platforms/interface.py
_align_hybrid_block_size``, ``v1/core/kv_cache_planning.py``, ``v1/core/kv_cache_utils.py``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.plan import KvCache
from qwenhost.planner.stages import stages

if TYPE_CHECKING:
    from qwenhost.facts import Architecture

KV_DTYPE_BYTES: Final = {"auto": 2, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
SSM_DTYPE_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
CONV_DTYPE_BYTES: Final = 2  # the convolution state follows the model: BF16
GPU_BLOCK_ALIGNMENT: Final = 16
CPU_BLOCK_ALIGNMENT: Final = 128
# v1/attention/backends/gdn_attn.py FLASHINFER_GDN_CHECKPOINT_ALIGNMENT, from 0.33 on.
CHECKPOINT_BLOCK_ALIGNMENT: Final = 64
LAST_TO_COUNT_BY_GROUP: Final = (0, 20)
NULL_BLOCKS: Final = 1  # block 0 is never given to a request


class CacheOptions(Value, frozen=True, kw_only=True):
    """The engine arguments that shape the cache."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    decode_context_parallel_size: int = 1
    """Tensor parallel ranks that hold different tokens in place of copies of one KV head."""
    kv_cache_dtype: str = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    num_speculative_tokens: int = 0
    enable_prefix_caching: bool = True
    flashinfer_gdn: bool = False
    """Whether GDN prefill runs on FlashInfer, which from vLLM 0.33 on keeps a checkpoint block."""
    vllm_version: str = "0.33.0"
    cpu: bool = False


class BlockLayout(Value, frozen=True, kw_only=True):
    """Geometry of one block on one GPU."""

    block_size: int
    """Tokens of an attention block on one rank."""
    block_span: int
    """Tokens an attention block stands for: ``block_size`` on each decode context parallel rank."""
    page_bytes: int
    """One layer's share of a block; Gated DeltaNet pages are padded to it."""
    block_bytes: int
    state_page_bytes: int
    """One layer's Gated DeltaNet state before padding."""
    bytes_per_token: int
    state_blocks: int
    """GDN blocks a running request holds in the steady state."""
    reserved_blocks: int
    """GDN blocks vLLM charges a request at worst."""
    groups: int
    """Layer groups that share the pool: one of full attention, the rest GDN."""
    counts_by_group: bool = False
    """Whether this vLLM logs "GPU KV cache size" as blocks / groups * block size (to 0.20, #40691)."""

    def blocks_charged(self, tokens: int) -> int:
        """Blocks vLLM charges one request of this length."""
        return -(-tokens // self.block_span) + self.reserved_blocks

    def bytes_needed(self, tokens: int) -> int:
        """Least cache memory with which vLLM starts at this ``max_model_len``."""
        return (self.blocks_charged(tokens) + NULL_BLOCKS) * self.block_bytes

    def num_blocks(self, available_bytes: int) -> int:
        """Blocks in a pool of this size."""
        return max(0, available_bytes) // self.block_bytes

    def max_model_len(self, available_bytes: int) -> int:
        """Longest request with which vLLM starts; 0 where none fits."""
        free = self.num_blocks(available_bytes) - NULL_BLOCKS - self.reserved_blocks
        return max(0, free) * self.block_span

    def pool(self, available_bytes: int, max_model_len: int) -> KvCache:
        """The cache as vLLM would log it."""
        blocks = self.num_blocks(available_bytes)
        concurrency = blocks / self.blocks_charged(max_model_len)
        return KvCache(
            num_blocks=blocks,
            block_size=self.block_size,
            block_bytes=self.block_bytes,
            tokens=self._logged_tokens(blocks, concurrency * max_model_len),
            max_concurrency_at_max_model_len=concurrency,
            bytes_per_token=self.bytes_per_token,
            state_bytes_per_sequence=self.state_blocks * self.block_bytes,
            state_blocks_per_sequence=self.state_blocks,
            reserved_blocks_per_sequence=self.reserved_blocks,
            context_parallel_size=self.block_span // self.block_size,
        )

    def _logged_tokens(self, blocks: int, tokens: float) -> int:
        return blocks // self.groups * self.block_size if self.counts_by_group else int(tokens)


def block_layout(architecture: Architecture, options: CacheOptions) -> BlockLayout:
    """The block geometry vLLM resolves at start-up.

    Raises:
        BadInputError: a cache type this arithmetic does not know.
    """
    draft = options.num_speculative_tokens
    checkpoint_block = _keeps_checkpoint_block(options)
    token_bytes = kv_bytes_per_token_per_layer(architecture, options)
    state_bytes = state_bytes_per_layer(architecture, options)
    step = _alignment(options, checkpoint_block=checkpoint_block) * token_bytes
    page = -(-state_bytes // step) * step
    groups = _linear_groups(architecture, mtp=draft > 0)
    layers = _layers_per_block(architecture, options, groups)
    states = (2 + draft + checkpoint_block) if options.enable_prefix_caching else (1 + draft)
    return BlockLayout(
        block_size=page // token_bytes,
        block_span=page // token_bytes * options.decode_context_parallel_size,
        page_bytes=page,
        block_bytes=layers * page,
        state_page_bytes=state_bytes,
        bytes_per_token=_attention_layers(architecture, options) * token_bytes,
        state_blocks=groups * (1 + draft),
        reserved_blocks=groups * states,
        groups=1 + groups,
        counts_by_group=version_tuple(options.vllm_version) <= LAST_TO_COUNT_BY_GROUP,
    )


def kv_bytes_per_token_per_layer(architecture: Architecture, options: CacheOptions) -> int:
    """K and V of one token in one layer on one rank; heads are replicated once TP exceeds them."""
    heads = max(1, architecture.num_key_value_heads // options.tensor_parallel_size)
    return heads * 2 * architecture.head_dim * _dtype_bytes("kv_cache_dtype", options.kv_cache_dtype)


def state_bytes_per_layer(architecture: Architecture, options: CacheOptions) -> int:
    """Convolution and recurrent state of one sequence in one GDN layer on one rank.

    Source: vLLM ``mamba_utils.py gated_delta_net_state_shape``; drafts widen the convolution.
    """
    tp = options.tensor_parallel_size
    ssm = options.mamba_ssm_cache_dtype
    ssm_bytes = _dtype_bytes("mamba_ssm_cache_dtype", architecture.mamba_ssm_dtype if ssm == "auto" else ssm)
    window = architecture.linear_conv_kernel_dim - 1 + options.num_speculative_tokens
    convolution = architecture.linear_conv_dim // tp * window * CONV_DTYPE_BYTES
    recurrent = (
        architecture.linear_num_value_heads
        // tp
        * architecture.linear_value_head_dim
        * architecture.linear_key_head_dim
        * ssm_bytes
    )
    return convolution + recurrent


def version_tuple(version: str) -> tuple[int, int]:
    """``0.33.0`` -> (0, 33).

    Raises:
        BadInputError: not a version.
    """
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if match is None:
        raise BadInputError(f"--vllm-version {version!r}: not a version", remedy="Write for example 0.33.0.")
    return int(match.group(1)), int(match.group(2))


def _keeps_checkpoint_block(options: CacheOptions) -> bool:
    return (
        options.flashinfer_gdn
        and options.enable_prefix_caching
        and version_tuple(options.vllm_version) >= (0, 33)
    )


def _alignment(options: CacheOptions, *, checkpoint_block: bool) -> int:
    if options.cpu:
        return CPU_BLOCK_ALIGNMENT
    return CHECKPOINT_BLOCK_ALIGNMENT if checkpoint_block else GPU_BLOCK_ALIGNMENT


def _group_size(architecture: Architecture, *, mtp: bool) -> int:
    """Layers per group: the smaller kind's count, or the larger where they are nearly equal.

    Source: vLLM ``_get_kv_cache_groups_uniform_page_size``; the draft layer counts as full attention.
    """
    full = architecture.num_full_attention_layers + (architecture.mtp_num_hidden_layers if mtp else 0)
    linear = architecture.num_linear_attention_layers
    small, large = sorted((full, linear))
    return large if large < 1.5 * small else small


def _linear_groups(architecture: Architecture, *, mtp: bool) -> int:
    return -(-architecture.num_linear_attention_layers // _group_size(architecture, mtp=mtp))


def _layers_per_block(architecture: Architecture, options: CacheOptions, groups: int) -> int:
    """Pages per block on the fullest pipeline stage."""
    mtp = architecture.mtp_num_hidden_layers if options.num_speculative_tokens else 0
    return max(
        max(
            stage.full_attention_layers + (mtp if stage.is_last else 0),
            -(-stage.linear_attention_layers // groups),
        )
        for stage in stages(architecture, options.pipeline_parallel_size)
    )


def _attention_layers(architecture: Architecture, options: CacheOptions) -> int:
    mtp = architecture.mtp_num_hidden_layers if options.num_speculative_tokens else 0
    return max(
        stage.full_attention_layers + (mtp if stage.is_last else 0)
        for stage in stages(architecture, options.pipeline_parallel_size)
    )


def _dtype_bytes(flag: str, dtype: str) -> int:
    table = KV_DTYPE_BYTES if flag == "kv_cache_dtype" else SSM_DTYPE_BYTES
    if dtype not in table:
        raise BadInputError(
            f"--{flag.replace('_', '-')} {dtype!r}: this arithmetic does not know it",
            remedy=f"Choose one of: {', '.join(table)}.",
        )
    return table[dtype]

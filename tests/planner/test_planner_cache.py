"""The block pool: equal to vLLM 0.33's own planning functions and to start-up logs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.planner.cache import BlockLayout, CacheOptions, block_layout
from qwenhost.profiles import load_catalog
from qwenhost.units import GIB, MIB

if TYPE_CHECKING:
    from qwenhost.facts import Architecture

FULL = 262144
# Computed by running vLLM 0.33's planning code: (KV, drafts, TP) -> block tokens, block MiB, blocks charged
# for 262,144 tokens, least GiB; then at 40 GiB: blocks, concurrency, tokens. Prefix caching, FlashInfer GDN.
GEOMETRY = {
    ("auto", 0, 1): (2112, 49.50, 134, 6.53, 827, 6.17, 1_617_858),
    ("auto", 0, 2): (2112, 24.75, 134, 3.26, 1654, 12.34, 3_235_717),
    ("auto", 0, 4): (1088, 12.75, 250, 3.13, 3212, 12.85, 3_368_026),
    ("auto", 0, 8): (576, 6.75, 465, 3.07, 6068, 13.05, 3_420_838),
    ("auto", 1, 1): (2112, 53.62, 137, 7.23, 763, 5.57, 1_459_969),
    ("auto", 1, 2): (2112, 26.81, 137, 3.61, 1527, 11.15, 2_921_853),
    ("auto", 1, 4): (1088, 13.81, 253, 3.43, 2965, 11.72, 3_072_161),
    ("auto", 1, 8): (576, 7.31, 468, 3.35, 5601, 11.97, 3_137_325),
    ("auto", 3, 1): (2176, 55.25, 139, 7.55, 741, 5.33, 1_397_472),
    ("auto", 3, 2): (2176, 27.62, 139, 3.78, 1482, 10.66, 2_794_945),
    ("auto", 3, 4): (1088, 13.81, 259, 3.51, 2965, 11.45, 3_000_992),
    ("auto", 3, 8): (576, 7.31, 474, 3.39, 5601, 11.82, 3_097_612),
    ("fp8", 0, 1): (4224, 49.50, 72, 3.53, 827, 11.49, 3_011_015),
    ("fp8", 0, 2): (4224, 24.75, 72, 1.76, 1654, 22.97, 6_022_030),
    ("fp8", 0, 4): (2112, 12.38, 134, 1.63, 3309, 24.69, 6_473_391),
    ("fp8", 0, 8): (1088, 6.38, 250, 1.56, 6425, 25.70, 6_737_100),
    ("fp8", 1, 1): (4224, 53.62, 75, 3.98, 763, 10.17, 2_666_878),
    ("fp8", 1, 2): (4224, 26.81, 75, 1.99, 1527, 20.36, 5_337_251),
    ("fp8", 1, 4): (2112, 13.41, 137, 1.81, 3055, 22.30, 5_845_619),
    ("fp8", 1, 8): (1088, 6.91, 253, 1.71, 5930, 23.44, 6_144_323),
}


def flashinfer(architecture: Architecture, **options: object) -> BlockLayout:
    return block_layout(architecture, CacheOptions(flashinfer_gdn=True, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("case", "expected"), GEOMETRY.items(), ids=str)
def test_geometry_and_pool_equal_vllm_033(
    architecture: Architecture,
    case: tuple[str, int, int],
    expected: tuple[int, float, int, float, int, float, int],
) -> None:
    """Block size, bytes, charge, least memory, blocks, concurrency and tokens are vLLM's own."""
    dtype, drafts, tp = case
    blocks = flashinfer(
        architecture, tensor_parallel_size=tp, kv_cache_dtype=dtype, num_speculative_tokens=drafts
    )
    pool = blocks.pool(40 * GIB, FULL)
    # The published figures are cut or rounded to two decimals.
    assert (blocks.block_size, blocks.blocks_charged(FULL)) == expected[:3:2]
    assert blocks.block_bytes / MIB == pytest.approx(expected[1], abs=0.0051)
    assert blocks.bytes_needed(FULL) / GIB == pytest.approx(expected[3], abs=0.0051)
    assert (pool.num_blocks, pool.tokens) == (expected[4], expected[6])
    assert pool.max_concurrency_at_max_model_len == pytest.approx(expected[5], abs=0.0051)


@pytest.mark.parametrize(
    ("dtype", "sizes"), [("auto", (2096, 2096, 1056, 528)), ("fp8", (4176, 4176, 2096, 1056))]
)
def test_triton_and_older_vllm_align_to_16(
    architecture: Architecture, dtype: str, sizes: tuple[int, ...]
) -> None:
    """Without FlashInfer's checkpoint block, and before 0.33 with it, blocks are multiples of 16."""
    for tp, size in zip((1, 2, 4, 8), sizes, strict=True):
        options = CacheOptions(tensor_parallel_size=tp, kv_cache_dtype=dtype)
        triton = block_layout(architecture, options)
        older = block_layout(
            architecture, msgspec.structs.replace(options, flashinfer_gdn=True, vllm_version="0.32.0")
        )
        assert triton == older
        assert (triton.block_size, triton.reserved_blocks) == (size, 6)


def test_without_prefix_caching_only_the_running_state_is_charged(architecture: Architecture) -> None:
    """Three groups of 1 + drafts, instead of 2 + drafts and a checkpoint."""
    for drafts in (0, 1, 3):
        blocks = flashinfer(architecture, num_speculative_tokens=drafts, enable_prefix_caching=False)
        assert blocks.reserved_blocks == blocks.state_blocks == 3 * (1 + drafts)


@pytest.mark.parametrize(("pp", "drafts", "blocks"), [(2, 0, 3309), (2, 1, 2837), (4, 0, 6619), (4, 1, 4964)])
def test_pipeline_stages_hold_fewer_layers(
    architecture: Architecture, pp: int, drafts: int, blocks: int
) -> None:
    """TP2 at 40 GiB: the fullest stage decides, and the draft layer sits on the last one."""
    layout = flashinfer(
        architecture, tensor_parallel_size=2, pipeline_parallel_size=pp, num_speculative_tokens=drafts
    )
    assert layout.num_blocks(40 * GIB) == blocks


def test_16_bit_state_halves_the_block(architecture: Architecture) -> None:
    """TP1 with a BF16 state: blocks of 1,088 tokens, 1,606 of them in 40 GiB."""
    blocks = flashinfer(architecture, mamba_ssm_cache_dtype="bfloat16")
    assert (blocks.block_size, blocks.num_blocks(40 * GIB)) == (1088, 1606)


def test_gb10_log_of_the_int4_checkpoint(architecture: Architecture) -> None:
    """26.26 GiB on one GB10: 547 blocks, 4.14x at 262,144, and 285,056 tokens as older versions printed."""
    blocks = block_layout(architecture, CacheOptions(vllm_version="0.19.0"))
    pool = blocks.pool(int(26.26 * GIB), FULL)
    assert pool.num_blocks == 547
    assert f"{pool.max_concurrency_at_max_model_len:.2f}" == "4.14"
    assert pool.tokens == 285_056


def test_log_of_two_ada_gpus_with_fp8_cache(architecture: Architecture) -> None:
    """1.73 GiB per GPU, FP8 cache, TP2: 72 blocks of 4,176 tokens and 1.89x at 131,072 tokens."""
    options = CacheOptions(tensor_parallel_size=2, kv_cache_dtype="fp8", vllm_version="0.16.1")
    pool = block_layout(architecture, options).pool(int(1.73 * GIB), 131072)
    assert (pool.block_size, pool.num_blocks, pool.tokens) == (4176, 72, 75_168)
    # 72 / (32 + 6) is 1.89.
    assert f"{pool.max_concurrency_at_max_model_len:.2f}" == "1.89"


def test_siblings_block_sizes_in_logs() -> None:
    """35B-A3B at TP1 logs blocks of 1,056 tokens."""
    small = load_catalog([]).architectures["Qwen3.5-35B-A3B"]
    assert block_layout(small, CacheOptions()).block_size == 1056


@pytest.mark.parametrize(
    ("options", "gib", "length", "expected"),
    [
        # GB10, BF16, text only, no prefix caching, vLLM 0.19.2: 18.44x, 623,040 tokens as counted then.
        ({"enable_prefix_caching": False, "vllm_version": "0.19.2"}, 47.55, 131072, ("18.44", 623_040)),
        # RTX 5090, NVFP4 with FP8 cache, vLLM 0.24.0: 4.35x, 569,878 tokens.
        ({"kv_cache_dtype": "fp8", "vllm_version": "0.24.0"}, 6.01, 131072, ("4.35", 569_878)),
    ],
    ids=["gb10", "rtx-5090"],
)
def test_logs_of_the_35b(
    options: dict[str, object], gib: float, length: int, expected: tuple[str, int]
) -> None:
    """Two strangers' logs of 35B-A3B, one to each way of counting tokens."""
    small = load_catalog([]).architectures["Qwen3.5-35B-A3B"]
    pool = block_layout(small, CacheOptions(**options)).pool(int(gib * GIB), length)  # type: ignore[arg-type]
    assert (f"{pool.max_concurrency_at_max_model_len:.2f}", pool.tokens) == expected


def test_tiny_model_on_cpu(architecture: Architecture) -> None:
    """A 4-layer toy on vLLM 0.32's CPU build: 1 GiB gives 8,192 blocks of 256 tokens, 1,198,372 tokens."""
    tiny = msgspec.structs.replace(
        architecture,
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4, head_dim=64,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=64, linear_value_head_dim=64,
    )  # fmt: skip
    pool = block_layout(tiny, CacheOptions(cpu=True, vllm_version="0.32.0")).pool(GIB, 2048)
    assert (pool.num_blocks, pool.block_size, pool.tokens) == (8192, 256, 1_198_372)
    assert f"{pool.max_concurrency_at_max_model_len:.2f}" == "585.14"


def test_tiny_model_with_two_drafts_holds_six_state_blocks(architecture: Architecture) -> None:
    """Two attention layers (one drafts), three linear ones: two linear groups of 1 + 2 state blocks."""
    tiny = msgspec.structs.replace(architecture, num_hidden_layers=4)
    assert block_layout(tiny, CacheOptions(num_speculative_tokens=2)).state_blocks == 6


@given(
    tp=st.sampled_from((1, 2, 4, 8, 16)),
    element=st.sampled_from((("auto", 2), ("fp8", 1))),
    state=st.sampled_from((("float32", 4), ("float16", 2))),
    drafts=st.integers(0, 4),
    caching=st.booleans(),
    fused=st.booleans(),
    available=st.integers(0, 120 * GIB),
    length=st.integers(1, FULL),
)
def test_closed_formula(  # noqa: PLR0917 - one argument per drawn flag
    tp: int,
    element: tuple[str, int],
    state: tuple[str, int],
    drafts: int,
    caching: bool,
    fused: bool,
    available: int,
    length: int,
) -> None:
    """The layout follows the formula read from vLLM's source, for any combination of flags."""
    checkpoint = int(caching and fused)
    state_page = 12288 // tp * (3 + drafts) * 2 + 64 // tp * 128 * 128 * state[1]
    token = max(1, 2 // tp) * 512 * element[1]
    step = 64 if checkpoint else 16
    block_size = step * math.ceil(state_page / (step * token))
    block_bytes = (12 + (drafts > 0)) * block_size * token
    reserved = 3 * ((2 + drafts + checkpoint) if caching else (1 + drafts))
    blocks = block_layout(
        load_catalog([]).architectures["Qwen3.5-122B-A10B"],
        CacheOptions(
            tensor_parallel_size=tp, kv_cache_dtype=element[0], mamba_ssm_cache_dtype=state[0],
            num_speculative_tokens=drafts, enable_prefix_caching=caching, flashinfer_gdn=fused,
        ),
    )  # fmt: skip
    assert (blocks.block_size, blocks.block_bytes) == (block_size, block_bytes)
    assert blocks.blocks_charged(length) == math.ceil(length / block_size) + reserved
    # The longest length that starts is exactly the one whose need fits.
    longest = blocks.max_model_len(available)
    assert longest == 0 or blocks.bytes_needed(longest) <= available
    assert blocks.bytes_needed(longest + 1) > available


def test_unknown_types_and_versions_are_named(architecture: Architecture) -> None:
    """A cache type or version that is not known is an input error, not a guess of two bytes."""
    with pytest.raises(BadInputError, match="--kv-cache-dtype 'nvfp4'"):
        block_layout(architecture, CacheOptions(kv_cache_dtype="nvfp4"))
    with pytest.raises(BadInputError, match="--vllm-version 'latest'"):
        block_layout(architecture, CacheOptions(vllm_version="latest", flashinfer_gdn=True))

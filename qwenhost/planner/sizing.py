"""From a combination to engine arguments that start: memory, cache, context and sequences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from qwenhost.plan import MemoryBreakdown, Rejection
from qwenhost.planner.cache import BlockLayout, CacheOptions, version_tuple
from qwenhost.planner.overheads import (
    FIRST_V2_RUNNER,
    EngineShape,
    Overheads,
    outside_bytes,
    overheads,
    usable_bytes,
)
from qwenhost.planner.rules import PREFIX_MATCH_UNIT_LINK, STATE_BLOCKS_LINK
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.plan import KvCache
    from qwenhost.planner.context import Context
    from qwenhost.planner.option import Option

# vLLM's own default, config/cache.py; and the highest we go by ourselves where nothing else fits.
DEFAULT_UTILIZATION: Final = 0.92
HIGH_UTILIZATION: Final = 0.95
# From vLLM's default, engine/arg_utils.py; more has no use for the graphs it captures.
SEQUENCE_STEPS: Final = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
# vLLM 0.17 to 0.19 asserted block_size <= max_num_batched_tokens with prefix caching; later releases
# enter a wide block piece by piece (v1/core/sched/scheduler.py).
WHOLE_BLOCK_ASSERTED: Final = ((0, 17), (0, 19))
LEAST_BATCHED_TOKENS: Final = 2048
# config/compilation.py, with full CUDA graphs: on main by 2026-03-31 (vllm#38270), in no 0.19 we know of.
FIRST_TO_CHECK_STATE_BLOCKS: Final = (0, 20)
CONTEXT_STEP: Final = 1024


class Settings(NamedTuple):
    """How generously to size it; the first that fits is taken."""

    utilization: float
    vision: bool
    max_num_batched_tokens: int
    most_sequences: int
    max_model_len: int | None = None
    """None = as long as fits."""
    enforce_eager: bool = False
    gdn_prefill_backend: str | None = None
    moe_backend: str | None = None
    """None = what the GPU kind needs."""
    profile_vision: bool = True
    """False = ``--skip-mm-profiling``: the tower is loaded and its peak not counted."""


class Sized(NamedTuple):
    """A combination that starts."""

    option: Option
    settings: Settings
    blocks: BlockLayout
    memory: MemoryBreakdown
    kv_cache: KvCache
    max_model_len: int
    max_num_seqs: int


def size(context: Context, option: Option, settings: Settings) -> Sized | Rejection:
    """Engine arguments under these settings, or what is missing."""
    blocks = context.block_layout(context.architecture_of(option), cache_options(context, option, settings))
    sequences = first_guess(context, settings)
    memory = _memory(context, option, settings, sequences)
    # Memory for logits and graphs grows with sequences, and what is left decides how many are of use.
    while sequences > 1 and _sequences_that_fit(context, blocks, memory, settings) < sequences:
        fitting = _sequences_that_fit(context, blocks, memory, settings)
        sequences = next(step for step in SEQUENCE_STEPS if step < sequences and step <= max(1, fitting))
        memory = _memory(context, option, settings, sequences)
    refused = _refusal(context, option, settings, blocks=blocks, memory=memory, sequences=sequences)
    if refused:
        return refused
    length = _max_model_len(context, option, settings, blocks, memory)
    return Sized(
        option=option,
        settings=settings,
        blocks=blocks,
        memory=memory,
        kv_cache=_pool(context, option, blocks, memory, length),
        max_model_len=length,
        max_num_seqs=sequences,
    )


def _pool(
    context: Context, option: Option, blocks: BlockLayout, memory: MemoryBreakdown, length: int
) -> KvCache:
    pool = blocks.pool(memory.kv_cache_bytes, length)
    unit = context.request.pins.prefix_match_unit if option.enable_prefix_caching else None
    return msgspec.structs.replace(pool, prefix_match_unit=unit) if unit else pool


def size_as_given(
    context: Context, option: Option, settings: Settings, loaded_bytes: int | None = None
) -> tuple[BlockLayout, MemoryBreakdown, Rejection | None]:
    """These very flags, the number of sequences too; what is missing if vLLM would not start.

    ``loaded_bytes`` is a known "Model loading took" in place of the computed weights.
    """
    blocks = context.block_layout(context.architecture_of(option), cache_options(context, option, settings))
    sequences = settings.most_sequences
    memory = _memory(context, option, settings, sequences)
    if loaded_bytes is not None:
        available = memory.kv_cache_bytes + memory.weights_bytes - loaded_bytes
        memory = msgspec.structs.replace(memory, weights_bytes=loaded_bytes, kv_cache_bytes=available)
    refused = _refusal(context, option, settings, blocks=blocks, memory=memory, sequences=sequences)
    return blocks, memory, refused


def size_first(context: Context, option: Option) -> Sized | Rejection:
    """The first of the settings, from comfortable to tight, that fits; else the last one's refusal."""
    tightest: Rejection | None = None
    for settings in settings_to_try(context, option):
        found = size(context, option, settings)
        if isinstance(found, Sized):
            return found
        tightest = found
    assert tightest is not None  # noqa: S101 - there is always one setting
    return tightest


def settings_to_try(context: Context, option: Option) -> Iterator[Settings]:
    """Comfortable first: full batch and vision; then a smaller batch; then no vision; then more memory."""
    pins = context.request.pins
    blocks = context.block_layout(
        context.architecture_of(option),
        cache_options(
            context, option, Settings(0.0, True, 0, 0, gdn_prefill_backend=pins.gdn_prefill_backend)
        ),
    )
    least = max(LEAST_BATCHED_TOKENS, 1 << (blocks.block_size - 1).bit_length())
    batch = pins.max_num_batched_tokens or max(context.default_batched_tokens, least)
    small = pins.max_num_batched_tokens or least
    default = context.utilization(option.layout, DEFAULT_UTILIZATION)
    vision = not pins.language_model_only
    base = Settings(
        utilization=default,
        vision=vision,
        max_num_batched_tokens=batch,
        most_sequences=pins.max_num_seqs or context.wanted_sequences(option.layout),
        max_model_len=pins.max_model_len,
        gdn_prefill_backend=pins.gdn_prefill_backend,
    )
    yield base
    yield base._replace(max_num_batched_tokens=small)
    text_only = pins.language_model_only is None and not context.request.workload.image_tokens
    tight = base._replace(max_num_batched_tokens=small, vision=vision and not text_only)
    yield tight
    yield tight._replace(utilization=context.utilization(option.layout, HIGH_UTILIZATION))


def cache_options(context: Context, option: Option, settings: Settings) -> CacheOptions:
    """What the cache arithmetic needs to know of it."""
    return CacheOptions(
        tensor_parallel_size=option.layout.tensor_parallel_size,
        pipeline_parallel_size=option.layout.pipeline_parallel_size,
        decode_context_parallel_size=option.layout.decode_context_parallel_size,
        kv_cache_dtype=option.kv_cache_dtype,
        mamba_ssm_cache_dtype=context.request.pins.mamba_ssm_cache_dtype or "auto",
        num_speculative_tokens=option.num_speculative_tokens,
        enable_prefix_caching=option.enable_prefix_caching,
        flashinfer_gdn=context.flashinfer_gdn(settings.gdn_prefill_backend),
        vllm_version=context.request.vllm_version,
    )


def first_guess(context: Context, settings: Settings) -> int:
    """The pinned number of sequences, else the largest step not above what is asked."""
    if context.request.pins.max_num_seqs:
        return settings.most_sequences
    return max((s for s in SEQUENCE_STEPS if s <= settings.most_sequences), default=1)


def _memory(context: Context, option: Option, settings: Settings, sequences: int) -> MemoryBreakdown:
    shape = EngineShape(
        max_num_seqs=sequences,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        num_speculative_tokens=option.num_speculative_tokens,
        vision=settings.vision and settings.profile_vision,
        enforce_eager=settings.enforce_eager,
        v2_runner=version_tuple(context.request.vllm_version) >= FIRST_V2_RUNNER,
    )
    constants, spec = context.constants, context.spec
    other: Overheads = overheads(
        context.architecture_of(option), option.layout, shape, constants, spec.compute_capability
    )
    weights = context.weights_bytes(option, vision=settings.vision)
    usable = usable_bytes(context.total_bytes, settings.utilization, constants)
    lora = context.lora_bytes(option)
    known = context.request.pins.available_kv_bytes
    if known is not None:
        usable = weights + lora + other.total_bytes + known
    return MemoryBreakdown(
        total_bytes=context.total_bytes,
        usable_bytes=usable,
        weights_bytes=weights,
        activation_bytes=other.activation_bytes,
        cudagraph_bytes=other.cudagraph_bytes,
        non_torch_bytes=other.non_torch_bytes,
        kv_cache_bytes=usable - weights - lora - other.total_bytes,
        lora_bytes=lora,
        margin_bytes=0 if known is not None else round(context.request.memory_margin * context.total_bytes),
        outside_bytes=outside_bytes(option.layout, constants),
    )


def _sequences_that_fit(
    context: Context, blocks: BlockLayout, memory: MemoryBreakdown, settings: Settings
) -> int:
    """State blocks allow so many, and of the workload's mean length so many have room at once."""
    if context.request.pins.max_num_seqs:
        return settings.most_sequences
    pool = blocks.num_blocks(memory.kv_cache_bytes - memory.margin_bytes) - 1
    each = -(-context.typical_tokens // blocks.block_span) + blocks.state_blocks
    return pool // each


def _max_model_len(
    context: Context, option: Option, settings: Settings, blocks: BlockLayout, memory: MemoryBreakdown
) -> int:
    """The asked length, else the longest that fits, up to the model's own; YaRN only where asked for."""
    if settings.max_model_len is not None:
        return settings.max_model_len
    fits = blocks.max_model_len(memory.kv_cache_bytes - memory.margin_bytes)
    whole_steps = fits // CONTEXT_STEP * CONTEXT_STEP if fits > CONTEXT_STEP else fits
    return min(context.architecture_of(option).max_position_embeddings, whole_steps)


def _refusal(
    context: Context,
    option: Option,
    settings: Settings,
    *,
    blocks: BlockLayout,
    memory: MemoryBreakdown,
    sequences: int,
) -> Rejection | None:
    """The first thing that is missing, with need and have."""
    available = memory.kv_cache_bytes - memory.margin_bytes
    if available <= 0:
        need = memory.usable_bytes - available
        return _rejection(
            option, "weights_do_not_fit", need, memory.usable_bytes,
            f"weights {format_gib(memory.weights_bytes)}, activations, graphs and margin need "
            f"{format_gib(need)} per GPU; vLLM may use {format_gib(memory.usable_bytes)} "
            f"of {format_gib(memory.total_bytes)} at {settings.utilization:.2f}.",
        )  # fmt: skip
    native = context.architecture_of(option).max_position_embeddings
    length = settings.max_model_len or min(context.typical_tokens, native)
    need = blocks.bytes_needed(length)
    if need > available:
        longest = blocks.max_model_len(available)
        return _rejection(
            option, "kv_cache_too_small", need, available,
            f"one request of {length:,} tokens needs {format_gib(need)} of cache per GPU, "
            f"{format_gib(available)} are left; the longest that starts is {longest:,}.",
        )  # fmt: skip
    checked = version_tuple(context.request.vllm_version) >= FIRST_TO_CHECK_STATE_BLOCKS
    if checked and not settings.enforce_eager and sequences > blocks.num_blocks(available):
        return _rejection(
            option, "state_blocks_too_few", sequences * blocks.block_bytes, available,
            f"max_num_seqs {sequences} exceeds the {blocks.num_blocks(available)} cache blocks; "
            "each sequence needs one for its Gated DeltaNet state.",
            link=STATE_BLOCKS_LINK,
        )  # fmt: skip
    return _unit_refusal(context, option, blocks) or _batch_refusal(
        context, option, settings, blocks, sequences
    )


def _unit_refusal(context: Context, option: Option, blocks: BlockLayout) -> Rejection | None:
    unit = context.request.pins.prefix_match_unit
    if unit is None or not option.enable_prefix_caching or blocks.block_size % unit == 0:
        return None
    return Rejection(
        checkpoint=option.checkpoint,
        parallelism=option.layout.label,
        rule="prefix_match_unit",
        message=f"prefix_match_unit {unit} does not divide the cache block of {blocks.block_size:,} tokens.",
        link=PREFIX_MATCH_UNIT_LINK,
    )


def _batch_refusal(
    context: Context, option: Option, settings: Settings, blocks: BlockLayout, sequences: int
) -> Rejection | None:
    """Every sequence must fit in a step; a whole cache block only where vLLM asserts it."""
    batch = settings.max_num_batched_tokens
    asserted = option.enable_prefix_caching and (
        WHOLE_BLOCK_ASSERTED[0] <= version_tuple(context.request.vllm_version) <= WHOLE_BLOCK_ASSERTED[1]
    )
    least = max(
        blocks.block_size if asserted else 1,
        sequences * (1 + option.num_speculative_tokens),
    )
    if batch >= least:
        return None
    return Rejection(
        checkpoint=option.checkpoint,
        parallelism=option.layout.label,
        rule="batched_tokens_too_few",
        message=f"max_num_batched_tokens {batch} is below {least}: "
        + (f"a cache block of {blocks.block_size} tokens and " if asserted else "")
        + f"{sequences} sequences must fit in a step.",
    )


def _rejection(option: Option, rule: str, need: int, have: int, message: str, *, link: str = "") -> Rejection:
    return Rejection(
        checkpoint=option.checkpoint,
        parallelism=option.layout.label,
        rule=rule,
        need_bytes=need,
        have_bytes=have,
        message=message[0].upper() + message[1:],
        link=link,
    )


def round_down(utilization: float) -> float:
    """Two decimals, as people write it, never above."""
    return math.floor(utilization * 100 + 1e-9) / 100

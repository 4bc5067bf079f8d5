"""Which combinations are looked at: checkpoint x layout x cache type x drafts x prefix caching."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.plan import Parallelism, Rejection
from qwenhost.planner.cache import version_tuple
from qwenhost.planner.lora import lora_refusal
from qwenhost.planner.option import Option
from qwenhost.planner.rules import (
    MTP_WITH_PREFIX_CACHING_LINK,
    Refusal,
    cache_refusal,
    checkpoint_refusal,
    context_parallel_refusal,
    layout_refusals,
    version_refusal,
)
from qwenhost.planner.service import prefix_hit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qwenhost.facts import Checkpoint
    from qwenhost.plan import Pins
    from qwenhost.planner.context import Context

POWERS_OF_TWO: Final = (1, 2, 4, 8, 16)
PIPELINE_SIZES: Final = (2, 3, 4)
DRAFTS_TRIED: Final = (1, 2, 3)
MOST_ENGINES: Final = 16


def checkpoints(context: Context) -> list[Checkpoint]:
    """The pinned checkpoint, else every recommended one, by name.

    Raises:
        BadInputError: the pinned one is unknown.
    """
    known, wanted = context.catalog.checkpoints, context.request.pins.checkpoint
    if wanted is None:
        return [known[name] for name in sorted(known) if known[name].recommended]
    found = known.get(wanted) or next((c for c in known.values() if c.repo_id == wanted), None)
    if found is None:
        raise BadInputError(
            f"--checkpoint {wanted!r}: no such checkpoint",
            remedy=f"Choose one of: {', '.join(sorted(known))}. More: qwenhost profiles list checkpoints.",
        )
    return [found]


def layouts(context: Context) -> list[Parallelism]:
    """Layouts that use at most the node's GPUs; the small ones first.

    Pipelines are looked at without data parallelism; expert parallelism where data-parallel ranks
    share experts, since within one tensor-parallel group it measured no gain; decode context parallelism
    and independent engines for a single tensor-parallel group. A cache figure from a log belongs to one
    engine as vLLM starts it by default: no pipeline, one replica, no drafts.
    """
    gpus, pins = context.request.node.gpu_count, context.request.pins
    from_log = pins.available_kv_bytes is not None
    pipelines = (1,) if from_log else (1, *PIPELINE_SIZES)
    replicas = (1,) if from_log else tuple(range(1, gpus + 1))
    found: list[Parallelism] = []
    for tp in _choices(pins.tensor_parallel_size, POWERS_OF_TWO):
        for pp in _choices(pins.pipeline_parallel_size, pipelines):
            for dp in _choices(pins.data_parallel_size, replicas):
                if not _worth_a_look(context, pp, dp):
                    continue
                for ep in _expert_parallel(context, tp, dp):
                    engine = Parallelism(
                        tensor_parallel_size=tp,
                        pipeline_parallel_size=pp,
                        data_parallel_size=dp,
                        enable_expert_parallel=ep,
                    )
                    shared = (engine, *_context_parallel(context, engine))
                    variants = [one for each in shared for one in (each, *_engines(context, each))]
                    found += [one for one in variants if one.world_size <= gpus or _all_pinned(context)]
    wanted = [one for one in found if _keeps_pins(pins, one)]
    return sorted(wanted, key=_simplicity)


def options(context: Context, rejections: list[Rejection]) -> Iterator[Option]:
    """Every combination vLLM accepts; those it refuses are appended to ``rejections``."""
    known_layouts = layouts(context)
    for checkpoint in checkpoints(context):
        refused = (
            checkpoint_refusal(checkpoint, context.spec)
            or version_refusal(
                context.expert_compute(checkpoint), context.spec, version_tuple(context.request.vllm_version)
            )
            or _pins_refusal(context, checkpoint)
        )
        if refused:
            rejections.append(_rejection(checkpoint, "any layout", refused))
            continue
        for layout in known_layouts:
            refusal = _layout_refusal(context, checkpoint, layout)
            if refusal:
                rejections.append(_rejection(checkpoint, layout.label, refusal))
                continue
            for drafts, prefix_caching in _speculation(context, checkpoint, layout):
                for dtype in cache_dtypes(context, checkpoint):
                    yield Option(checkpoint.id, layout, dtype, drafts, prefix_caching)


def cache_dtypes(context: Context, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The pinned type, else the calibrated one, else BF16. FP8 without scales is never a default."""
    pinned = context.request.pins.kv_cache_dtype
    if pinned is not None:
        return (pinned,)
    return (checkpoint.declared_kv_cache_dtype or "auto",)


def _choices(pinned: int | None, otherwise: Iterable[int]) -> tuple[int, ...]:
    return (pinned,) if pinned is not None else tuple(otherwise)


def _worth_a_look(context: Context, pp: int, dp: int) -> bool:
    pins = context.request.pins
    pipeline_pinned = pins.pipeline_parallel_size is not None
    return (
        (pp == 1 or dp == 1 or pipeline_pinned)
        and (dp & (dp - 1) == 0 or pins.data_parallel_size is not None)
    )  # fmt: skip


def _expert_parallel(context: Context, tp: int, dp: int) -> tuple[bool, ...]:
    pinned = context.request.pins.enable_expert_parallel
    if pinned is not None:
        return (pinned and tp * dp > 1,)
    return (False, True) if dp > 1 else (False,)


def _context_parallel(context: Context, engine: Parallelism) -> list[Parallelism]:
    """The same ranks with different tokens in place of copies of a KV head, where one engine is looked at."""
    pinned = context.request.pins.decode_context_parallel_size
    if pinned is not None:
        return [msgspec.structs.replace(engine, decode_context_parallel_size=pinned)] if pinned > 1 else []
    alone = engine.engine_gpus == engine.tensor_parallel_size
    if not alone or context.request.pins.available_kv_bytes is not None:
        return []
    heads = min(a.num_key_value_heads for a in context.catalog.architectures.values())
    sizes = (size for size in POWERS_OF_TWO[1:] if size <= engine.tensor_parallel_size // heads)
    return [msgspec.structs.replace(engine, decode_context_parallel_size=size) for size in sizes]


def _engines(context: Context, engine: Parallelism) -> list[Parallelism]:
    """As many independent engines of one tensor-parallel group as the node has room for."""
    pins, gpus = context.request.pins, context.request.node.gpu_count
    if pins.replicas is not None:
        return [msgspec.structs.replace(engine, replicas=pins.replicas)] if pins.replicas > 1 else []
    alone = engine.engine_gpus == engine.tensor_parallel_size and not engine.enable_expert_parallel
    alone = alone and engine.decode_context_parallel_size == (pins.decode_context_parallel_size or 1)
    most = gpus // engine.engine_gpus if alone and pins.available_kv_bytes is None else 1
    # One machine, as everywhere: several behind a router are a question for simulate and the chart.
    return [msgspec.structs.replace(engine, replicas=most)] if 1 < most <= MOST_ENGINES else []


def _keeps_pins(pins: Pins, layout: Parallelism) -> bool:
    return layout.decode_context_parallel_size == (
        pins.decode_context_parallel_size or layout.decode_context_parallel_size
    ) and layout.replicas == (pins.replicas or layout.replicas)


def _all_pinned(context: Context) -> bool:
    """Pinned sizes beyond the node are answered by a rule, not by silence."""
    pins = context.request.pins
    sizes = (
        pins.tensor_parallel_size, pins.pipeline_parallel_size, pins.data_parallel_size, pins.replicas
    )  # fmt: skip
    return math.prod(size or 1 for size in sizes) > context.request.node.gpu_count


def _simplicity(layout: Parallelism) -> tuple[int, ...]:
    return (
        layout.world_size,
        layout.pipeline_parallel_size,
        layout.data_parallel_size,
        layout.replicas,
        layout.decode_context_parallel_size,
        int(layout.enable_expert_parallel),
        layout.tensor_parallel_size,
    )


def _pins_refusal(context: Context, checkpoint: Checkpoint) -> Refusal | None:
    """A pinned value this checkpoint or model cannot take in any layout."""
    pins, architecture = context.request.pins, context.catalog.architectures[checkpoint.architecture]
    if pins.num_speculative_tokens and not checkpoint.mtp:
        return Refusal("no_mtp_weights", f"{checkpoint.id} carries no MTP layer to draft with.")
    longest = architecture.yarn_max_position_embeddings
    if pins.max_model_len and pins.max_model_len > longest:
        return Refusal(
            "context_exceeds_model", f"max_model_len {pins.max_model_len:,} is beyond YaRN's {longest:,}."
        )
    # A log may show the two together, since vLLM starts with them; its arithmetic can still be checked.
    if pins.num_speculative_tokens and pins.enable_prefix_caching and pins.available_kv_bytes is None:
        return Refusal(
            "mtp_with_prefix_caching",
            "MTP together with prefix caching gave wrong output or no hits on this hybrid model; "
            "pin one of the two.",
            MTP_WITH_PREFIX_CACHING_LINK,
        )
    return cache_refusal(pins.kv_cache_dtype)


def _layout_refusal(context: Context, checkpoint: Checkpoint, layout: Parallelism) -> Refusal | None:
    gpus = context.request.node.gpu_count
    if layout.world_size > gpus:
        return Refusal(
            "more_gpus_than_present", f"{layout.label} needs {layout.world_size} GPUs, not {gpus}."
        )
    utilization = context.request.pins.gpu_memory_utilization
    most = context.most_utilization(layout)
    if utilization is not None and utilization > most:
        return Refusal(
            "utilization_above_free",
            f"gpu_memory_utilization {utilization} asks for more than is free beside CUDA and other "
            f"processes; at most {most:.2f}.",
        )
    architecture = context.catalog.architectures[checkpoint.architecture]
    refusal = next(layout_refusals(architecture, checkpoint, layout), None)
    refusal = refusal or context_parallel_refusal(architecture, layout, layout.decode_context_parallel_size)
    lora = context.request.lora
    return refusal or (lora_refusal(architecture, layout, lora) if lora else None)


def _speculation(context: Context, checkpoint: Checkpoint, layout: Parallelism) -> Iterator[tuple[int, bool]]:
    """(draft tokens, prefix caching): never both. Where prompts repeat, caching them wins."""
    pins = context.request.pins
    caching, from_log = pins.enable_prefix_caching, pins.available_kv_bytes is not None
    if pins.num_speculative_tokens is not None:
        drafts = pins.num_speculative_tokens
        yield drafts, (from_log or not drafts) if caching is None else caching
        return
    yield 0, caching is not False
    reuse = prefix_hit(context.request.workload) > 0 and caching is not False
    one_stage = layout.pipeline_parallel_size == 1 and layout.decode_context_parallel_size == 1
    supported = context.spec.vendor == "nvidia"  # vLLM's guide calls drafts on AMD "under development"
    drafts_possible = checkpoint.mtp and one_stage and supported and not from_log
    if drafts_possible and not reuse and not caching:
        for drafts in DRAFTS_TRIED:
            yield drafts, False


def _rejection(checkpoint: Checkpoint, layout: str, refusal: Refusal) -> Rejection:
    return Rejection(
        checkpoint=checkpoint.id,
        parallelism=layout,
        rule=refusal.rule,
        message=refusal.message,
        link=refusal.link,
    )

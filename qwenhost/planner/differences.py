"""A start as predicted against a start as logged: figure by figure, and what follows for the constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.facts import Value
from qwenhost.planner.cache import CacheOptions, block_layout
from qwenhost.planner.check import Start
from qwenhost.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.facts import Architecture, Catalog
    from qwenhost.node import Node
    from qwenhost.planner.check import Launch

# A load that misses by more is of another checkpoint than the profile says; nothing follows from it.
LARGEST_MARGIN: Final = 0.1


class ObservedStart(Value, frozen=True, kw_only=True):
    """What a start-up log says; None where it does not."""

    model_loading_gib: float | None = None
    available_kv_gib: float | None = None
    block_size: int | None = None
    kv_cache_tokens: int | None = None
    concurrency_at_max_model_len: float | None = None
    cudagraph_gib: float | None = None


class Difference(Value, frozen=True, kw_only=True):
    """One figure, predicted and logged."""

    figure: str
    unit: str
    predicted: float
    observed: float
    given: str
    """What the prediction was given: ``flags``, or ``available memory`` as the log states it."""

    @property
    def relative(self) -> float:
        """Predicted over observed, less one."""
        return self.predicted / self.observed - 1 if self.observed else 0.0


def differences(start: Start, observed: ObservedStart) -> tuple[Difference, ...]:
    """Every figure of the log beside its prediction."""
    return tuple(_differences(start, observed))


def differences_on_cpu(
    architecture: Architecture, launch: Launch, observed: ObservedStart
) -> tuple[Difference, ...]:
    """The CPU build is told its cache memory, so only the arithmetic on it can be held against a log."""
    blocks = block_layout(
        architecture,
        CacheOptions(
            kv_cache_dtype=launch.kv_cache_dtype,
            mamba_ssm_cache_dtype=launch.mamba_ssm_cache_dtype,
            num_speculative_tokens=launch.num_speculative_tokens,
            enable_prefix_caching=launch.enable_prefix_caching,
            vllm_version=launch.vllm_version,
            cpu=True,
        ),
    )
    length = launch.max_model_len or architecture.max_position_embeddings
    pool = blocks.pool(round((observed.available_kv_gib or 0.0) * GIB), length)
    predicted = (pool.block_size, pool.tokens, pool.max_concurrency_at_max_model_len)
    return tuple(_cache(predicted, observed, "available memory"))


def learned(launch: Launch, node: Node, catalog: Catalog, observed: ObservedStart) -> dict[str, float]:
    """Constants with which this start would have been predicted, by the calibration's names.

    The load sets what files weigh more in memory than computed; whatever else is missing or left over is
    put on the buffers that stay, and where those would fall below nothing, on the activations' base.
    """
    constants = Start(launch, node, catalog).context.constants
    found: dict[str, float] = {}
    loaded = observed.model_loading_gib
    if loaded is not None:
        margin = constants["weights_relative_margin"]
        computed = Start(launch, node, catalog).figures().memory.weights_bytes / (1 + margin)
        margin = loaded * GIB / computed - 1
        if abs(margin) <= LARGEST_MARGIN:
            found["weights_relative_margin"] = margin
    if observed.available_kv_gib is not None:
        known = round(loaded * GIB) if loaded is not None else None
        start = Start(msgspec.structs.replace(launch, loaded_bytes=known), node, catalog)
        missing = start.figures().available_kv_bytes - observed.available_kv_gib * GIB
        buffers = constants["persistent_buffer_bytes"] + missing
        base = constants["activation_base_bytes"] + min(0.0, buffers)
        found |= {"persistent_buffer_bytes": max(0.0, buffers), "activation_base_bytes": max(0.0, base)}
    return found


def _differences(start: Start, observed: ObservedStart) -> Iterator[Difference]:
    figures = start.figures()
    for name, predicted, logged in (
        ("model loading", figures.memory.weights_bytes / GIB, observed.model_loading_gib),
        ("CUDA graphs", figures.memory.cudagraph_bytes / GIB, observed.cudagraph_gib),
        ("available KV cache memory", figures.available_kv_bytes / GIB, observed.available_kv_gib),
    ):
        if logged is not None:
            yield Difference(figure=name, unit="GiB", predicted=predicted, observed=logged, given="flags")
    yield from _cache((figures.block_size, figures.tokens, figures.concurrency), observed, "flags")
    if observed.available_kv_gib is not None:
        known = start.figures_given(round(observed.available_kv_gib * GIB))
        cache = (known.block_size, known.tokens, known.concurrency)
        yield from _cache(cache, msgspec.structs.replace(observed, block_size=None), "available memory")


def _cache(
    predicted: tuple[float, float, float], observed: ObservedStart, given: str
) -> Iterator[Difference]:
    logged = (observed.block_size, observed.kv_cache_tokens, observed.concurrency_at_max_model_len)
    names = (("block size", "tokens"), ("KV cache size", "tokens"), ("concurrency at full context", "x"))
    for (figure, unit), mine, theirs in zip(names, predicted, logged, strict=True):
        if theirs is not None:
            yield Difference(figure=figure, unit=unit, predicted=mine, observed=theirs, given=given)

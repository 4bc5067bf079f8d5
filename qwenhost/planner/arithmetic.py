"""The memory arithmetic of a combination that the plan does not show: refused, or too slow to be listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.plan import Rejection
from qwenhost.planner.candidates import cache_dtypes, layouts
from qwenhost.planner.context import Context
from qwenhost.planner.explain import memory_lines, words_of
from qwenhost.planner.option import Option
from qwenhost.planner.rules import checkpoint_refusal, layout_refusals
from qwenhost.planner.sizing import settings_to_try, size, size_as_given
from qwenhost.units import MIB, format_gib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.facts import Catalog
    from qwenhost.plan import Plan, PlanRequest
    from qwenhost.planner.sizing import Settings

MOST_SHOWN: Final = 3
"""Layouts of a checkpoint that is named alone, the largest first: they come nearest to fitting."""


def why_not_arithmetic(
    request: PlanRequest, catalog: Catalog, wanted: str, plan: Plan | None = None
) -> list[str]:
    """Lines for ``CHECKPOINT`` or ``CHECKPOINT/LAYOUT``; none for what the plan already shows in full."""
    context = Context(request, catalog)
    shown = set() if plan is None else {
        (one.checkpoint.id, one.parallelism) for one in (plan.chosen, *plan.alternatives)
    }  # fmt: skip
    options = [
        option for option in _named(context, wanted) if (option.checkpoint, option.layout) not in shown
    ]
    return [line for option in options[:MOST_SHOWN] for line in _lines(context, option)]


def _named(context: Context, wanted: str) -> list[Option]:
    words = words_of(wanted)
    found = []
    for checkpoint in context.catalog.checkpoints.values():
        names = words & {checkpoint.id.lower(), checkpoint.repo_id.lower()}
        if not names or checkpoint_refusal(checkpoint, context.spec):
            continue
        architecture = context.catalog.architectures[checkpoint.architecture]
        for layout in reversed(layouts(context)):
            if words <= names | {layout.label.lower()} and not any(
                layout_refusals(architecture, checkpoint, layout)
            ):
                caching = context.request.pins.enable_prefix_caching is not False
                drafts = context.request.pins.num_speculative_tokens or 0
                dtype = cache_dtypes(context, checkpoint)[0]
                found.append(Option(checkpoint.id, layout, dtype, drafts, caching and not drafts))
    return found


def _lines(context: Context, option: Option) -> Iterator[str]:
    tightest: Settings | None = None
    for settings in settings_to_try(context, option):
        tightest = settings
        sized = size(context, option, settings)
        if not isinstance(sized, Rejection):
            room = f"{sized.max_num_seqs:,} sequences and a context of {sized.max_model_len:,}"
            yield f"{option.label} fits, with {room}:"
            yield from _indented(memory_lines(sized.memory, settings.utilization, option.checkpoint))
            return
    assert tightest is not None  # noqa: S101 - there is always one setting
    blocks, memory, _ = size_as_given(context, option, tightest._replace(most_sequences=1))
    text = "" if tightest.vision else ", text only"
    yield (
        f"{option.label} at its tightest: one sequence, steps of "
        f"{tightest.max_num_batched_tokens:,} tokens{text}"
    )
    yield from _indented(memory_lines(memory, tightest.utilization, option.checkpoint))
    length = tightest.max_model_len or min(
        context.typical_tokens, context.architecture_of(option).max_position_embeddings
    )
    tokens, each = blocks.blocks_charged(length) - blocks.reserved_blocks, blocks.block_bytes / MIB
    yield (
        f"    one request of {length:,} tokens: {tokens:,} x {blocks.block_size:,} tokens, "
        f"{blocks.reserved_blocks} x Gated DeltaNet state and 1 null block of {each:.2f} MiB "
        f"each: {format_gib(blocks.bytes_needed(length))}"
    )


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)

"""Smaller configurations, sized in advance, for a start that fails in a known way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qwenhost.plan import Fallback
from qwenhost.planner.candidate import to_candidate
from qwenhost.planner.rules import runs_flashinfer_gdn
from qwenhost.planner.sizing import SEQUENCE_STEPS, Settings, Sized, round_down, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from qwenhost.plan import Candidate
    from qwenhost.planner.context import Context
    from qwenhost.planner.objective import Judged

    Trigger = Literal[
        "out_of_memory", "kv_cache_too_small", "state_blocks_too_few", "cudagraph_failure", "kernel_failure"
    ]


class _Change(NamedTuple):
    trigger: Trigger
    settings: Settings
    change: str


def fallbacks(
    context: Context, chosen: Judged, judge_again: Callable[[Sized], Judged]
) -> tuple[Fallback, ...]:
    """For each known failure the chosen configuration with less of what failed."""
    found = []
    for change in _changes(context, chosen):
        sized = size(context, chosen.sized.option, change.settings)
        if isinstance(sized, Sized):
            candidate: Candidate = to_candidate(context, judge_again(sized))
            found.append(Fallback(trigger=change.trigger, candidate=candidate, change=change.change))
    return tuple(found)


def _changes(context: Context, chosen: Judged) -> Iterator[_Change]:
    sized = chosen.sized
    settings = sized.settings._replace(most_sequences=sized.max_num_seqs, max_model_len=sized.max_model_len)
    fewer = _next_below(sized.max_num_seqs // 2)
    half = max(context.typical_tokens, sized.max_model_len // 2)
    lower = round_down(settings.utilization - 0.03)
    yield _Change(
        "out_of_memory",
        settings._replace(utilization=lower, most_sequences=fewer, max_model_len=half),
        f"gpu_memory_utilization {settings.utilization:.2f} to {lower:.2f}, max_num_seqs to {fewer}, "
        f"max_model_len to {half:,}",
    )
    yield _Change(
        "kv_cache_too_small",
        settings._replace(max_model_len=half),
        f"max_model_len {sized.max_model_len:,} to {half:,}",
    )
    yield _Change(
        "state_blocks_too_few",
        settings._replace(most_sequences=fewer),
        f"max_num_seqs {sized.max_num_seqs} to {fewer}",
    )
    yield _Change(
        "cudagraph_failure", settings._replace(enforce_eager=True), "no CUDA graphs (enforce_eager)"
    )
    if runs_flashinfer_gdn(context.spec, settings.gdn_prefill_backend, context.request.node.cuda_version):
        yield _Change(
            "kernel_failure",
            settings._replace(gdn_prefill_backend="triton"),
            "Gated DeltaNet prefill on Triton instead of FlashInfer",
        )


def _next_below(sequences: int) -> int:
    return next((step for step in SEQUENCE_STEPS if step <= max(1, sequences)), 1)

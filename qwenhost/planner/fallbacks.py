"""Smaller configurations, sized in advance, for a start that fails in a known way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.plan import Fallback
from qwenhost.planner.candidate import to_candidate
from qwenhost.planner.sizing import SEQUENCE_STEPS, Settings, Sized, round_down, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from qwenhost.planner.context import Context
    from qwenhost.planner.objective import Judged

    Trigger = Literal[
        "out_of_memory", "kv_cache_too_small", "state_blocks_too_few", "cudagraph_failure", "kernel_failure"
    ]

SMALLER_SHARES: Final = (0.03, 0.02, 0.01)


class _Change(NamedTuple):
    trigger: Trigger
    settings: tuple[Settings, ...]
    """Tried in order; the first that can be sized is taken."""


def fallbacks(
    context: Context, chosen: Judged, judge_again: Callable[[Sized], Judged]
) -> tuple[Fallback, ...]:
    """For each known failure the chosen configuration with less of what failed."""
    found = []
    for change in _changes(context, chosen):
        tried = (size(context, chosen.sized.option, settings) for settings in change.settings)
        sized = next((one for one in tried if isinstance(one, Sized)), None)
        if sized is not None:
            candidate = to_candidate(context, judge_again(sized))
            found.append(
                Fallback(trigger=change.trigger, candidate=candidate, change=_difference(chosen.sized, sized))
            )
    return tuple(found)


def _changes(context: Context, chosen: Judged) -> Iterator[_Change]:
    sized = chosen.sized
    settings = sized.settings._replace(most_sequences=sized.max_num_seqs, max_model_len=sized.max_model_len)
    fewer = _next_below(sized.max_num_seqs // 2)
    half = max(context.typical_tokens, sized.max_model_len // 2)
    # What remains of the share goes to the cache, so a smaller share is what frees memory for the rest.
    smaller = settings._replace(most_sequences=fewer, max_model_len=context.request.pins.max_model_len)
    shares = tuple(round_down(settings.utilization - step) for step in SMALLER_SHARES)
    yield _Change("out_of_memory", tuple(smaller._replace(utilization=share) for share in shares))
    yield _Change("kv_cache_too_small", (settings._replace(max_model_len=half),))
    if fewer < sized.max_num_seqs:
        yield _Change("state_blocks_too_few", (settings._replace(most_sequences=fewer),))
    yield _Change("cudagraph_failure", (settings._replace(enforce_eager=True),))
    if context.flashinfer_gdn(settings.gdn_prefill_backend):
        yield _Change("kernel_failure", (settings._replace(gdn_prefill_backend="triton"),))
    elif context.spec.vendor == "nvidia" and context.can_use_marlin(sized.option):
        yield _Change("kernel_failure", (settings._replace(moe_backend="marlin"),))


def _difference(before: Sized, after: Sized) -> str:
    """What was changed, for people."""
    old, new = before.settings, after.settings
    share, seqs, length = "gpu_memory_utilization", "max_num_seqs", "max_model_len"
    parts = [
        _change(share, f"{old.utilization:.2f}", f"{new.utilization:.2f}"),
        _change(seqs, str(before.max_num_seqs), str(after.max_num_seqs)),
        _change(length, f"{before.max_model_len:,}", f"{after.max_model_len:,}"),
        "no CUDA graphs (enforce_eager)" if new.enforce_eager else "",
        "Gated DeltaNet prefill on Triton" if new.gdn_prefill_backend != old.gdn_prefill_backend else "",
        "experts on Marlin" if new.moe_backend != old.moe_backend else "",
    ]
    return ", ".join(part for part in parts if part)


def _change(name: str, old: str, new: str) -> str:
    return f"{name} {old} to {new}" if old != new else ""


def _next_below(sequences: int) -> int:
    return next((step for step in SEQUENCE_STEPS if step <= max(1, sequences)), 1)

"""A plan in sentences: why this one, the memory arithmetic, and what was set aside. From data alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.units import format_gib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qwenhost.plan import Candidate, MemoryBreakdown, Plan, Rejection

_OBJECTIVES: Final = {
    "cost": "the cheapest tokens: the most requests per second from a node that is rented whole",
    "throughput": "the most requests per second",
    "latency": "the shortest answer for one user, or for the users given",
    "context": "the longest context, then the most requests at that length",
}
_RULE_WORDS: Final = {
    "weights_do_not_fit": "weights do not fit",
    "kv_cache_too_small": "cache too small",
    "state_blocks_too_few": "too few state blocks",
}


def explain(plan: Plan) -> list[tuple[str, list[str]]]:
    """Titled paragraphs, each a list of lines."""
    return [
        ("Why this one", list(_why(plan))),
        ("Memory of one GPU", list(_memory(plan.chosen))),
        ("Cache of one replica", list(_cache(plan.chosen))),
        ("Set aside", explain_rejections(plan.rejections)),
        ("If a start fails", [f"{f.trigger}: {f.change}" for f in plan.fallbacks]),
    ]


def explain_rejections(rejections: Iterable[Rejection], limit: int | None = None) -> list[str]:
    """One line per rejection, the nearest misses first."""
    ordered = sorted(rejections, key=lambda one: (one.need_bytes is None, _shortfall(one)))
    lines = [_rejection_line(one) for one in ordered]
    if limit is None or len(lines) <= limit:
        return lines
    return [*lines[:limit], f"... and {len(lines) - limit} more (--explain or --json lists all)"]


def why_not(plan: Plan, wanted: str) -> list[str]:
    """Why ``CHECKPOINT``, ``CHECKPOINT/LAYOUT`` or a layout such as ``TP4`` was not chosen, with figures."""
    words = words_of(wanted)
    lines = [_rejection_line(one) for one in plan.rejections if _matches(one, words)]
    if _is_named(plan.chosen, words):
        lines.append(f"{plan.chosen.label} is the choice.")
    for rank, other in enumerate(plan.alternatives, start=2):
        if _is_named(other, words):
            lines.append(f"{other.label} fits and ranks {rank}: {_against(other, plan.chosen)}.")
            lines += [f"    {line}" for line in _memory(other)]
    if not lines:
        lines.append(
            f"{wanted}: neither refused nor among the {len(plan.alternatives) + 1} best. "
            "Pin it (--checkpoint, -tp ...) to see its figures."
        )
    return lines


def words_of(wanted: str) -> set[str]:
    """``bf16/TP2`` -> {``bf16``, ``tp2``}."""
    return {word.strip().lower() for word in wanted.replace(",", "/").split("/") if word.strip()}


def _matches(rejection: Rejection, words: set[str]) -> bool:
    named = {rejection.checkpoint.lower(), rejection.parallelism.lower()}
    return words <= named or (rejection.parallelism == "any layout" and rejection.checkpoint.lower() in words)


def _is_named(candidate: Candidate, words: set[str]) -> bool:
    return words <= {candidate.checkpoint.id.lower(), candidate.parallelism.label.lower()}


def _why(plan: Plan) -> Iterator[str]:
    chosen, inputs = plan.chosen, plan.inputs
    yield f"{chosen.label}: {_OBJECTIVES[inputs.objective]}."
    slo = ", ".join(
        f"{name} at most {limit:,.0f} ms"
        for name, limit in (
            ("first token", inputs.slo.ttft_ms),
            ("per token", inputs.slo.tpot_ms),
            ("whole answer", inputs.slo.e2e_ms),
        )
        if limit
    )
    if slo:
        yield f"Service level: {slo}; {'kept' if chosen.estimate.meets_slo else 'missed'} by the prediction."
    speed = chosen.estimate
    yield (
        f"Bound by {speed.output_tokens_per_s.bound}; "
        f"{speed.speed_of_light_fraction:.0%} of what ideal bandwidth and arithmetic would give."
    )
    if plan.alternatives:
        other = plan.alternatives[0]
        yield f"Next: {other.label} with {_against(other, chosen)}."


def _against(other: Candidate, chosen: Candidate) -> str:
    rate, mine = other.estimate.output_tokens_per_s.value, chosen.estimate.output_tokens_per_s.value
    share = rate / mine - 1 if mine else 0.0
    return (
        f"{rate:,.0f} output tokens/s ({share:+.0%}), {other.estimate.tpot_ms.value:.1f} ms per token "
        f"against {chosen.estimate.tpot_ms.value:.1f}"
    )


def _memory(candidate: Candidate) -> Iterator[str]:
    utilization = candidate.engine_args.gpu_memory_utilization
    return memory_lines(candidate.memory_per_gpu, utilization, candidate.checkpoint.id)


def memory_lines(memory: MemoryBreakdown, utilization: float, checkpoint: str) -> Iterator[str]:
    """From the whole GPU down to what is left for the cache, one term a line."""
    yield f"{format_gib(memory.total_bytes):>12}  total, as NVML reports it"
    yield f"{format_gib(memory.usable_bytes):>12}  vLLM may use at {utilization:.2f}"
    yield f"{format_gib(-memory.weights_bytes):>12}  weights of {checkpoint}"
    if memory.lora_bytes:
        yield f"{format_gib(-memory.lora_bytes):>12}  slots of LoRA adapters"
    yield f"{format_gib(-memory.activation_bytes):>12}  activations at their peak"
    yield f"{format_gib(-memory.cudagraph_bytes):>12}  CUDA graphs"
    yield f"{format_gib(-memory.non_torch_bytes):>12}  buffers that stay, of kernels and for each sequence"
    yield f"{format_gib(memory.kv_cache_bytes):>12}  left for the cache"
    if memory.margin_bytes:
        yield f"{format_gib(memory.margin_bytes):>12}  of that not planned on: the model is not exact"
    if memory.outside_bytes:
        outside = "CUDA context, NCCL, and what NVML counts and CUDA does not"
        yield f"{format_gib(memory.outside_bytes):>12}  beside what vLLM may use: {outside}"


def _cache(candidate: Candidate) -> Iterator[str]:
    cache, args = candidate.kv_cache, candidate.engine_args
    per_request = -(-args.max_model_len // cache.block_size) + cache.reserved_blocks_per_sequence
    yield f"{cache.num_blocks:,} blocks of {cache.block_size:,} tokens ({cache.block_bytes:,} bytes)"
    yield (
        f"a request of {args.max_model_len:,} tokens is charged {per_request:,} blocks, "
        f"{cache.reserved_blocks_per_sequence} of them Gated DeltaNet state"
    )
    yield (
        f"vLLM will print about {cache.tokens:,} tokens, {cache.max_concurrency_at_max_model_len:.2f}x; "
        f"a running request holds {cache.state_blocks_per_sequence} state blocks "
        f"({format_gib(cache.state_bytes_per_sequence)}) and one block per {cache.block_size:,} tokens"
    )
    yield f"max_num_seqs {args.max_num_seqs:,} may not exceed the {cache.num_blocks:,} blocks"


def _rejection_line(rejection: Rejection) -> str:
    rule = _RULE_WORDS.get(rejection.rule, rejection.rule.replace("_", " "))
    link = f" {rejection.link}" if rejection.link else ""
    return f"{rejection.checkpoint}, {rejection.parallelism}: {rule}. {rejection.message}{link}"


def _shortfall(rejection: Rejection) -> int:
    return (rejection.need_bytes or 0) - (rejection.have_bytes or 0)

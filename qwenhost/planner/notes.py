"""Trade-offs a plan states, one sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.planner.cache import version_tuple
from qwenhost.planner.known_issues import Combination, known_issues
from qwenhost.planner.lora import targeted
from qwenhost.planner.rules import FLASHINFER_GDN_LINK, MTP_WITH_PREFIX_CACHING_LINK
from qwenhost.planner.service import prefix_hit
from qwenhost.planner.sizing import DEFAULT_UTILIZATION
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.planner.context import Context
    from qwenhost.planner.objective import Judged

MOST_GPUS_OF_A_MACHINE: Final = 16


def notes(context: Context, judged: Judged) -> tuple[str, ...]:
    """Everything a user should know before taking this candidate."""
    return (
        *_service_notes(context, judged),
        *_memory_notes(context, judged),
        *_cache_notes(context, judged),
        *_lora_notes(context, judged),
        *context.kernels(judged.sized.option).notes,
        *_kernel_notes(context, judged),
        *_issues(context, judged),
        *_checkpoint_notes(context, judged),
    )


def _service_notes(context: Context, judged: Judged) -> Iterator[str]:
    if judged.service.overloaded:
        yield f"Cannot carry {context.request.rate:g} requests/s: figures are those at capacity, queues grow."
    elif not judged.meets_slo:
        yield "Misses the service level even at the load judged."
    mean = judged.demand.prompt_tokens + judged.demand.output_tokens
    if mean > judged.sized.max_model_len:
        yield (
            f"The mean request ({mean:,.0f} tokens) is longer than the context "
            f"({judged.sized.max_model_len:,}) and would be refused: pin a longer --max-model-len (YaRN)."
        )
    if context.request.gpu_price is None:
        yield "No price is known for this GPU: ranked by throughput. Give --gpu-price USD."
    if context.request.node.gpu_count > MOST_GPUS_OF_A_MACHINE:
        yield (
            f"More than {MOST_GPUS_OF_A_MACHINE} GPUs are several machines: the links between them are not "
            "modelled, so the figures are too good. Plan one machine and run a service on each."
        )
    engines = judged.sized.option.layout.replicas
    if engines > 1:
        yield (
            f"{engines} independent engines: each needs GPUs and a port of its own and a router before them, "
            "and prefixes are cached by each alone. qwenhost render writes them as compose or helm; "
            "qwenhost serve runs one engine."
        )
    idle = context.request.node.gpu_count - judged.sized.option.layout.world_size
    if idle:
        yield f"{idle} of {context.request.node.gpu_count} GPUs stay idle and are paid for."


def _memory_notes(context: Context, judged: Judged) -> Iterator[str]:
    settings, pins = judged.sized.settings, context.request.pins
    if not settings.vision and pins.language_model_only is None:
        yield "Text only: the vision tower is left out to make room (--language-model-only)."
    if pins.gpu_memory_utilization is None and settings.utilization != DEFAULT_UTILIZATION:
        yield f"gpu_memory_utilization {settings.utilization:.2f} instead of vLLM's {DEFAULT_UTILIZATION}."
    native = context.architecture_of(judged.sized.option).max_position_embeddings
    if judged.sized.max_model_len > native:
        yield f"Above {native:,} tokens YaRN stretches positions for all requests; short ones lose quality."
    longest = context.request.workload.input_tokens.p99 or 0
    if longest > judged.sized.max_model_len:
        yield f"The workload's longest 1 % of prompts (from {longest:,.0f} tokens) do not fit the context."


def _cache_notes(context: Context, judged: Judged) -> Iterator[str]:
    option, checkpoint = judged.sized.option, context.checkpoint(judged.sized.option)
    if option.kv_cache_dtype.startswith("fp8"):
        if checkpoint.declared_kv_cache_dtype:
            yield "FP8 KV cache: the checkpoint is calibrated for it."
        else:
            yield (
                f"FP8 KV cache without calibrated scales: twice the tokens, but {checkpoint.id} declares "
                "none (scale 1.0); reasoning quality may drop. Check it on your own prompts."
            )
    if option.num_speculative_tokens:
        state = "on, as in the log; do not serve so" if option.enable_prefix_caching else "off"
        yield (
            f"MTP with prefix caching {state}: the two together are wrong on this hybrid model "
            f"({MTP_WITH_PREFIX_CACHING_LINK}). Acceptance varies by text; random text accepts less."
        )
    elif option.enable_prefix_caching and prefix_hit(context.request.workload) > 0:
        unit = judged.sized.kv_cache.hit_tokens
        yield f"Prefix hits end at multiples of {unit:,} tokens: shorter shared prompts never hit."
    ranks = option.layout.decode_context_parallel_size
    if ranks > 1:
        yield (
            f"Decode context parallelism over {ranks} ranks: each block stands for {ranks} times the tokens. "
            "No run of this model with it is known, so the times are assumed and their bands wide."
        )
    if context.request.pins.mamba_ssm_cache_dtype in ("bfloat16", "float16"):
        yield "16-bit Gated DeltaNet state halves its memory; the model is published for float32."


def _lora_notes(context: Context, judged: Judged) -> Iterator[str]:
    lora, held = context.request.lora, judged.sized.memory.lora_bytes
    if lora is None:
        return
    each = held // lora.max_loras
    yield (
        f"{lora.max_loras} adapter slots of rank {lora.max_lora_rank} take {format_gib(held)} per GPU, "
        f"{format_gib(each)} each, used or not."
    )
    if "experts" in targeted(lora.lora_target_modules):
        yield (
            "Most of a slot is for routed experts: where adapters leave them alone, say so with "
            "--lora-target-modules."
        )
    if judged.sized.option.num_speculative_tokens:
        yield "The draft layer runs without adapters, so the more an adapter changes, the less is accepted."
    yield (
        "With adapters vLLM runs experts on Triton or Marlin only; the times here are those without adapters."
    )


def _kernel_notes(context: Context, judged: Judged) -> Iterator[str]:
    backend = judged.sized.settings.gdn_prefill_backend
    hopper = 9.0 <= context.spec.compute_capability < 10.0
    if hopper and backend is None and context.spec.vendor == "nvidia":
        yield (
            "FlashInfer compiles its Gated DeltaNet kernel at the first start: it needs nvcc 12.6 or later; "
            f"without it use --gdn-prefill-backend triton ({FLASHINFER_GDN_LINK})."
        )


def _issues(context: Context, judged: Judged) -> Iterator[str]:
    option, checkpoint = judged.sized.option, context.checkpoint(judged.sized.option)
    return known_issues(
        Combination(
            checkpoint=checkpoint,
            expert_compute=context.expert_compute(checkpoint),
            spec=context.spec,
            layout=option.layout,
            kv_cache_dtype=option.kv_cache_dtype,
            num_speculative_tokens=option.num_speculative_tokens,
            vllm_version=version_tuple(context.request.vllm_version),
        )
    )


def _checkpoint_notes(context: Context, judged: Judged) -> Iterator[str]:
    checkpoint = context.checkpoint(judged.sized.option)
    for quality in checkpoint.quality[:2]:
        yield (
            f"Published quality: {quality.benchmark} {quality.score:g} against {quality.baseline:g} "
            f"({quality.source.note or quality.source.where})"
        )
    if checkpoint.quantization != "none" and not checkpoint.quality and not checkpoint.official:
        yield f"No published quality of {checkpoint.id} is known; it is not by the model's maker."
    if checkpoint.revision is None:
        yield f"No revision of {checkpoint.repo_id} is pinned: its head is taken."
    yield from checkpoint.caveats

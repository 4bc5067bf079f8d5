"""A judged combination as a Candidate of the plan: arguments, figures with their bands, notes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from qwenhost.plan import (
    Candidate,
    CheckpointRef,
    EngineArgs,
    Estimate,
    SpeculativeConfig,
    SpeedEstimate,
)
from qwenhost.planner.notes import notes
from qwenhost.planner.sizing import DEFAULT_UTILIZATION
from qwenhost.units import SECONDS_PER_HOUR, TOKENS_PER_MTOK

if TYPE_CHECKING:
    from qwenhost.plan import Bound
    from qwenhost.planner.context import Context
    from qwenhost.planner.objective import Judged

__all__ = ["DEFAULT_UTILIZATION", "to_candidate"]

# Model card of Qwen3.5 and vLLM's recipes: static YaRN over the native context.
_YARN_ROPE: Final = {
    "mrope_interleaved": True,
    "mrope_section": [11, 11, 10],
    "rope_type": "yarn",
    "rope_theta": 10000000,
    "partial_rotary_factor": 0.25,
}
UNTRIED_BAND: Final = 0.5
"""Either way, of a layout that nobody is known to have run."""
_CUSTOM_ALL_REDUCE_PCIE_RANKS: Final = 2  # vLLM custom_all_reduce.py: more needs NVLink


def to_candidate(context: Context, judged: Judged) -> Candidate:
    """Everything the plan says about one combination."""
    sized, option = judged.sized, judged.sized.option
    checkpoint = context.checkpoint(option)
    price = context.request.gpu_price
    usd_per_hour = None if price is None else price.usd_per_gpu_hour * context.request.node.gpu_count
    output_rate = judged.requests_per_s * judged.demand.output_tokens
    total_rate = output_rate + judged.requests_per_s * judged.demand.prompt_tokens
    typical = math.ceil(judged.demand.prompt_tokens + judged.demand.output_tokens)
    ranks = option.layout.serving_groups
    return Candidate(
        checkpoint=CheckpointRef(
            id=checkpoint.id,
            repo_id=checkpoint.repo_id,
            revision=checkpoint.revision,
            quantization=checkpoint.quantization,
            disk_bytes=checkpoint.disk_bytes,
        ),
        parallelism=option.layout,
        engine_args=_engine_args(context, judged),
        vllm_env=_environment(context, judged),
        memory_per_gpu=sized.memory,
        kv_cache=sized.kv_cache,
        estimate=_speed(context, judged),
        usd_per_hour=usd_per_hour,
        usd_per_mtok_output=_usd_per_mtok(usd_per_hour, output_rate),
        usd_per_mtok_blended=_usd_per_mtok(usd_per_hour, total_rate),
        concurrency_at_workload=ranks * min(sized.max_num_seqs, sized.kv_cache.concurrency_at(typical)),
        concurrency_at_max_model_len=ranks * sized.kv_cache.max_concurrency_at_max_model_len,
        notes=notes(context, judged),
    )


def _engine_args(context: Context, judged: Judged) -> EngineArgs:
    sized, option = judged.sized, judged.sized.option
    kernels, pins = context.kernels(option), context.request.pins
    drafts = option.num_speculative_tokens
    speculative = (
        SpeculativeConfig(num_speculative_tokens=drafts, moe_backend=kernels.draft_moe_backend)
        if drafts
        else None
    )
    return EngineArgs(
        max_model_len=sized.max_model_len,
        max_num_seqs=sized.max_num_seqs,
        max_num_batched_tokens=sized.settings.max_num_batched_tokens,
        gpu_memory_utilization=sized.settings.utilization,
        kv_cache_dtype=option.kv_cache_dtype,
        enable_prefix_caching=option.enable_prefix_caching,
        language_model_only=not sized.settings.vision,
        speculative_config=speculative,
        mamba_ssm_cache_dtype=pins.mamba_ssm_cache_dtype or "auto",
        gdn_prefill_backend=sized.settings.gdn_prefill_backend,  # type: ignore[arg-type]
        moe_backend=sized.settings.moe_backend or kernels.moe_backend,
        enforce_eager=sized.settings.enforce_eager,
        extra=_extra(context, judged),
    )


def _extra(context: Context, judged: Judged) -> dict[str, Any]:
    option, length = judged.sized.option, judged.sized.max_model_len
    extra: dict[str, Any] = {}
    ranks = option.layout.tensor_parallel_size
    if context.request.node.interconnect == "pcie" and ranks > _CUSTOM_ALL_REDUCE_PCIE_RANKS:
        extra["disable_custom_all_reduce"] = True
    pins = context.request.pins
    if pins.prefix_match_unit is not None and option.enable_prefix_caching:
        extra["prefix_match_unit"] = pins.prefix_match_unit
    extra |= _lora_flags(context)
    native = context.architecture_of(option).max_position_embeddings
    if length > native:
        rope = _YARN_ROPE | {
            "factor": float(math.ceil(length / native)),
            "original_max_position_embeddings": native,
        }
        extra["hf_overrides"] = {"text_config": {"rope_parameters": rope}}
    return extra


def _lora_flags(context: Context) -> dict[str, Any]:
    lora = context.request.lora
    if lora is None:
        return {}
    flags: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": lora.max_loras,
        "max_lora_rank": lora.max_lora_rank,
    }
    if len(lora.lora_modules) > lora.max_loras:  # the others wait in the machine's memory
        flags["max_cpu_loras"] = len(lora.lora_modules)
    if lora.lora_target_modules:
        flags["lora_target_modules"] = list(lora.lora_target_modules)
    if lora.lora_modules:
        flags["lora_modules"] = [f"{name}={path}" for name, path in sorted(lora.lora_modules.items())]
    return flags


def _environment(context: Context, judged: Judged) -> dict[str, str]:
    option = judged.sized.option
    env = dict(context.kernels(option).env)
    if judged.sized.max_model_len > context.architecture_of(option).max_position_embeddings:
        env["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"
    return dict(sorted(env.items()))


def _speed(context: Context, judged: Judged) -> SpeedEstimate:
    service, demand = judged.service, judged.demand
    bound: Bound = "kv" if judged.limited_by_cache else service.bound
    row = context.constants.calibration
    prefill_band = max(row.relative_band_high, context.constants.get("prefill_relative_band", 0.0))

    def estimate(value: float, low: float, high: float) -> Estimate:
        return Estimate(
            value=float(value),
            low=float(value * (1 - low)),
            high=float(value * (1 + high)),
            basis=basis,
            bound=bound,
            source=source,
        )

    low, high = row.relative_band_low, row.relative_band_high
    basis, source = context.constants.basis, context.constants.source
    if judged.sized.option.layout.decode_context_parallel_size > 1:
        low, high = max(low, UNTRIED_BAND), max(high, UNTRIED_BAND)
        basis, source = "assumed", f"{source}; decode context parallelism by arithmetic alone"
    rate = judged.requests_per_s
    # An offered rate that is carried is no prediction; only the latencies are.
    carried = context.request.rate is not None and not service.overloaded
    rate_low, rate_high = (0.0, 0.0) if carried else (low, high)
    asked = context.request.concurrency is not None
    return SpeedEstimate(
        output_tokens_per_s=estimate(rate * demand.output_tokens, rate_low, rate_high),
        input_tokens_per_s=estimate(rate * demand.prompt_tokens, rate_low, rate_high),
        requests_per_s=estimate(rate, rate_low, rate_high),
        ttft_ms=estimate(service.ttft_s * 1000, max(low, prefill_band), prefill_band),
        tpot_ms=estimate(service.tpot_s * 1000, low, high),
        concurrency=estimate(judged.concurrency, 0.0 if asked else low, 0.0 if asked else high),
        meets_slo=judged.meets_slo,
        speed_of_light_fraction=service.ideal_fraction,
    )


def _usd_per_mtok(usd_per_hour: float | None, tokens_per_s: float) -> float | None:
    if usd_per_hour is None or tokens_per_s <= 0:
        return None
    return usd_per_hour / (tokens_per_s * SECONDS_PER_HOUR) * TOKENS_PER_MTOK

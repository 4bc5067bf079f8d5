"""A small catalog, plan and run made by hand, with figures a reader can multiply in the head."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from qwenhost.facts import (
    ApiPrice,
    Assumption,
    BenchmarkScore,
    CacheRules,
    Catalog,
    CostPerTask,
    GpuPrice,
    GpuSpec,
    OwnedGpu,
    RateLimit,
    RatePeriod,
    Slo,
    Source,
    TokenRates,
    TokenStats,
    Workload,
)
from qwenhost.measurements import (
    Goodput,
    Lag,
    Load,
    MeasuredWorkload,
    Measurements,
    Percentiles,
    RequestCounts,
    Server,
)
from qwenhost.node import parse_gpus
from qwenhost.plan import (
    Candidate,
    CheckpointRef,
    EngineArgs,
    Estimate,
    GpuPriceRef,
    KvCache,
    MemoryBreakdown,
    Parallelism,
    Pins,
    Plan,
    PlanInputs,
    SpeedEstimate,
)

DAY = dt.date(2026, 11, 23)
SOURCE = Source(where="made by hand", as_of=DAY)
NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)

FLAT = TokenRates(input=3.0, output=15.0, cache_write_5m=3.75, cache_write_1h=6.0, cache_read=0.30)
LONG = TokenRates(input=6.0, output=22.5, cache_write_5m=7.5, cache_write_1h=12.0, cache_read=0.60)

SONNET = ApiPrice(
    id="claude-sonnet-4-6",
    name="Claude Sonnet 4.6",
    kind="claude",
    provider="anthropic",
    model="claude-sonnet-4-6",
    periods=(
        RatePeriod(
            since=dt.date(2026, 2, 17),
            until=dt.date(2026, 3, 12),
            usd_per_mtok=FLAT,
            long_context_threshold_tokens=200_000,
            long_context_usd_per_mtok=LONG,
            source=SOURCE,
        ),
        RatePeriod(since=dt.date(2026, 3, 13), usd_per_mtok=FLAT, source=SOURCE),
    ),
    batch_multiplier=0.5,
    residency_multiplier={"global": 1.0, "us": 1.1},
    cache=CacheRules(min_prefix_tokens=1024, ttl_s=(300, 3600), read_refreshes_ttl=True),
    tool_system_prompt_tokens={"auto_or_none": 497, "any_or_tool": 589},
    fees_usd={"web_search_per_1000": 10.0},
    rate_limits=(
        RateLimit(
            tier="start",
            requests_per_minute=1000,
            input_tokens_per_minute=2_000_000,
            output_tokens_per_minute=400_000,
        ),
        RateLimit(
            tier="scale",
            requests_per_minute=10_000,
            input_tokens_per_minute=10_000_000,
            output_tokens_per_minute=2_000_000,
        ),
    ),
    context_tokens=1_000_000,
    baseline=True,
    source=SOURCE,
)


def hosted(name: str, usd_in: float, usd_out: float) -> ApiPrice:
    """A hosted offer of the open model, without cache price."""
    return ApiPrice(
        id=f"qwen-{name}",
        name=f"Qwen3.5-122B-A10B on {name}",
        kind="hosted_qwen",
        provider=name,
        model="qwen3.5-122b-a10b",
        periods=(RatePeriod(usd_per_mtok=TokenRates(input=usd_in, output=usd_out), source=SOURCE),),
        context_tokens=262_144,
        source=SOURCE,
    )


CHEAP, DEAR = hosted("openrouter", 0.26, 2.08), hosted("novita", 0.40, 3.20)


def workload(
    name: str = "chat", *, tokens_in: float = 1155, tokens_out: float = 211, **more: Any
) -> Workload:
    """A workload of this size; chat unless told otherwise."""
    return Workload(
        id=name,
        description="made by hand",
        input_tokens=TokenStats(mean=tokens_in),
        output_tokens=TokenStats(mean=tokens_out),
        slo=Slo(ttft_ms=2000, tpot_ms=50),
        source=SOURCE,
        **more,
    )


CHAT = workload()
CODING_AGENT = workload(
    "coding_agent",
    tokens_in=122_379,
    tokens_out=440,
    prefix_hit_5m=0.916,
    prefix_hit_1h=0.9596,
    prefix_hit_unbounded=0.963,
    content="code",
    requests_per_session=80,
)

H200 = GpuSpec(
    id="h200",
    name="NVIDIA H200",
    nvml_pattern="H200",
    aliases=("h200",),
    architecture="hopper",
    memory_bytes=150_754_820_096,
    hbm_bytes_per_s=4.8e12,
    bf16_flops=9.89e14,
    link="nvlink",
    link_bytes_per_s=4.5e11,
    compute_capability=9.0,
    power_w=700,
    source=SOURCE,
)


def rent(provider: str, tier: Any, usd: float) -> GpuPrice:
    """A listed price of an H200 hour."""
    return GpuPrice(gpu="h200", provider=provider, tier=tier, usd_per_gpu_hour=usd, source=SOURCE)


def assumption(name: str, value: float, low: float, high: float) -> Assumption:
    """A number nobody publishes."""
    return Assumption(
        id=name, value=value, low=low, high=high, unit="", why=f"{name}, made by hand", source=SOURCE
    )


ASSUMPTIONS = (
    assumption("mean_over_peak", 0.5, 0.28, 0.7),
    assumption("mean_over_peak_coding", 0.28, 0.2, 0.4),
    assumption("spare_nodes", 1, 0, 2),
    assumption("staff_fte", 0.25, 0.1, 1.0),
    assumption("staff_usd_per_fte_year", 260_000, 200_000, 360_000),
    assumption("storage_usd_per_gb_month", 0.10, 0.05, 0.20),
    assumption("claude_tokens_per_qwen_token", 1.0, 1.0, 1.2),
    assumption("qwen_output_per_sonnet_output", 1.0, 0.7, 2.0),
    assumption("measured_capacity_band", 0.1, 0.05, 0.2),
    assumption("depreciation_years", 4, 3, 6),
    assumption("colo_usd_per_kw_month", 180, 120, 250),
    assumption("ownership_overhead_fraction", 0.275, 0.2, 0.35),
    assumption("power_usage_effectiveness", 1.5, 1.1, 1.8),
    assumption("thinking_share_of_output", 0.75, 0.6, 0.85),
    assumption("spot_lost_share", 0.05, 0.01, 0.2),
    assumption("engine_boot_s", 30, 30, 30),
    assumption("weight_read_gb_per_s", 1, 1, 1),
    assumption("engine_warmup_s", 150, 150, 150),
    assumption("engine_starts_per_node_month", 0, 0, 0),
    assumption("rolling_upgrades_per_month", 0, 0, 0),
    assumption("egress_usd_per_gb", 0, 0, 0),
    assumption("streamed_bytes_per_output_token", 250, 250, 250),
)


CATALOG = Catalog(
    architectures={},
    formats={},
    checkpoints={},
    gpus={"h200": H200},
    gpu_prices=(
        rent("hyperstack", "on_demand", 4.0),
        rent("aws", "hyperscaler", 8.0),
        rent("hyperstack", "reserved_1y", 2.8),
        rent("nebius", "spot", 2.0),
    ),
    owned_gpus={
        "h200": OwnedGpu(
            gpu="h200", purchase_usd_low=40_000, purchase_usd_high=52_500, facility_kw=1.275, source=SOURCE
        )
    },
    api_prices={price.id: price for price in (DEAR, SONNET, CHEAP)},
    workloads={"chat": CHAT, "coding_agent": CODING_AGENT},
    benchmarks=(
        BenchmarkScore(
            benchmark="SWE-bench Verified", model="qwen3.5-122b-a10b", score=72.0, by="maker", source=SOURCE
        ),
        BenchmarkScore(
            benchmark="SWE-bench Verified", model="claude-sonnet-4.6", score=79.6, by="maker", source=SOURCE
        ),
        BenchmarkScore(
            benchmark="MMMU",
            model="qwen3.5-122b-a10b",
            score=83.9,
            by="maker",
            like_for_like=False,
            remark="Sonnet's is MMMU-Pro",
            source=SOURCE,
        ),
        BenchmarkScore(
            benchmark="MMMU", model="claude-sonnet-4.6", score=74.5, by="third_party", source=SOURCE
        ),
        BenchmarkScore(benchmark="BFCL-v4", model="qwen3.5-122b-a10b", score=72.2, by="maker", source=SOURCE),
    ),
    costs_per_task=(
        CostPerTask(
            benchmark="AA Index v4.1",
            model="claude-sonnet-4.6",
            usd_per_task=1.2182,
            score=48.4,
            source=SOURCE,
        ),
    ),
    assumptions={row.id: row for row in ASSUMPTIONS},
    calibrations={},
    digest="0" * 64,
    newest_fact=DAY,
)


def estimate(value: float, spread: float = 0.2) -> Estimate:
    """A modelled figure with a symmetric band."""
    return Estimate(
        value=value, low=value * (1 - spread), high=value * (1 + spread), basis="modelled", source="roofline"
    )


def plan(*, gpus: str = "2xH200", rate: float = 10.0, usd: float | None = 4.0) -> Plan:
    """Two H200 that carry ``rate`` requests a second."""
    node = parse_gpus(gpus, CATALOG.gpus)
    price = None if usd is None else GpuPriceRef(
        usd_per_gpu_hour=usd, provider="hyperstack", tier="on_demand", as_of="2026-11-23", source="by hand"
    )  # fmt: skip
    chosen = Candidate(
        checkpoint=CheckpointRef(
            id="fp8", repo_id="Qwen/Qwen3.5-122B-A10B-FP8", revision=None, quantization="fp8",
            disk_bytes=127_000_000_000,
        ),
        parallelism=Parallelism(tensor_parallel_size=2),
        engine_args=EngineArgs(
            max_model_len=262_144, max_num_seqs=256, max_num_batched_tokens=8192, gpu_memory_utilization=0.9
        ),
        vllm_argv=("vllm", "serve", "Qwen/Qwen3.5-122B-A10B-FP8", "--tensor-parallel-size", "2"),
        memory_per_gpu=MemoryBreakdown(
            total_bytes=150_754_820_096, usable_bytes=135_679_338_086, weights_bytes=63_000_000_000,
            activation_bytes=4_000_000_000, cudagraph_bytes=1_500_000_000, non_torch_bytes=2_000_000_000,
            kv_cache_bytes=65_179_338_086,
        ),
        kv_cache=KvCache(
            num_blocks=4000, block_size=1056, block_bytes=13_000_000, tokens=4_000_000,
            max_concurrency_at_max_model_len=15.2, bytes_per_token=12_288,
            state_bytes_per_sequence=70_000_000, state_blocks_per_sequence=4, reserved_blocks_per_sequence=4,
        ),
        estimate=SpeedEstimate(
            output_tokens_per_s=estimate(2110), input_tokens_per_s=estimate(11_550),
            requests_per_s=estimate(rate), ttft_ms=estimate(400), tpot_ms=estimate(20),
            concurrency=estimate(48), meets_slo=True, speed_of_light_fraction=0.4,
        ),
        usd_per_hour=None if usd is None else usd * node.gpu_count,
        usd_per_mtok_output=None,
        usd_per_mtok_blended=None,
        concurrency_at_workload=256,
        concurrency_at_max_model_len=15.2,
        notes=("prefix caching is on",),
    )  # fmt: skip
    return Plan(
        inputs=PlanInputs(
            node=node, workload="chat", workload_detail=CHAT, slo=CHAT.slo, objective="cost", pins=Pins(),
            concurrency=48, rate=None, gpu_price=price, catalog_digest=CATALOG.digest,
            newest_fact=DAY.isoformat(), vllm_version="0.33.0", qwenhost_version="0",
        ),
        chosen=chosen,
        alternatives=(),
        rejections=(),
    )  # fmt: skip


def spread(middle: float) -> Percentiles:
    """A distribution around a value."""
    return Percentiles(mean=middle, p50=middle, p90=middle * 1.5, p95=middle * 1.8, p99=middle * 2.5)


def run(*, simulated: bool = False, rate: float = 10.0, **changes: Any) -> Measurements:
    """A measured (or simulated) run of the chat workload."""
    made = Measurements(
        workload=MeasuredWorkload(id="chat", endpoint="chat", mean_input_tokens=1155, mean_output_tokens=211),
        load=Load(kind="closed", concurrency=48, duration_s=60.0),
        requests=RequestCounts(sent=600, completed=600, failed=0),
        output_tokens_per_s=2110.0,
        input_tokens_per_s=11_550.0,
        total_tokens_per_s=13_660.0,
        request_per_s=rate,
        ttft_ms=spread(420.0),
        tpot_ms=spread(21.0),
        itl_ms=spread(20.0),
        e2e_ms=spread(4800.0),
        goodput=Goodput(slo=CHAT.slo, requests_per_s=rate * 0.95, output_tokens_per_s=2000.0, fraction=0.95),
        send_lag_ms=Lag(p50=0.1, p99=0.5, max=1.0),
        server=Server(
            name="simulated" if simulated else "vllm",
            version="0.33.0",
            model="qwen3.5-122b-a10b",
            url="http://127.0.0.1:8000",
            simulated=simulated,
        ),
        started_at=NOON,
        machine={"cpu": "made by hand"},
        gpus="2x NVIDIA H200",
    )
    return msgspec.structs.replace(made, **changes)

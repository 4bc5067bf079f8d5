"""A plan as a value: its names and sums by hand, and what a file of one may hold."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo, Source, TokenStats, Workload
from qwenhost.node import Gpu, Node, node_from_json
from qwenhost.plan import (
    Candidate,
    CheckpointRef,
    EngineArgs,
    Estimate,
    Fallback,
    KvCache,
    MemoryBreakdown,
    Parallelism,
    Pins,
    Plan,
    PlanInputs,
    Rejection,
    SpeculativeConfig,
    SpeedEstimate,
    load_plan,
    plan_from_json,
    plan_to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ONE = Estimate(value=2.0, low=1.0, high=4.0, basis="modelled", bound="hbm", source="by hand")
POOL = KvCache(
    num_blocks=101, block_size=16, block_bytes=1024, tokens=1600, max_concurrency_at_max_model_len=1.0,
    bytes_per_token=64, state_bytes_per_sequence=3072, state_blocks_per_sequence=3,
    reserved_blocks_per_sequence=4,
)  # fmt: skip
ARGS = EngineArgs(max_model_len=4096, max_num_seqs=8, max_num_batched_tokens=2048, gpu_memory_utilization=0.9)
CANDIDATE = Candidate(
    checkpoint=CheckpointRef(id="fp8", repo_id="a/b", revision=None, quantization="fp8", disk_bytes=1),
    parallelism=Parallelism(tensor_parallel_size=2),
    engine_args=ARGS,
    memory_per_gpu=MemoryBreakdown(
        total_bytes=100, usable_bytes=90, weights_bytes=50, activation_bytes=5, cudagraph_bytes=3,
        non_torch_bytes=2, kv_cache_bytes=30,
    ),
    kv_cache=POOL,
    estimate=SpeedEstimate(
        output_tokens_per_s=ONE, input_tokens_per_s=ONE, requests_per_s=ONE, ttft_ms=ONE, tpot_ms=ONE,
        concurrency=ONE, meets_slo=False, speed_of_light_fraction=0.5,
    ),
    usd_per_hour=7.98, usd_per_mtok_output=None, usd_per_mtok_blended=None, concurrency_at_workload=8,
    concurrency_at_max_model_len=1.0,
)  # fmt: skip
NODE = Node(
    gpus=(Gpu(index=0, name="A", spec=None, memory_total_bytes=100, compute_capability=9.0),),
    interconnect="none", origin="described", description="1x A",
)  # fmt: skip
PLAN = Plan(
    inputs=PlanInputs(
        node=NODE, workload="chat", slo=Slo(ttft_ms=500.0), objective="cost", pins=Pins(max_num_seqs=8),
        workload_detail=Workload(
            id="chat", description="by hand", input_tokens=TokenStats(mean=10.0), slo=Slo(),
            output_tokens=TokenStats(mean=5.0), source=Source(where="here", as_of=dt.date(2026, 11, 24)),
        ),
        concurrency=None, rate=1.5, gpu_price=None, catalog_digest="d", newest_fact="2026-11-24",
        vllm_version="0.33.0", qwenhost_version="0",
    ),
    chosen=CANDIDATE,
    alternatives=(),
    rejections=(Rejection(checkpoint="bf16", parallelism="TP1", rule="weights_do_not_fit", message="no"),),
    fallbacks=(Fallback(trigger="out_of_memory", candidate=CANDIDATE, change="half the sequences"),),
)  # fmt: skip


def changed(path: str, value: Any) -> bytes:
    """The plan's file with what stands at ``path`` (``chosen.kv_cache.tokens``) set to ``value``."""
    document = json.loads(plan_to_json(PLAN))
    *way, last = (int(word) if word.isdecimal() else word for word in path.split("."))
    place = document
    for word in way:
        place = place[word]
    place[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("sizes", "label", "engine", "world", "groups"),
    [
        ({}, "TP1", 1, 1, 1),
        ({"tensor_parallel_size": 2}, "TP2", 2, 2, 1),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 4}, "TP2 PP4", 8, 8, 1),
        # decode context parallelism shares the ranks of tensor parallelism: no GPU more
        ({"tensor_parallel_size": 4, "decode_context_parallel_size": 2}, "TP4 DCP2", 4, 4, 1),
        ({"data_parallel_size": 8, "enable_expert_parallel": True}, "TP1 DP8 EP", 8, 8, 8),
        ({"tensor_parallel_size": 2, "replicas": 4}, "4x TP2", 2, 8, 4),
        (
            {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 2,
             "decode_context_parallel_size": 2, "enable_expert_parallel": True, "replicas": 3},
            "3x TP2 PP2 DCP2 DP2 EP", 8, 24, 6,
        ),
    ],
)  # fmt: skip
def test_a_layouts_name_and_gpus(
    sizes: dict[str, Any], label: str, engine: int, world: int, groups: int
) -> None:
    """Only what differs from one is said; every data-parallel rank holds requests of its own."""
    layout = Parallelism(**sizes)
    assert layout.label == label
    assert (layout.engine_gpus, layout.world_size, layout.serving_groups) == (engine, world, groups)


@pytest.mark.parametrize(
    ("args", "tokens", "label"),
    [
        ({}, 0, "fp8 TP2, 4096 ctx, kv auto"),
        ({"kv_cache_dtype": "fp8"}, 0, "fp8 TP2, 4096 ctx, kv fp8"),
        (
            {"speculative_config": SpeculativeConfig(num_speculative_tokens=3)},
            3,
            "fp8 TP2, 4096 ctx, kv auto, MTP 3",
        ),
    ],
)
def test_a_candidates_name(args: dict[str, Any], tokens: int, label: str) -> None:
    """Weights, layout, context, cache; drafts only where there are some."""
    one = msgspec.structs.replace(CANDIDATE, engine_args=msgspec.structs.replace(ARGS, **args))
    assert one.label == label
    assert one.engine_args.num_speculative_tokens == tokens


@pytest.mark.parametrize(
    ("tokens", "ranks", "blocks", "at_once"),
    [
        # 100 blocks to give, 3 of state to each request
        (1, 1, 1 + 3, 25),
        (16, 1, 1 + 3, 25),
        (17, 1, 2 + 3, 20),
        (16 * 97, 1, 97 + 3, 1),
        (16 * 97 + 1, 1, 98 + 3, 0),  # one block too many: not even one
        # two ranks hold 32 tokens in a block of each
        (32, 2, 1 + 3, 25),
        (33, 2, 2 + 3, 20),
        (0, 1, 3, 33),
    ],
)
def test_requests_in_the_pool(tokens: int, ranks: int, blocks: int, at_once: int) -> None:
    """A block begun is a block held, and vLLM keeps one for itself."""
    pool = msgspec.structs.replace(POOL, context_parallel_size=ranks)
    assert pool.blocks_for(tokens) == blocks
    assert pool.concurrency_at(tokens) == at_once


@pytest.mark.parametrize("blocks", [0, 1])
def test_no_pool_holds_no_request(blocks: int) -> None:
    """Nor fewer than none, where the pool has not even vLLM's own block."""
    assert msgspec.structs.replace(POOL, num_blocks=blocks).concurrency_at(1) == 0


@pytest.mark.parametrize(("ranks", "unit", "expected"), [(1, None, 16), (2, None, 32), (1, 8, 8), (2, 8, 8)])
def test_where_prefix_hits_end(ranks: int, unit: int | None, expected: int) -> None:
    pool = msgspec.structs.replace(POOL, context_parallel_size=ranks, prefix_match_unit=unit)
    assert pool.hit_tokens == expected


@given(
    tokens=st.integers(1, 10**6), more=st.integers(0, 10**4), blocks=st.integers(1, 10**5),
    size=st.integers(1, 4096), state=st.integers(0, 12),
)  # fmt: skip
@settings(max_examples=40)
def test_the_pool_is_never_overbooked(tokens: int, more: int, blocks: int, size: int, state: int) -> None:
    """What runs at once fits beside vLLM's block, one more would not, and longer requests are never more."""
    pool = msgspec.structs.replace(POOL, num_blocks=blocks, block_size=size, state_blocks_per_sequence=state)
    at_once = pool.concurrency_at(tokens)
    assert at_once * pool.blocks_for(tokens) <= blocks - 1
    assert (at_once + 1) * pool.blocks_for(tokens) > blocks - 1
    assert pool.concurrency_at(tokens + more) <= at_once
    assert pool.blocks_for(tokens) * size >= tokens + state * size


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    """Every value, and the same bytes again."""
    path = tmp_path / "plan.json"
    path.write_bytes(plan_to_json(PLAN))
    assert load_plan(path) == PLAN
    assert plan_to_json(load_plan(path)) == path.read_bytes()
    assert plan_from_json(path.read_bytes()) == PLAN


def test_the_contracts_keys_are_there() -> None:
    """In this order: people read the file from the top."""
    document = json.loads(plan_to_json(PLAN))
    assert list(document) == ["schema", "inputs", "chosen", "alternatives", "rejections", "fallbacks"]
    assert document["schema"] == "qwenhost.plan/1"
    assert document["inputs"]["workload_detail"]["source"]["as_of"] == "2026-11-24"
    assert document["chosen"]["estimate"]["ttft_ms"] == {
        "value": 2.0, "low": 1.0, "high": 4.0, "basis": "modelled", "bound": "hbm", "source": "by hand",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("chosen.parallelism.tensor_parallel_size", 0, "$.chosen.parallelism.tensor_parallel_size"),
        ("chosen.parallelism.replicas", -1, "$.chosen.parallelism.replicas"),
        ("chosen.parallelism.pipeline_parallel_size", 1.5, "$.chosen.parallelism.pipeline_parallel_size"),
        ("chosen.kv_cache.tokens", "many", "$.chosen.kv_cache.tokens"),
        ("chosen.estimate.ttft_ms.basis", "guessed", "$.chosen.estimate.ttft_ms.basis"),
        ("chosen.estimate.ttft_ms.bound", "luck", "$.chosen.estimate.ttft_ms.bound"),
        ("chosen.engine_args.gdn_prefill_backend", "cuda", "$.chosen.engine_args.gdn_prefill_backend"),
        ("inputs.objective", "speed", "$.inputs.objective"),
        ("inputs.method", "guess", "$.inputs.method"),
        ("inputs.workload_detail.source.as_of", "2026-02-30", "$.inputs.workload_detail.source.as_of"),
        ("inputs.node.interconnect", "ethernet", "$.inputs.node.interconnect"),
        ("rejections.0.rule", None, "$.rejections[0].rule"),
        ("fallbacks.0.trigger", "bad_mood", "$.fallbacks[0].trigger"),
        ("chosen.vllm_argv", "vllm serve", "$.chosen.vllm_argv"),
        ("chosen.colour", "red", "unknown field `colour`"),
        ("chosen.usd_per_hour", 1e21, "number beyond 1e+20 at `$.chosen.usd_per_hour`"),
        ("schema", "qwenhost.plan/2", "schema is 'qwenhost.plan/2', expected 'qwenhost.plan/1'"),
        ("schema", "qwenhost.node/1", "schema is 'qwenhost.node/1', expected 'qwenhost.plan/1'"),
    ],
)
def test_a_spoilt_plan_is_refused_by_its_key(path: str, value: Any, said: str) -> None:
    """With the file's name, and how to get a good one."""
    with pytest.raises(BadInputError) as caught:
        plan_from_json(changed(path, value), name="mine.json")
    assert caught.value.message.startswith("mine.json: ")
    assert said in caught.value.message
    assert caught.value.remedy.endswith("Make a plan with: qwenhost plan --save plan.json")


@pytest.mark.parametrize(
    ("key", "said"),
    [(key, f"missing required field `{key}`") for key in ("inputs", "chosen", "alternatives", "rejections")],
)
def test_every_part_of_a_plan_is_needed(key: str, said: str) -> None:
    """Fallbacks alone came later and may be left out."""
    document = json.loads(plan_to_json(PLAN))
    del document[key]
    with pytest.raises(BadInputError, match=said):
        plan_from_json(json.dumps(document).encode())
    document = json.loads(plan_to_json(PLAN))
    del document["fallbacks"]
    assert plan_from_json(json.dumps(document).encode()).fallbacks == ()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b""), "not a plan"),
        (lambda path: path.write_bytes(plan_to_json(PLAN)[:-20]), "not a plan"),
    ],
    ids=["none", "a folder", "empty", "cut off"],
)
def test_a_file_that_is_no_plan(tmp_path: Path, make: Callable[[Path], Any], said: str) -> None:
    path = tmp_path / "plan.json"
    make(path)
    with pytest.raises(BadInputError, match=f"{path}: {said}") as caught:
        load_plan(path)
    assert caught.value.exit_code == 2
    assert "qwenhost plan --save" in caught.value.remedy


def test_a_node_and_a_plan_are_not_taken_for_one_another() -> None:
    """Each names what it found and what it wants."""
    with pytest.raises(BadInputError, match=r"schema is 'qwenhost.plan/1', expected 'qwenhost.node/1'"):
        node_from_json(plan_to_json(PLAN))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        # each ended in a division by zero, an empty range or a logarithm of nothing, once it was used
        ("chosen.kv_cache.block_size", 0, ">= 1"),
        ("chosen.kv_cache.context_parallel_size", 0, ">= 1"),
        ("chosen.kv_cache.prefix_match_unit", 0, ">= 1"),
        ("chosen.kv_cache.num_blocks", -1, ">= 0"),
        ("chosen.kv_cache.state_blocks_per_sequence", -3, ">= 0"),
        ("chosen.engine_args.max_model_len", 0, ">= 1"),
        ("chosen.engine_args.max_num_seqs", 0, ">= 1"),
        ("chosen.engine_args.max_num_batched_tokens", -1, ">= 1"),
        ("chosen.engine_args.gpu_memory_utilization", 1.01, "<= 1.0"),
        ("chosen.engine_args.gpu_memory_utilization", 0, "> 0.0"),
        ("inputs.workload_detail.input_tokens.mean", 0, "> 0.0"),
        ("inputs.workload_detail.output_tokens.p99", -1, "> 0.0"),
        ("inputs.workload_detail.prefix_hit_1h", 1.5, "<= 1.0"),
        ("inputs.workload_detail.mean_over_peak", 0, "> 0.0"),
        ("inputs.slo.percentile", 150, "<= 100.0"),
        ("inputs.concurrency", 0, ">= 1"),
        ("inputs.rate", -0.1, "> 0.0"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_before_it_is_used(path: str, value: float, said: str) -> None:
    """By its key and the limit it breaks."""
    with pytest.raises(BadInputError) as caught:
        plan_from_json(changed(path, value))
    assert f"{said} - at `$.{path}`" in caught.value.message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("chosen.kv_cache.num_blocks", 0),
        ("chosen.kv_cache.state_blocks_per_sequence", 0),
        ("chosen.kv_cache.prefix_match_unit", None),
        ("chosen.engine_args.gpu_memory_utilization", 1.0),
        ("inputs.workload_detail.prefix_hit_1h", 0.0),
        ("inputs.workload_detail.thinking_share", 1.0),
        ("inputs.slo.percentile", 100.0),
        ("inputs.concurrency", 1),
        ("chosen.memory_per_gpu.kv_cache_bytes", -(2**30)),  # where the model does not fit
    ],
)
def test_a_figure_at_its_limit_is_taken(path: str, value: Any) -> None:
    document: Any = json.loads(plan_to_json(plan_from_json(changed(path, value))))
    for word in path.split("."):
        document = document[word]
    assert document == value

"""The planner's cache arithmetic equals vLLM's own code, exactly, for every drawn combination."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from e2e import engine_env, oracles
from qwenhost.planner.cache import BlockLayout, CacheOptions, block_layout
from qwenhost.planner.rules import runs_flashinfer_gdn
from qwenhost.profiles import load_catalog
from qwenhost.units import GIB

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
ARCHITECTURES = ("Qwen3.5-122B-A10B", "Qwen3.5-35B-A3B", "Qwen3.5-397B-A17B")
SEED = 20261123
# Three starts of each; 0.32 is the release that the engine is built from.
ENGINES = {"0.33.0": 110, "0.32.0": 30}
NATIVE = 262144
CUDA_OF_VLLM_033 = "13.0"
GPUS = ("a100-80gb", "rtx-3090", "l40s", "h100-80gb", "b200", "b300", "rtx-pro-6000", "gb10")

Case = dict[str, Any]


class Start(NamedTuple):
    """One start-up: vLLM's release, the engine, its cache memory per GPU, and vLLM's answer."""

    release: str
    case: Case
    available_bytes: int
    theirs: dict[str, Any]


def draw(rng: random.Random, catalog: Catalog) -> Case:
    """One engine: a model on so many GPUs of one kind, started three times."""
    gpu = catalog.gpus[rng.choice(GPUS)]
    tp = rng.choice([1, 2, 4, 8, 16])
    return {
        "config": str(CONFIGS / f"{rng.choice(ARCHITECTURES).lower()}.json"),
        "gpu": gpu.id,
        "compute_capability": str(gpu.compute_capability),
        "gdn_prefill_backend": rng.choice([None, None, "triton", "flashinfer"]),
        "tensor_parallel_size": tp,
        # vLLM allows it up to the copies of a KV head; the models have two heads.
        "decode_context_parallel_size": rng.choice([1, 1, max(1, tp // 2), max(1, tp // 4)]),
        "pipeline_parallel_size": rng.choice([1, 1, 1, 2, 4]),
        "kv_cache_dtype": rng.choice(["auto", "bfloat16", "fp8", "fp8_e4m3"]),
        "mamba_ssm_cache_dtype": rng.choice(["auto", "auto", "float32", "bfloat16", "float16"]),
        "enable_prefix_caching": rng.random() < 0.6,
        "num_speculative_tokens": rng.choice([0, 0, 1, 2, 3]),
        # Ample, about what one request needs, and too little more often than not.
        "available_bytes": [
            rng.randint(GIB, 120 * GIB),
            rng.randint(GIB // 2, 8 * GIB),
            rng.randint(1, 2 * GIB),
        ],
        "max_model_len": rng.choice([-1, 4096, 32768, 131072, 262144, rng.randint(4096, 262144)]),
    }


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Our facts."""
    return load_catalog()


@pytest.fixture(scope="module", params=ENGINES)
def starts(request: pytest.FixtureRequest, catalog: Catalog) -> list[Start]:
    """The same draws on every machine, with what vLLM says; one process, as importing takes longest."""
    release: str = request.param
    rng = random.Random(SEED)  # noqa: S311 - not a secret
    cases = [draw(rng, catalog) for _ in range(ENGINES[release])]
    answers = oracles.ask("kv_oracle.py", cases, engine_release=release == engine_env.VLLM_VERSION)
    return [
        Start(release, case, available, theirs)
        for case, found in zip(cases, answers, strict=True)
        for available, theirs in zip(case["available_bytes"], found, strict=True)
    ]


def layout_of(start: Start, catalog: Catalog) -> BlockLayout:
    """Our arithmetic for the engine."""
    case = start.case
    name = Path(case["config"]).stem
    architecture = next(row for row in catalog.architectures.values() if row.id.lower() == name)
    return block_layout(
        architecture,
        CacheOptions(
            tensor_parallel_size=case["tensor_parallel_size"],
            pipeline_parallel_size=case["pipeline_parallel_size"],
            decode_context_parallel_size=case["decode_context_parallel_size"],
            kv_cache_dtype=case["kv_cache_dtype"],
            mamba_ssm_cache_dtype=case["mamba_ssm_cache_dtype"],
            num_speculative_tokens=case["num_speculative_tokens"],
            enable_prefix_caching=case["enable_prefix_caching"],
            flashinfer_gdn=runs_flashinfer_gdn(
                catalog.gpus[case["gpu"]], case["gdn_prefill_backend"], CUDA_OF_VLLM_033
            ),
            vllm_version=start.release,
        ),
    )


def ours(start: Start, catalog: Catalog) -> dict[str, Any]:
    """Our answer, in the oracle's words."""
    layout, asked = layout_of(start, catalog), start.case["max_model_len"]
    longest = layout.max_model_len(start.available_bytes)
    length = min(longest, NATIVE) if asked == -1 else asked
    geometry = {
        "block_size": layout.block_size,
        "page_bytes": layout.page_bytes,
        "block_bytes": layout.block_bytes,
        "starts": 0 < length <= longest,
    }
    if not geometry["starts"]:
        return geometry
    pool = layout.pool(start.available_bytes, length)
    return geometry | {
        "max_model_len": length,
        "num_blocks": pool.num_blocks,
        "tokens": pool.tokens,
        "max_concurrency": pool.max_concurrency_at_max_model_len,
        "blocks_per_request": layout.blocks_charged(length),
        "max_num_seqs": pool.num_blocks,
    }


def test_every_start_equals_vllm(starts: list[Start], catalog: Catalog) -> None:
    """Block size, pages, blocks, tokens, concurrency, charge, start or refusal: equal, to the last bit."""
    differences = []
    for start in starts:
        mine, theirs = ours(start, catalog), start.theirs
        wrong = {key: (value, theirs.get(key)) for key, value in mine.items() if theirs.get(key) != value}
        if wrong:
            differences.append({"start": start, "ours and vLLM's": wrong})
    assert not differences, f"{len(differences)} differ, such as {json.dumps(differences[:3], indent=1)}"


def test_longest_start_equals_the_length_vllm_recommends(starts: list[Start], catalog: Catalog) -> None:
    """Where a length does not fit, our longest is the one that vLLM's refusal names.

    With a draft layer on the last pipeline stage, vLLM names what fits the first stage that refuses, which
    the last may refuse again; ours fits all.
    """
    refused = [s for s in starts if s.theirs.get("refused_by") == "cache" and s.case["max_model_len"] != -1]
    assert len(refused) >= len(starts) // 20
    for start in refused:
        longest = layout_of(start, catalog).max_model_len(start.available_bytes)
        named = start.theirs["estimated_max_model_len"]
        stages_differ = start.case["pipeline_parallel_size"] > 1 and start.case["num_speculative_tokens"] > 0
        assert longest <= named if stages_differ else longest == named


def test_the_draws_cover_what_they_should(starts: list[Start], catalog: Catalog) -> None:
    """Starts and refusals of every kind; none refused for a reason other than cache memory."""
    assert {start.theirs["starts"] for start in starts} == {True, False}
    assert not [start for start in starts if start.theirs.get("refused_by") == "config"]
    many = [draw(random.Random(seed), catalog) for seed in range(200)]  # noqa: S311
    for key in (
        "config",
        "gpu",
        "decode_context_parallel_size",
        "tensor_parallel_size",
        "num_speculative_tokens",
    ):
        assert {start.case[key] for start in starts} == {case[key] for case in many}

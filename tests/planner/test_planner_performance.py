"""Step times: the roofline's parts by hand, and points that were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.plan import Parallelism, StepShape
from qwenhost.planner.constants import Constants
from qwenhost.planner.experts import DistinctExperts
from qwenhost.planner.links import Collective
from qwenhost.planner.performance import StepModel, StepOptions

if TYPE_CHECKING:
    from qwenhost.facts import Catalog


def model(
    catalog: Catalog, gpu: str, name: str, *, link: str | None = None, layout: Any = None, **options: Any
) -> StepModel:
    spec, checkpoint = catalog.gpus[gpu], catalog.checkpoints[name]
    architecture = catalog.architectures[checkpoint.architecture]
    return StepModel(
        architecture=architecture,
        checkpoint=checkpoint,
        parameters=architecture.parameters,
        formats={g: catalog.formats[checkpoint.format_of(g)] for g in architecture.parameters},
        parallelism=layout or Parallelism(),
        options=StepOptions(**options),
        spec=spec,
        constants=Constants(spec, catalog.calibrations),
        interconnect=link or spec.link,
    )


def decode(users: int, context: int = 1024) -> StepShape:
    return StepShape(decode_sequences=users, decode_context_tokens=users * context)


@pytest.mark.parametrize(
    ("decay", "expected"), [(0.0, (8, 102, 222, 256)), (3.64, (8, 87, 171, 235))], ids=["uniform", "skewed"]
)
def test_distinct_experts(decay: float, expected: tuple[int, ...]) -> None:
    """8 of 256 experts for 1, 16, 64 and 256 tokens; 16 uniform tokens hit 256 * (1 - (31/32)^16) = 102."""
    got = tuple(round(DistinctExperts(256, 8, decay)(tokens)) for tokens in (1, 16, 64, 256))
    assert got == expected


def test_eager_mode_takes_the_longer_of_host_and_gpu(catalog: Catalog) -> None:
    """48 layers at 1.46 ms of launching hide a small step (70 ms + nothing), not a long prompt."""
    eager, graphs = (model(catalog, "rtx-pro-6000", "nvfp4-sehyo", enforce_eager=on) for on in (True, False))
    assert eager.seconds(decode(1)) == pytest.approx(48 * 1.46e-3)
    assert eager.seconds(decode(16)) == eager.seconds(decode(1))
    prompt = StepShape(prefill_tokens=8192)
    assert eager.seconds(prompt) == graphs.seconds(prompt)


def test_distinct_experts_never_exceed_all() -> None:
    """However long the prompt."""
    assert DistinctExperts(256, 8, 3.64)(10**6) <= 256


def test_one_token_reads_the_active_weights(catalog: Catalog) -> None:
    """FP8 at one request reads 9.8 GB of weights and 0.33 GB of state and context: 2.1 ms on one H200."""
    cost = model(catalog, "h200", "fp8").cost(decode(1))
    assert cost.ideal_s * 4.8e12 == pytest.approx(9.83e9 + 36 * 2 * 4.27e6 + 1024 * 24576, rel=0.05)


def test_parts_add_up_and_name_the_largest(catalog: Catalog) -> None:
    """Seconds are the sum of the four; a large batch is bound by memory, a prompt by arithmetic."""
    h200 = model(catalog, "h200", "fp8")
    cost = h200.cost(decode(64))
    assert cost.seconds == cost.hbm_s + cost.flops_s + cost.link_s + cost.host_s
    assert cost.bound == "hbm"
    assert h200.cost(StepShape(prefill_tokens=8192)).bound == "flops"
    assert h200.seconds(StepShape()) == 0.0


@pytest.mark.parametrize("name", ["bf16", "fp8", "gptq-int4", "nvfp4", "int4-autoround"])
@pytest.mark.parametrize("gpu", ["h200", "b200", "a100-80gb", "rtx-pro-6000", "l40s", "gb10", "mi300x"])
def test_more_work_takes_longer(catalog: Catalog, gpu: str, name: str) -> None:
    """More sequences, longer contexts and longer prompts never take less time, and none is ideal."""
    one = model(catalog, gpu, name)
    times = [one.seconds(decode(users)) for users in (1, 2, 8, 64, 256)]
    assert times == sorted(times)
    assert one.seconds(decode(64, 8192)) > one.seconds(decode(64, 1024))
    assert one.seconds(StepShape(prefill_tokens=8192)) > one.seconds(StepShape(prefill_tokens=1024))
    assert one.cost(decode(64)).ideal_s < one.seconds(decode(64))


def test_chunks_of_several_prompts_attend_only_to_their_own(catalog: Catalog) -> None:
    """Eight prompts of 1,024 tokens in a step cost less attention than one of 8,192."""
    h200 = model(catalog, "h200", "fp8")
    whole = h200.seconds(StepShape(prefill_tokens=8192))
    assert h200.seconds(StepShape(prefill_tokens=8192, prefill_sequences=8)) < whole
    assert h200.seconds(StepShape(prefill_tokens=8192, prefill_context_tokens=65536)) > whole


# Tokens per second by requests in flight, decode at short context: two RTX PRO 6000, NVFP4, TP2, vLLM
# 0.19.1 (github.com/Visual-Synthesizer/rtx6kpro), and one GB10, AutoRound (warpcore-benchmarks).
RTX_PRO = {1: 113.5, 2: 182.8, 4: 333.0, 8: 575.0, 16: 961.7, 32: 1472.0, 64: 2177.4, 128: 3242.0}
MEASURED = {
    ("rtx-pro-6000", "nvfp4", 2): RTX_PRO,
    ("gb10", "int4-autoround", 1): {1: 26.9, 192: 227.7},
    ("gb10", "nvfp4", 1): {1: 17.0, 2: 33.3, 4: 55.2},
}


@pytest.mark.parametrize(("case", "points"), MEASURED.items(), ids=str)
def test_measured_decode_lies_in_the_stated_band(
    catalog: Catalog, case: tuple[str, str, int], points: dict[int, float]
) -> None:
    """The band of the calibration covers what strangers measured."""
    gpu, name, tp = case
    one = model(catalog, gpu, name, layout=Parallelism(tensor_parallel_size=tp))
    row = Constants(catalog.gpus[gpu], catalog.calibrations).calibration
    for users, measured in points.items():
        predicted = users / one.seconds(decode(users, 600))
        assert predicted * (1 - row.relative_band_low) <= measured <= predicted * (1 + row.relative_band_high)


def test_drafts_give_the_published_acceptance(catalog: Catalog) -> None:
    """Three drafts: 2.937 tokens per step (NVIDIA's figure for H200); none: one."""
    assert model(catalog, "h200", "fp8").tokens_per_step == 1
    assert model(catalog, "h200", "fp8", num_speculative_tokens=3).tokens_per_step == pytest.approx(2.937)


def test_a_longer_step_for_drafts_state_and_eager_mode(catalog: Catalog) -> None:
    """Drafts, a 32-bit state and the lack of graphs each lengthen a step."""
    plain = model(catalog, "h200", "fp8").seconds(decode(64))
    assert model(catalog, "h200", "fp8", num_speculative_tokens=1).seconds(decode(64)) > plain
    assert model(catalog, "h200", "fp8", mamba_ssm_cache_dtype="float16").seconds(decode(64)) < plain
    assert model(catalog, "h200", "fp8", enforce_eager=True).seconds(decode(1)) > 0.05


def test_pipeline_advances_every_sequence_once(catalog: Catalog) -> None:
    """Two stages on a large batch: more tokens per second than one GPU, less than twice as many."""
    single = model(catalog, "b200", "fp8")
    staged = model(catalog, "b200", "fp8", layout=Parallelism(pipeline_parallel_size=2))
    gain = (512 / staged.seconds(decode(512))) / (512 / single.seconds(decode(512)))
    assert 1 < gain < 2


def test_collectives(catalog: Catalog) -> None:
    """t0, then 2 (w-1)/w of the bytes at the link's efficiency; one rank is free."""
    spec = catalog.gpus["h200"]
    link = Collective(spec, Constants(spec, catalog.calibrations), "nvlink")
    assert link.all_reduce(1e9, 1) == 0
    # 4.8 us + 2 * 3/4 * 1 GB / (450 GB/s * 0.65)
    assert link.all_reduce(1e9, 4) == pytest.approx(4.8e-6 + 1.5e9 / (4.5e11 * 0.65))
    over_pcie = Collective(spec, Constants(spec, catalog.calibrations), "pcie")
    assert over_pcie.all_reduce(0, 4) == pytest.approx(2e-5)

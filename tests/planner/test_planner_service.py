"""Throughput and latency from step times: identities that any queue keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qwenhost.facts import Slo, TokenStats
from qwenhost.plan import Parallelism, StepShape
from qwenhost.planner.constants import Constants
from qwenhost.planner.performance import StepModel, StepOptions
from qwenhost.planner.service import (
    Demand,
    Load,
    Service,
    closed_loop,
    demand_of,
    open_loop,
    prefix_hit,
    prompt_tail,
    step_times,
)

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

CHAT = Demand(1155.0, 0.0, 211.0)


@pytest.fixture(scope="module")
def h200(catalog: Catalog) -> StepModel:
    return step_model(catalog)


def step_model(catalog: Catalog, gpu: str = "h200", **options: Any) -> StepModel:
    spec, checkpoint = catalog.gpus[gpu], catalog.checkpoints["fp8"]
    architecture = catalog.architectures[checkpoint.architecture]
    return StepModel(
        architecture=architecture,
        checkpoint=checkpoint,
        parameters=architecture.parameters,
        formats={g: catalog.formats[checkpoint.format_of(g)] for g in architecture.parameters},
        parallelism=Parallelism(tensor_parallel_size=2),
        options=StepOptions(**options),
        spec=spec,
        constants=Constants(spec, catalog.calibrations),
        interconnect=spec.link,
    )


def users(count: float) -> Load:
    return Load(count, 8192)


def end_to_end_s(service: Service, demand: Demand) -> float:
    return service.ttft_s + service.tpot_s * (demand.output_tokens - 1)


@pytest.mark.parametrize("count", [1, 4, 32, 200])
def test_littles_law(h200: StepModel, count: int) -> None:
    """Users in flight are the request rate times the time each spends."""
    service = closed_loop(h200, CHAT, users(count))
    assert service.requests_per_s * end_to_end_s(service, CHAT) == pytest.approx(count, rel=1e-6)


def test_one_user_waits_for_nobody(h200: StepModel) -> None:
    """Alone, the first token takes the prompt and a step; each further token a step."""
    service = closed_loop(h200, CHAT, users(1))
    decode = h200.seconds(StepShape(decode_sequences=1, decode_context_tokens=1260))
    assert service.tpot_s == pytest.approx(decode, rel=0.02)
    prompt = h200.seconds(StepShape(prefill_tokens=1155))
    assert service.ttft_s == pytest.approx(prompt, rel=0.15)


@pytest.mark.parametrize(("prompt", "measured_s"), [(1024, 0.10), (32768, 2.1), (131072, 12.2)])
def test_measured_first_tokens(catalog: Catalog, prompt: int, measured_s: float) -> None:
    """FP8 on two RTX PRO 6000 with vLLM: the stated prefill band, 35 %, covers what was measured."""
    model = step_model(catalog, gpu="rtx-pro-6000")
    predicted = closed_loop(model, Demand(float(prompt), 0.0, 100.0), users(1)).ttft_s
    assert predicted * 0.65 <= measured_s <= predicted * 1.35


def test_more_users_more_tokens_and_longer_waits(h200: StepModel) -> None:
    """Throughput and both latencies grow with users."""
    found = [closed_loop(h200, CHAT, users(n)) for n in (1, 8, 64, 256)]
    for name in ("requests_per_s", "ttft_s", "tpot_s"):
        values = [getattr(service, name) for service in found]
        assert values == sorted(values)


def test_cached_prompts_are_quicker(h200: StepModel) -> None:
    """Nine tenths of a long prompt in the cache: a first token far sooner, more requests per second."""
    cold, warm = Demand(100_000.0, 0.0, 400.0), Demand(100_000.0, 90_000.0, 400.0)
    assert closed_loop(h200, warm, users(8)).ttft_s < closed_loop(h200, cold, users(8)).ttft_s / 3
    assert closed_loop(h200, warm, users(8)).requests_per_s > closed_loop(h200, cold, users(8)).requests_per_s


def test_open_loop_carries_what_it_can(h200: StepModel) -> None:
    """A small rate is carried by few in flight (Little again); one above capacity is said to be too much."""
    light = open_loop(h200, CHAT, users(256), rate=2.0)
    assert (light.requests_per_s, light.overloaded) == (2.0, False)
    assert light.concurrency == pytest.approx(2.0 * end_to_end_s(light, CHAT), rel=0.02)
    most = closed_loop(h200, CHAT, users(256)).requests_per_s
    flooded = open_loop(h200, CHAT, users(256), rate=2 * most)
    assert flooded.overloaded
    assert flooded.requests_per_s == pytest.approx(most, rel=0.01)  # joining takes half a step less


def test_drafts_shorten_the_answer_of_one_user(catalog: Catalog, h200: StepModel) -> None:
    """With one draft the time per token falls by 1.17 to 1.6, the range published for this model."""
    plain = closed_loop(h200, CHAT, users(1)).tpot_s
    drafted = closed_loop(step_model(catalog, num_speculative_tokens=1), CHAT, users(1)).tpot_s
    assert 1.17 <= plain / drafted <= 1.6


def test_strain_is_the_worst_ratio() -> None:
    """200 ms of 100 and 10 ms of 20: twice the limit; no limits, no strain."""
    service = Service(1.0, ttft_s=0.2, tpot_s=0.01, concurrency=1.0, bound="hbm", ideal_fraction=0.5)
    assert service.strain(Slo(ttft_ms=100, tpot_ms=20), CHAT, tail=1.0) == pytest.approx(2.0)
    assert service.strain(Slo(ttft_ms=100, tpot_ms=20), CHAT, tail=1.5) == pytest.approx(3.0)
    assert service.strain(Slo(), CHAT, tail=1.0) == 0.0


def test_hits_end_at_a_block(catalog: Catalog) -> None:
    """Half a block of 2,000 tokens is lost on average; short prompts never hit; off is off."""
    chat = catalog.workloads["chat"]
    long = msgspec.structs.replace(chat, input_tokens=TokenStats(mean=10_000.0), prefix_hit_5m=0.5)
    assert demand_of(long, prefix_caching=True, block_size=2000).cached_tokens == 4000
    assert demand_of(long, prefix_caching=False, block_size=2000).cached_tokens == 0
    short = msgspec.structs.replace(long, input_tokens=TokenStats(mean=1000.0))
    assert demand_of(short, prefix_caching=True, block_size=2000).cached_tokens == 0
    assert prefix_hit(catalog.workloads["coding_agent"]) == 0.916
    assert prefix_hit(chat) == 0.0


def test_tail_of_prompts(catalog: Catalog) -> None:
    """Chat prompts at the 90th percentile are 2734 / 1155 of the mean; without percentiles it is 1."""
    assert prompt_tail(catalog.workloads["chat"]) == pytest.approx(2734 / 1155)
    assert prompt_tail(catalog.workloads["tool_agent"]) == 1.0


def test_joining_takes_two_steps_of_the_others(h200: StepModel) -> None:
    """A step is scheduled while another runs: beside another user, the first token comes two steps later."""
    short, one, two = Demand(16.0, 0.0, 2000.0), users(1), users(2)
    step = h200.seconds(StepShape(decode_sequences=2, decode_context_tokens=2032))
    later = closed_loop(h200, short, two).ttft_s - closed_loop(h200, short, one).ttft_s
    assert later == pytest.approx(2 * step, rel=0.1)


def test_prompts_alone_queue_at_one_server(h200: StepModel) -> None:
    """Answers of one token: all users but the one served wait, so each waits its turn of n prompts."""
    demand = Demand(4096.0, 0.0, 1.0)
    alone = closed_loop(h200, demand, users(1))
    crowd = closed_loop(h200, demand, users(16))
    assert crowd.ttft_s == pytest.approx(16 / crowd.requests_per_s, rel=1e-6)
    assert crowd.requests_per_s < 2 * alone.requests_per_s
    assert crowd.ttft_s > 8 * alone.ttft_s


def test_a_cycle_bears_every_others_prompt(h200: StepModel) -> None:
    """Between a user's first and last token the others' prompts pass: Z = D d + P (n - 1) Z / (T + Z)."""
    load = users(64)
    service = closed_loop(h200, CHAT, load)
    cycle = end_to_end_s(service, CHAT)
    decoding = service.tpot_s * (CHAT.output_tokens - 1)
    times = step_times(h200, CHAT, load, 64 * decoding / cycle)
    own = (CHAT.output_tokens - 1) * times.decode.seconds
    assert decoding == pytest.approx(own + times.prompt_s * 63 * decoding / cycle, rel=0.02)


def test_who_comes_at_random_meets_the_others(h200: StepModel) -> None:
    """At next to no load an open loop's latency is a lone user's; at more, a closed loop's of one more."""
    lone, idle = closed_loop(h200, CHAT, users(1)), open_loop(h200, CHAT, users(256), rate=1e-3)
    assert idle.tpot_s == pytest.approx(lone.tpot_s, rel=0.01)
    busy = open_loop(h200, CHAT, users(256), rate=8.0)
    same = closed_loop(h200, CHAT, users(busy.concurrency + 1))
    assert busy.tpot_s == pytest.approx(same.tpot_s, rel=0.01)

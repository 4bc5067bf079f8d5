"""Virtual time: against queueing theory, by hand, and from traces."""

from __future__ import annotations

import datetime as dt
import json
import random
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo, Source, TokenStats, Workload
from qwenhost.plan import StepShape
from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.engine import Request
from qwenhost.simulate.load import Arrival, Sizes, arrival_times, assumptions, drawn_requests
from qwenhost.simulate.tabulate import tabulated
from qwenhost.simulate.trace import read_trace
from qwenhost.simulate.virtual import Labels, Simulation, Simulator, summarise
from qwenhost.simulate.weighted import Weighted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def config(**changes: object) -> EngineConfig:
    """Room for everything, no prefix cache."""
    values: dict[str, object] = {
        "max_model_len": 4096, "max_num_seqs": 64, "max_num_batched_tokens": 4096, "num_blocks": 4001,
        "block_size": 16, "enable_prefix_caching": False,
    }  # fmt: skip
    return EngineConfig(**(values | changes))  # type: ignore[arg-type]


def one_second(shape: StepShape) -> float:
    """Every step takes a second."""
    assert shape.prefill_tokens or shape.decode_sequences
    return 1.0


def workload(**changes: object) -> Workload:
    """The Azure conversation sizes."""
    values: dict[str, object] = {
        "id": "chat",
        "description": "",
        "input_tokens": TokenStats(mean=1155, p50=1020, p90=2734, p99=4142),
        "output_tokens": TokenStats(mean=211, p50=129, p90=424, p99=601),
        "slo": Slo(ttft_ms=2000, tpot_ms=50),
        "source": Source(where="test", as_of=dt.date(2026, 11, 23)),
    }
    return Workload(**(values | changes))  # type: ignore[arg-type]


LABELS = Labels(engine="test", gpus="none", workload="test", seed=0)


def simulate_open(limits: EngineConfig, arrivals: Iterable[Arrival], slo: Slo | None = None) -> Simulation:
    """An open loop with one-second steps."""
    simulator = Simulator(limits, one_second, seed=0)
    simulator.open_loop(arrivals)
    return summarise(simulator, LABELS, {"kind": "open", "rate": 1.0}, slo, 0.0)


def simulate_closed(limits: EngineConfig, request: Request, users: int, count: int) -> Simulation:
    """A closed loop of equal requests with one-second steps."""
    simulator = Simulator(limits, one_second, seed=0)
    simulator.closed_loop(iter([request] * count), concurrency=users, count=count)
    return summarise(simulator, LABELS, {"kind": "closed", "concurrency": users}, None, 0.0)


class TestLoops:
    def test_a_queue_with_one_server_waits_as_theory_says(self) -> None:
        """M/D/1 at load 0.5: mean wait is rho / (2 (1 - rho)) = 0.5 services, so 1.5 s to the answer."""
        due = islice(arrival_times("poisson", 0.5, seed=1), 20_000)
        result = simulate_open(config(max_num_seqs=1), [Arrival(at, Request(1, 1)) for at in due])
        assert result.ttft_ms.mean == pytest.approx(1500, rel=0.03)
        assert result.e2e_ms == result.ttft_ms

    def test_an_open_loop_does_not_wait_for_the_engine(self) -> None:
        """Ten requests at once, one at a time, a second each: answers after 1, 2... 10 s."""
        result = simulate_open(config(max_num_seqs=1), [Arrival(0.0, Request(1, 1))] * 10)
        assert result.ttft_ms.mean == pytest.approx(5500)
        assert result.load.duration_s == 10.0
        assert result.request_per_s == 1.0

    def test_a_closed_loop_by_hand(self) -> None:
        """4 users, 3 tokens in 3 steps of a second: 4 tokens/s, 1 s to the first, 1 s per further token."""
        result = simulate_closed(config(), Request(5, 3), users=4, count=40)
        assert result.output_tokens_per_s == pytest.approx(4.0)
        assert (result.ttft_ms.p50, result.tpot_ms.p50, result.e2e_ms.p50) == (1000.0, 1000.0, 3000.0)
        assert result.itl_ms.mean == pytest.approx(1000.0)
        assert (result.running_mean, result.running_max) == (4.0, 4)

    def test_a_user_misses_the_step_that_follows_an_answer(self) -> None:
        """Two users: one is answered after step 2; step 3 runs without its next request, step 4 takes it."""
        simulator = Simulator(config(), one_second, seed=0)
        simulator.closed_loop(iter([Request(1, 9), Request(1, 2), Request(1, 2)]), concurrency=2, count=3)
        found = sorted((r.scheduled_s, r.first_token_s) for r in simulator.run.records)
        assert found == [(0.0, 1.0), (0.0, 1.0), (2.0, 4.0)]

    def test_ranks_share_the_users(self) -> None:
        """Two data-parallel ranks with two places each serve four users as one rank with four would."""
        limits = config(max_num_seqs=2, data_parallel_size=2)
        assert simulate_closed(limits, Request(5, 3), users=4, count=40).output_tokens_per_s == 4.0

    def test_an_arrival_goes_to_the_rank_with_less_to_do(self) -> None:
        """Two requests at once start together on two ranks of one place each."""
        limits = config(max_num_seqs=1, data_parallel_size=2)
        assert simulate_open(limits, [Arrival(0.0, Request(1, 2))] * 2).ttft_ms.mean == 1000.0

    def test_littles_law(self) -> None:
        """Mean requests in the engine = arrival rate x mean time there, within the waiting for a step."""
        requests = drawn_requests(workload(), config(), 3)
        due = islice(zip(arrival_times("constant", 0.05, 3), requests, strict=False), 300)
        result = simulate_open(config(), [Arrival(at, request) for at, request in due])
        e2e_s = (result.e2e_ms.mean or 0) / 1000
        assert result.running_mean == pytest.approx(result.request_per_s * e2e_s, rel=0.02)

    def test_what_never_fits_is_counted_as_refused(self) -> None:
        """A request above the context is vLLM's 400, and misses the service level."""
        arrivals = [Arrival(0.0, Request(4096, 1)), Arrival(0.0, Request(1, 1))]
        result = simulate_open(config(), arrivals, Slo(ttft_ms=5000))
        assert (result.requests.sent, result.requests.completed, result.requests.failed) == (2, 1, 1)
        assert result.requests.by_error == {"http_400": 1}
        assert result.goodput is not None
        assert result.goodput.fraction == 0.5

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 1000), st.integers(1, 3), st.floats(0.05, 3))
    def test_the_same_seed_gives_the_same_run(self, seed: int, ranks: int, rate: float) -> None:
        """Two runs agree in every figure but the time they took; all requests end, all tokens count."""

        def once() -> Simulation:
            limits = config(num_blocks=1200, data_parallel_size=ranks)
            requests = list(islice(drawn_requests(workload(), limits, seed), 40))
            simulator = Simulator(limits, one_second, seed=seed)
            times = arrival_times("poisson", rate, seed)
            simulator.open_loop(Arrival(at, r) for at, r in zip(times, requests, strict=False))
            result = summarise(simulator, LABELS, {"kind": "open"}, None, 0.0)
            tokens = result.output_tokens_per_s * result.load.duration_s
            assert tokens == pytest.approx(sum(request.output_tokens for request in requests))
            assert result.requests.completed == 40
            return msgspec.structs.replace(result, wall_s=0.0)

        assert once() == once()


class TestLoad:
    def test_sizes_keep_their_mean(self) -> None:
        """Drawn from mean, p50, p90 and p99, the mean is kept and the median is near."""
        sizes, rng = Sizes(TokenStats(mean=1000, p50=800, p90=1900)), random.Random(1)  # noqa: S311
        drawn = sorted(sizes.draw(rng) for _ in range(40_000))
        assert sum(drawn) / len(drawn) == pytest.approx(1000, rel=0.02)
        assert drawn[20_000] == pytest.approx(800, rel=0.1)

    def test_a_mean_alone_gives_equal_sizes(self) -> None:
        """Nothing is known of the spread, so there is none."""
        assert {Sizes(TokenStats(mean=12.4)).draw(random.Random(1)) for _ in range(9)} == {12}  # noqa: S311

    def test_constant_arrivals_are_evenly_spaced(self) -> None:
        """Four a second are a quarter of a second apart."""
        assert list(islice(arrival_times("constant", 4.0, 0), 4)) == [0.0, 0.25, 0.5, 0.75]

    def test_requests_stay_within_the_context(self) -> None:
        """Prompt and output together never exceed max_model_len."""
        drawn = islice(drawn_requests(workload(), config(max_model_len=500), 1), 500)
        assert max(request.prompt_tokens + request.output_tokens for request in drawn) == 500

    def test_a_cached_share_applies_where_caching_is_on(self) -> None:
        """A published hit rate of 50 % marks half of each prompt, and only with prefix caching."""
        half = workload(input_tokens=TokenStats(mean=100), prefix_hit_1h=0.5, prefix_hit_unbounded=0.9)
        assert next(drawn_requests(half, config(enable_prefix_caching=True), 0)).assumed_cached_tokens == 50
        assert next(drawn_requests(half, config(), 0)).assumed_cached_tokens == 0
        assert any("50.0% of each prompt" in line for line in assumptions(half))

    def test_weighted_percentiles(self) -> None:
        """Nine times 10 ms and once 1 s: p50 and p90 are 10 ms, p95 is 1 s, the mean 109 ms."""
        sample = Weighted()
        sample.add(0.010, 9)
        sample.add(1.0, 1)
        found = sample.percentiles_ms()
        assert (found.p50, found.p90, found.p95) == pytest.approx((10, 10, 1000))
        assert found.mean == pytest.approx(109)


class TestTabulated:
    @given(st.integers(1, 300), st.integers(0, 10**7))
    def test_a_linear_step_time_is_kept(self, sequences: int, context: int) -> None:
        """Between grid points a straight line is a straight line."""

        def line(shape: StepShape) -> float:
            return 0.01 + 1e-4 * shape.decode_sequences + 1e-9 * shape.decode_context_tokens

        shape = StepShape(decode_sequences=sequences, decode_context_tokens=context)
        assert tabulated(line)(shape) == pytest.approx(line(shape))

    def test_a_step_with_a_prompt_is_asked_for_itself(self) -> None:
        """No shape with prefill is remembered."""
        seen: list[StepShape] = []
        remember = tabulated(lambda shape: float(len(seen.append(shape) or seen)))  # type: ignore[func-returns-value]
        assert [remember(StepShape(prefill_tokens=5, decode_sequences=1)) for _ in range(2)] == [1.0, 2.0]


class TestTrace:
    def read(self, tmp_path: Path, text: str, block_size: int = 512) -> list[tuple[float, int, int]]:
        """A trace from text as (instant, prompt, output)."""
        path = tmp_path / "trace"
        path.write_text(text)
        found = read_trace(path, block_size=block_size)
        return [(a.at_s, a.request.prompt_tokens, a.request.output_tokens) for a in found]

    def test_our_own_lines(self, tmp_path: Path) -> None:
        """Sorted by time, the first at zero; ``timestamp`` will do for ``arrival_s``."""
        lines = [
            {"arrival_s": 12.5, "input_tokens": 3, "output_tokens": 4},
            {"timestamp": 10, "input_tokens": 1, "output_tokens": 2},
        ]
        text = "\n".join(map(json.dumps, lines))
        assert self.read(tmp_path, text) == [(0.0, 1, 2), (2.5, 3, 4)]

    def test_azure(self, tmp_path: Path) -> None:
        """Seven decimals of a second, with and without an offset."""
        text = (
            "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
            "2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.9799600,110,27\r\n"
        )
        assert self.read(tmp_path, text) == [(0.0, 4808, 10), (1.0, 110, 27)]
        later = (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01.509930+00:00,7,6\n"
        )
        assert self.read(tmp_path, later) == [(0.0, 2162, 5), (1.5, 7, 6)]

    def test_burstgpt(self, tmp_path: Path) -> None:
        """Seconds; failed requests have no response tokens and are left out."""
        text = (
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,10,0,10,API log\n"
            "118,ChatGPT,1087,230,1317,API log\n"
        )
        assert self.read(tmp_path, text) == [(0.0, 472, 18), (113.0, 1087, 230)]

    def test_mooncake_carries_its_prefixes_over(self, tmp_path: Path) -> None:
        """Blocks of 1,024 end in pieces 1 and 3 of 512 tokens; 2,560 tokens fill two of them."""
        path = tmp_path / "trace"
        row = {"timestamp": 3000, "input_length": 2560, "output_length": 7, "hash_ids": [11, 12, 13, 14, 15]}
        path.write_text(json.dumps(row))
        (arrival,) = read_trace(path, block_size=1024)
        assert arrival == Arrival(0.0, Request(2560, 7, 0, (12, 14)))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                '{"arrival_s": 0, "input_tokens": 1, "output_tokens": 1}\n{"arrival_s": 1}',
                "line 2: 'input_tokens'",
            ),
            ('{"arrival_s": 0, "input_tokens": 1, "output_tokens": 1}\n{"arr', "line 2: "),
            ("TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,1\n", "line 2: "),
            ("a,b\n1,2\n", "line 2: 'timestamp' is missing"),
            ("", "no request"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path: Path, text: str, message: str) -> None:
        """The file, the line, and what a line should look like."""
        with pytest.raises(BadInputError, match=message) as caught:
            self.read(tmp_path, text)
        assert "arrival_s" in caught.value.remedy

    def test_a_missing_file(self, tmp_path: Path) -> None:
        """Names the file."""
        with pytest.raises(BadInputError, match=r"nowhere\.csv"):
            read_trace(tmp_path / "nowhere.csv", block_size=16)

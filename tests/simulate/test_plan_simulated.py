"""``plan --method simulate``: steady figures that follow by hand, and a plan that keeps both figures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from fleets import engine_limits, one_second

from qwenhost.cli import plan_simulated
from qwenhost.cli.main import run
from qwenhost.facts import Slo
from qwenhost.node import parse_gpus
from qwenhost.plan import PlanRequest, load_plan
from qwenhost.planner import make_plan
from qwenhost.profiles import load_catalog
from qwenhost.simulate.planned import Bench, at_rate, most_users, with_users

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.facts import Catalog, Workload
    from qwenhost.plan import Plan, StepShape


@pytest.fixture(scope="module")
def known() -> Catalog:
    """The built-in catalog."""
    return load_catalog([])


def sized(known: Catalog, prompt: float, output: float) -> Workload:
    """A workload of constant sizes, without cached prefixes."""
    chat = known.workloads["chat"]
    stats = type(chat.input_tokens)
    return msgspec.structs.replace(
        chat, input_tokens=stats(mean=prompt), output_tokens=stats(mean=output),
        prefix_hit_5m=None, prefix_hit_1h=None, prefix_hit_unbounded=None,
    )  # fmt: skip


def bench(known: Catalog, step_time: Any = one_second, **changes: Any) -> Bench:
    """Prompts of one token, answers of ten, steps of a second unless told otherwise."""
    values: dict[str, Any] = {
        "config": engine_limits(), "step_time": step_time, "workload": sized(known, 1, 10),
        "slo": Slo(ttft_ms=5000, percentile=90), "request_s": 10.0,
    }  # fmt: skip
    return Bench(**(values | changes))


class TestSteady:
    @pytest.mark.parametrize(("users", "first_s"), [(1, 1), (3, 2), (8, 2)])
    def test_users_in_turn(self, known: Catalog, users: int, first_s: int) -> None:
        """A request takes its prefill step and nine more; beside others it misses the step after an answer.

        So a user completes one in 11 s, waits 2 s for a first token and a second for every further one; a
        user alone finds the engine idle and saves the step missed.
        """
        found = with_users(bench(known), users)
        assert found.tpot_s == pytest.approx(1.0)
        assert found.ttft_s == pytest.approx(first_s, abs=0.05)
        rate = users / (9 + first_s)
        assert found.requests_per_s == pytest.approx(rate, rel=0.03)
        assert found.output_tokens_per_s == pytest.approx(10 * rate, rel=0.03)
        assert found.input_tokens_per_s == pytest.approx(rate, rel=0.03)
        assert found.in_flight == pytest.approx(users, rel=0.03)
        assert found.meets_slo
        assert found.kept_slo == 1

    def test_one_place_for_two_users(self, known: Catalog) -> None:
        """With room for one sequence the rate is that of one, and the other user waits for a whole answer.

        An answer takes ten steps and a freed place is taken in the next step, whose user waits there already:
        one in 10 s, and between an answer and the next first token lie the other's 10 s and the own step.
        """
        found = with_users(bench(known, config=engine_limits(max_num_seqs=1)), 2)
        assert found.requests_per_s == pytest.approx(0.1, rel=0.03)
        assert found.ttft_s == pytest.approx(11.0, abs=0.2)
        assert not found.meets_slo  # 11 s are above 5

    def test_an_offered_rate_is_carried(self, known: Catalog) -> None:
        """Far below capacity the rate comes out as it went in, and Little's law gives what is in flight.

        A first token takes half a step of waiting, on average, where steps run, and its own.
        """
        found = at_rate(bench(known, request_s=200.0), 0.5)
        assert found.requests_per_s == pytest.approx(0.5, rel=0.1)
        assert found.ttft_s == pytest.approx(1.5, abs=0.15)
        assert found.in_flight == pytest.approx(found.requests_per_s * 10.5, rel=0.03)

    def test_an_overload_misses(self, known: Catalog) -> None:
        """Ten a second for an engine of one place, which does one in ten seconds."""
        found = at_rate(bench(known, config=engine_limits(max_num_seqs=1)), 10.0)
        assert not found.meets_slo
        assert found.kept_slo < 0.01
        assert found.requests_per_s <= 0.2

    def test_what_is_too_long_counts_as_missed(self, known: Catalog) -> None:
        """Prompts are cut to the context, but a cache may still be too small: refused ones kept nothing."""
        config = engine_limits(num_blocks=3)  # two blocks of 16 tokens
        found = at_rate(bench(known, config=config, workload=sized(known, 100, 10)), 1.0)
        assert (found.requests_per_s, found.kept_slo, found.meets_slo) == (0.0, 0.0, False)
        assert found.requests >= 600

    def test_the_seed_decides(self, known: Catalog) -> None:
        """The same twice, another with another seed."""
        chat = bench(known, workload=known.workloads["chat"])
        assert at_rate(chat, 0.3) == at_rate(chat, 0.3)
        assert at_rate(chat, 0.3) != at_rate(chat._replace(seed=1), 0.3)


def crowded(shape: StepShape) -> float:
    """A second for each sequence of the step."""
    return float(shape.decode_sequences + (shape.prefill_sequences if shape.prefill_tokens else 0))


class TestMostUsers:
    def test_as_many_as_keep_it(self, known: Catalog) -> None:
        """A step of n sequences takes n seconds, so n users wait n seconds a token: 5.5 s allow 5 of 64."""
        limit = Slo(tpot_ms=5500, percentile=90)
        found = most_users(bench(known, crowded, slo=limit), 64)
        assert found.meets_slo
        assert with_users(bench(known, crowded, slo=limit), 5).meets_slo
        assert not with_users(bench(known, crowded, slo=limit), 7).meets_slo
        assert 4 < found.in_flight < 7

    def test_all_where_all_keep_it(self, known: Catalog) -> None:
        """No search: the formula's load stands."""
        assert most_users(bench(known), 8) == with_users(bench(known), 8)

    def test_one_where_none_keep_it(self, known: Catalog) -> None:
        """The figures of a single user, who misses it too."""
        never = bench(known, slo=Slo(ttft_ms=1, percentile=90))
        assert most_users(never, 16) == with_users(never, 1)
        assert not most_users(never, 16).meets_slo


@pytest.fixture(scope="module")
def planned(known: Catalog) -> Plan:
    """Two H200 under chat."""
    return make_plan(_request(known), known)


def _request(known: Catalog, **changes: Any) -> PlanRequest:
    chat = known.workloads["chat"]
    values: dict[str, Any] = {"node": parse_gpus("2xH200", known.gpus), "workload": chat, "slo": chat.slo}
    return PlanRequest(**(values | changes))


def speeds(plan: Plan, *factors: float) -> list[Any]:
    """The plan's first candidates with requests per second multiplied, and all in time."""
    found = []
    for one, factor in zip((plan.chosen, *plan.alternatives), factors, strict=False):
        rate = one.estimate.requests_per_s
        moved = msgspec.structs.replace(rate, value=100 * factor)
        args = msgspec.structs.replace(plan.chosen.engine_args)
        speed = msgspec.structs.replace(one.estimate, requests_per_s=moved, meets_slo=True)
        found.append(msgspec.structs.replace(plan.chosen, estimate=speed, engine_args=args))
    return found


class TestChoice:
    def test_near_equals_leave_the_formulas_order(self, known: Catalog, planned: Plan) -> None:
        """1 % faster is the same; 5 % is not."""
        near, far = speeds(planned, 1.0, 1.01), speeds(planned, 1.0, 1.05)
        assert plan_simulated._choice(near, _request(known)) is near[0]
        assert plan_simulated._choice(far, _request(known)) is far[1]

    def test_one_that_keeps_the_level_comes_before_a_faster_one(self, known: Catalog, planned: Plan) -> None:
        """The service level goes first, as in the planner."""
        slow, fast = speeds(planned, 1.0, 2.0)
        missed = msgspec.structs.replace(fast.estimate, meets_slo=False)
        fast = msgspec.structs.replace(fast, estimate=missed)
        assert plan_simulated._choice([slow, fast], _request(known)) is slow

    @pytest.mark.parametrize(
        ("part", "change"),
        [
            ("engine_args", {"max_model_len": 4096}),
            ("engine_args", {"kv_cache_dtype": "fp8"}),
            ("parallelism", {"replicas": 2}),
            ("parallelism", {"decode_context_parallel_size": 2}),
        ],
    )
    def test_what_trades_more_than_speed_does_not_pass(
        self, known: Catalog, planned: Plan, part: str, change: dict[str, Any]
    ) -> None:
        """Twice as fast by a shorter context, an uncalibrated cache, several engines: not chosen for it."""
        slow, fast = speeds(planned, 1.0, 2.0)
        other = msgspec.structs.replace(getattr(fast, part), **change)
        fast = msgspec.structs.replace(fast, **{part: other})
        assert plan_simulated._choice([slow, fast], _request(known)) is slow

    def test_context_is_no_matter_of_speed(self, known: Catalog, planned: Plan) -> None:
        """The objective context keeps the formula's choice."""
        slow, fast = speeds(planned, 1.0, 2.0)
        assert plan_simulated._choice([slow, fast], _request(known, objective="context")) is slow

    def test_latency_weighs_the_whole_answer(self, known: Catalog, planned: Plan) -> None:
        """Chat answers are long: half the time per token is worth a slower first one."""
        slow, fast = speeds(planned, 1.0, 0.1)
        quick = msgspec.structs.replace(
            fast.estimate, tpot_ms=msgspec.structs.replace(fast.estimate.tpot_ms, value=0.1)
        )
        fast = msgspec.structs.replace(fast, estimate=quick)
        assert plan_simulated._choice([slow, fast], _request(known, objective="latency")) is fast

    def test_time_is_bounded(self, known: Catalog, planned: Plan) -> None:
        """Past the limit no further candidate is begun; the others keep the formula's figures alone."""
        ticks = iter([0.0, 1.0, plan_simulated.ENOUGH_S + 1, 99.0])
        found = plan_simulated.simulated_plan(_request(known), known, planned, clock=lambda: next(ticks))
        timed = [one.formula is not None for one in (found.chosen, *found.alternatives)]
        assert sum(timed) == 2
        assert len(timed) == 1 + len(planned.alternatives)


class TestCommand:
    ARGS = ("plan", "--gpus", "2xH200", "--checkpoint", "fp8", "-tp", "2", "--num-speculative-tokens", "0")

    def plan(self, capsys: pytest.CaptureFixture[str], *more: str) -> Any:
        """The command's JSON."""
        capsys.readouterr()
        assert run([*self.ARGS, "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)

    def test_both_figures_stand_in_the_plan(self, capsys: pytest.CaptureFixture[str]) -> None:
        """``formula`` is what the plain plan says; ``estimate`` says it was simulated; money follows it."""
        plain = self.plan(capsys, "--concurrency", "16")
        found = self.plan(capsys, "--concurrency", "16", "--method", "simulate")
        assert (plain["inputs"]["method"], found["inputs"]["method"]) == ("formula", "simulate")
        formula, speed = found["chosen"]["formula"], found["chosen"]["estimate"]
        assert formula == plain["chosen"]["estimate"]
        assert plain["chosen"]["formula"] is None
        assert speed["output_tokens_per_s"]["basis"] == "modelled"
        assert "simulated engine" in speed["output_tokens_per_s"]["source"]
        assert speed["concurrency"]["value"] == 16
        # Rent over output tokens, by hand.
        rent = found["chosen"]["usd_per_hour"] / (speed["output_tokens_per_s"]["value"] * 3600) * 1e6
        assert found["chosen"]["usd_per_mtok_output"] == pytest.approx(rent)
        both = speed["output_tokens_per_s"]["value"] + speed["input_tokens_per_s"]["value"]
        blended = found["chosen"]["usd_per_hour"] / (both * 3600) * 1e6
        assert found["chosen"]["usd_per_mtok_blended"] == pytest.approx(blended)
        # Two models of one engine: they agree on time per token within a fifth at a light load.
        assert speed["tpot_ms"]["value"] == pytest.approx(formula["tpot_ms"]["value"], rel=0.2)
        assert speed["tpot_ms"]["low"] / speed["tpot_ms"]["value"] == pytest.approx(
            formula["tpot_ms"]["low"] / formula["tpot_ms"]["value"]
        )

    def test_it_is_deterministic(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Twice the same plan."""
        args = ("--rate", "3", "--method", "simulate")
        assert self.plan(capsys, *args) == self.plan(capsys, *args)

    def test_people_see_both(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A row each for simulator and formula, and the command still below."""
        assert run([*self.ARGS, "--rate", "3", "--method", "simulate"]) == 0
        said = capsys.readouterr().out
        assert "Simulated engine and closed formula" in said
        assert said.count("by formula") == said.count("simulated  ")
        assert "vllm serve" in said

    def test_a_saved_one_is_a_plan(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """It loads, its argv are filled in, and simulate and serve can take it."""
        path = tmp_path / "plan.json"
        self.plan(capsys, "--method", "simulate", "--concurrency", "4", "--save", str(path))
        saved = load_plan(path)
        assert saved.chosen.vllm_argv[:2] == ("vllm", "serve")
        assert all(one.candidate.vllm_argv for one in saved.fallbacks)
        assert run(["simulate", "--plan", str(path), "--rate", "1", "--requests", "5", "--json"]) == 0

    @pytest.mark.parametrize("other", [("--pareto",), ("--why-not", "bf16/TP2"), ("--check", "x.log")])
    def test_not_beside_what_it_does_not_touch(
        self, capsys: pytest.CaptureFixture[str], other: tuple[str, ...]
    ) -> None:
        """Exit 2, both named."""
        assert run([*self.ARGS, "--method", "simulate", *other]) == 2
        said = capsys.readouterr().err
        assert "--method" in said
        assert other[0] in said

    def test_nothing_fits(self, capsys: pytest.CaptureFixture[str]) -> None:
        """There is nothing to simulate: exit 3, as without."""
        assert run(["plan", "--gpus", "1xRTX 3090", "--method", "simulate"]) == 3
        assert capsys.readouterr().out == ""

"""Which trials are made, which wins, and what a state survives: cases and laws."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tuning_run import run_of, state_of, tune

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.node import parse_gpus
from qwenhost.plan import PlanRequest
from qwenhost.planner import make_plan
from qwenhost.profiles import load_catalog
from qwenhost.tuning import Trial, TuneState, contenders, load_state, run_trials, state_to_json, winner
from qwenhost.tuning.state import SCHEMA, STATE_FILE, Handover
from qwenhost.tuning.verdict import SAME, score_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.measurements import Measurements
    from qwenhost.plan import Candidate, Objective, Plan

RATES = st.lists(st.floats(1, 1e6), min_size=1, max_size=8)


def trial(number: int, rate: float | None = None, **fields: Any) -> Trial:
    """Measured, at this rate."""
    given_fields: dict[str, Any] = {"status": "measured", "output_tokens_per_s": rate} | fields
    return Trial(id=f"trial-{number}", label=str(number), **given_fields)


def best(trials: list[Trial], objective: Objective = "cost") -> str | None:
    """The winner's number."""
    found = winner(trials, objective)
    return found.label if found else None


class TestWinner:
    @pytest.mark.parametrize(
        ("rates", "expected"),
        [
            ([100], "0"),
            ([100, 200], "1"),
            ([200, 100], "0"),
            # equals and near-equals: the plan's order stands; 1 % is not yet more, a little above it is
            ([100, 100], "0"),
            ([100, 101], "0"),
            ([100, 101.01], "1"),
            # each is held against the best so far, so that small steps do not add up
            ([100, 100.9, 101.8], "2"),
            ([100, 100.9, 100.95], "0"),
            ([None, 100], "1"),
            ([0, 0], "0"),
        ],
    )
    def test_by_rate(self, rates: list[float | None], expected: str) -> None:
        """The most output tokens a second, where one is more than another by over a hundredth."""
        assert best([trial(i, rate) for i, rate in enumerate(rates)]) == expected

    @pytest.mark.parametrize(
        ("answers", "expected"),
        [([2.0, 1.0], "1"), ([1.0, 2.0], "0"), ([1.0, 0.995], "0"), ([None, 5.0], "1"), ([0.0, 5.0], "1")],
    )
    def test_by_latency(self, answers: list[float | None], expected: str) -> None:
        """The quickest mean answer, whatever the rates; an answer without a time is worth nothing."""
        trials = [trial(i, 1000 - i, answer_s=answer) for i, answer in enumerate(answers)]
        assert best(trials, "latency") == expected

    @pytest.mark.parametrize("objective", ["cost", "throughput", "context"])
    def test_goodput_goes_before_the_rate(self, objective: Objective) -> None:
        """Fast past the limit is worth less than slow within it."""
        trials = [trial(0, 900.0, goodput_tokens_per_s=10.0), trial(1, 100.0, goodput_tokens_per_s=90.0)]
        assert best(trials, objective) == "1"

    def test_a_trial_without_goodput_among_others_with_it(self) -> None:
        """Counts as none within the limit."""
        assert best([trial(0, 900.0), trial(1, 100.0, goodput_tokens_per_s=1.0)]) == "1"

    def test_where_none_kept_the_limit(self) -> None:
        """The plain rate decides."""
        trials = [trial(0, 100.0, goodput_tokens_per_s=0.0), trial(1, 200.0, goodput_tokens_per_s=0.0)]
        assert best(trials) == "1"

    @pytest.mark.parametrize("status", ["waiting", "running", "void", "failed"])
    def test_only_measured_ones_count(self, status: Any) -> None:
        """However fast it looked."""
        assert best([trial(0, 900.0, status=status), trial(1, 1.0)]) == "1"
        assert best([trial(0, 900.0, status=status)]) is None
        assert best([]) is None

    @settings(max_examples=80, deadline=None)
    @given(RATES)
    def test_nobody_beats_it_by_much(self, rates: list[float]) -> None:
        """No other is more than a hundredth faster, and no earlier one is as fast."""
        found = winner([trial(i, rate) for i, rate in enumerate(rates)], "cost")
        assert found is not None
        index, rate = int(found.label), found.output_tokens_per_s
        assert rate is not None
        assert max(rates) <= SAME * rate
        assert all(earlier < rate for earlier in rates[:index])

    @settings(max_examples=40, deadline=None)
    @given(RATES, st.floats(0.01, 100))
    def test_units_do_not_matter(self, rates: list[float], factor: float) -> None:
        """The same winner at any scale, as long as nothing lies at the very edge."""
        edges = [b / a for a in rates for b in rates]
        if any(abs(edge - SAME) < 1e-6 for edge in edges):
            return
        one = winner([trial(i, rate) for i, rate in enumerate(rates)], "cost")
        other = winner([trial(i, rate * factor) for i, rate in enumerate(rates)], "cost")
        assert one is not None
        assert other is not None
        assert one.label == other.label


class TestScore:
    def test_its_figures(self) -> None:
        """Means, and seconds for the whole answer."""
        score = score_of(run_of(120.0, good=60.0, answer_ms=2500.0))
        assert (score.output_tokens_per_s, score.goodput_tokens_per_s) == (120.0, 60.0)
        assert (score.ttft_ms, score.tpot_ms, score.answer_s) == (2500.0, 2500.0, 2.5)

    def test_what_was_not_measured(self) -> None:
        """No limit, no goodput; no answer, no time: None and not 0."""
        run = run_of(120.0)
        run = msgspec.structs.replace(run, e2e_ms=msgspec.structs.replace(run.e2e_ms, mean=None))
        score = score_of(run)
        assert (score.goodput_tokens_per_s, score.answer_s) == (None, None)


class TestRun:
    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.sampled_from(["good", "void", "down", "silent"]), min_size=1, max_size=5),
        st.integers(0, 5),
    )
    def test_every_trial_ends_and_is_kept(self, fates: list[str], done: int) -> None:
        """Whatever happens to each, wherever an earlier run stopped: each runs once and is written twice."""
        requests = run_of(1.0).requests
        outcomes: dict[str, Any] = {
            "good": run_of(100.0),
            "void": run_of(100.0, void=True, void_reason="lag"),
            "down": UnavailableError("gone", remedy="none"),
            "silent": run_of(1.0, requests=msgspec.structs.replace(requests, completed=0, failed=4)),
        }
        labels = [f"{i}-{fate}" for i, fate in enumerate(fates)]
        start = state_of(*labels)
        kept = min(done, len(fates))
        before = tuple(
            msgspec.structs.replace(one, status="measured", output_tokens_per_s=50.0)
            for one in start.trials[:kept]
        )
        start = msgspec.structs.replace(start, trials=before + start.trials[kept:])
        end, started, saved = tune(start, {label: outcomes[label.split("-")[1]] for label in labels})
        assert started == [f"trial-{i + 1}" for i in range(kept, len(fates))]
        assert all(one.is_done for one in end.trials)
        assert end.trials[:kept] == before
        expected = {"good": "measured", "void": "void", "down": "failed", "silent": "failed"}
        assert [one.status for one in end.trials[kept:]] == [expected[fate] for fate in fates[kept:]]
        assert len(saved) == 2 * (len(fates) - kept) + 1
        assert saved[-1] == end
        assert [sum(one.status == "running" for one in state.trials) for state in saved[:-1:2]] == [1] * (
            len(fates) - kept
        )

    @pytest.mark.parametrize("status", ["measured", "void", "failed"])
    def test_what_is_done_is_not_done_again(self, status: Any) -> None:
        """Nor is a failure: the same would fail again."""
        start = state_of("a")
        start = msgspec.structs.replace(
            start, trials=(msgspec.structs.replace(start.trials[0], status=status),)
        )
        end, started, _ = tune(start, {})
        assert started == []
        assert end.trials == start.trials

    def test_a_wrong_option_ends_it(self) -> None:
        """With the trial still to do: it is no result."""
        with pytest.raises(BadInputError, match="no such flag"):
            tune(state_of("a", "b"), {"a": BadInputError("no such flag", remedy="mend it"), "b": run_of(1.0)})

    def test_an_interruption_leaves_the_trial_running(self) -> None:
        """So that the next run knows that it was cut off."""
        saved: list[TuneState] = []

        def measure(_: Trial) -> tuple[Measurements, str]:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_trials(state_of("a"), measure, save=saved.append, tell=lambda _: None)
        assert [state.trials[0].status for state in saved] == ["running"]
        heard: list[str] = []
        run_trials(saved[0], lambda _: (run_of(9.0), "f"), save=saved.append, tell=heard.append)
        assert heard[0] == "1/1 a again, it was cut off"

    def test_why_it_failed_is_kept(self) -> None:
        """The kinds of errors and how many of each."""
        requests = msgspec.structs.replace(
            run_of(1.0).requests, completed=0, failed=4, by_error={"timeout": 3, "http_500": 1}
        )
        end, _, _ = tune(state_of("a"), {"a": run_of(1.0, requests=requests)})
        assert end.trials[0].error == "no request was answered (timeout x3, http_500 x1)"
        assert end.trials[0].measurements == "trial-1.measurements.json"
        assert end.winner is None


class TestState:
    def full(self) -> Any:
        """Every field filled."""
        handover = Handover(name="qwen", argv=("qwenhost", "serve"), cwd="/srv", needs_key=True)
        return state_of(
            "a", "b", stopped=(handover,), winner="trial-2", calibration="h200.yaml", simulated=True
        )

    def test_there_and_back(self, tmp_path: Path) -> None:
        """Nothing is lost, and a person can read it."""
        state = self.full()
        (tmp_path / STATE_FILE).write_bytes(state_to_json(state))
        assert load_state(tmp_path, "q") == state
        assert b"\n  " in state_to_json(state)
        assert json.loads(state_to_json(state))["schema"] == SCHEMA

    def test_none_yet(self, tmp_path: Path) -> None:
        """A folder that is empty or not there is a start."""
        assert load_state(tmp_path, "q") is None
        assert load_state(tmp_path / "none", "q") is None

    def test_another_question(self, tmp_path: Path) -> None:
        """The old one is told, and both ways out."""
        (tmp_path / STATE_FILE).write_bytes(state_to_json(self.full()))
        with pytest.raises(BadInputError, match=r"another question \(chat on 1x X\)") as caught:
            load_state(tmp_path, "other")
        assert "--fresh" in str(caught.value.remedy)
        assert "--output-dir" in str(caught.value.remedy)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda raw: raw[: len(raw) // 2],
            lambda _: b"",
            lambda _: b"[]",
            lambda _: b"\xff\xfe",
            lambda raw: raw.replace(b'"measured"', b'"done"').replace(b'"waiting"', b'"asleep"'),
            lambda raw: raw.replace(b"qwenhost.tune/1", b"qwenhost.tune/2"),
            lambda raw: raw.replace(b'"question"', b'"riddle"'),
        ],
    )
    def test_a_damaged_file(self, tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
        """It is named, with the way to start over, and left as it is."""
        path = tmp_path / STATE_FILE
        path.write_bytes(spoil(state_to_json(self.full())))
        content = path.read_bytes()
        with pytest.raises(BadInputError, match=r"state\.json") as caught:
            load_state(tmp_path, "q")
        assert "--fresh" in str(caught.value.remedy)
        assert path.read_bytes() == content

    @pytest.mark.parametrize(
        ("status", "done"),
        [("waiting", False), ("running", False), ("measured", True), ("void", True), ("failed", True)],
    )
    def test_what_needs_no_further_run(self, status: Any, *, done: bool) -> None:
        """A void trial is not repeated either."""
        assert trial(0, status=status).is_done is done


@pytest.fixture(scope="module")
def planned() -> Plan:
    """Two H200 and the chat, with its alternatives."""
    catalog = load_catalog([])
    chat = catalog.workloads["chat"]
    node = parse_gpus("2xH200", catalog.gpus)
    return make_plan(PlanRequest(node=node, workload=chat, slo=chat.slo), catalog)


class TestContenders:
    def altered(self, plan: Plan, **speed: Any) -> Candidate:
        """The choice again, with another estimate."""
        return msgspec.structs.replace(
            plan.chosen, estimate=msgspec.structs.replace(plan.chosen.estimate, **speed)
        )

    def with_one(self, plan: Plan, one: Candidate) -> Plan:
        """A plan with this alternative alone."""
        return msgspec.structs.replace(plan, alternatives=(one,))

    def test_the_choice_is_first_and_counted(self, planned: Plan) -> None:
        """Of one, it is the only one."""
        assert contenders(planned, most=1) == [planned.chosen]
        assert contenders(planned, most=5)[0] == planned.chosen
        assert len(contenders(planned, most=2)) <= 2

    @pytest.mark.parametrize(("share", "taken"), [(1.0, True), (1.001, True), (0.999, False), (0.0, False)])
    def test_a_band_must_reach_the_choices(self, planned: Plan, share: float, *, taken: bool) -> None:
        """Its good end against the low end of the choice's, touching included."""
        rate = planned.chosen.estimate.output_tokens_per_s
        high = msgspec.structs.replace(rate, high=rate.low * share, low=0.0, value=0.0)
        one = self.altered(planned, output_tokens_per_s=high)
        assert (one in contenders(self.with_one(planned, one), most=9)) is taken

    def test_by_latency_the_answers_time_counts(self, planned: Plan) -> None:
        """Slow tokens are out, however many of them at once."""
        inputs = msgspec.structs.replace(planned.inputs, objective="latency")
        tpot = planned.chosen.estimate.tpot_ms
        slow = msgspec.structs.replace(tpot, low=tpot.high * 10, value=tpot.high * 10, high=tpot.high * 10)
        one = self.altered(planned, tpot_ms=slow)
        plan = self.with_one(msgspec.structs.replace(planned, inputs=inputs), one)
        assert contenders(plan, most=9) == [planned.chosen]
        assert one in contenders(self.with_one(planned, one), most=9)

    def test_who_misses_the_service_level_is_out(self, planned: Plan) -> None:
        """Unless the choice misses it too."""
        one = self.altered(planned, meets_slo=False)
        kept = self.altered(planned, meets_slo=True)
        plan = msgspec.structs.replace(self.with_one(planned, one), chosen=kept)
        assert one not in contenders(plan, most=9)
        assert contenders(msgspec.structs.replace(plan, chosen=one), most=9) == [one, one]

    def test_other_weights_only_where_asked_for(self, planned: Plan) -> None:
        """They answer otherwise, and trials measure speed."""
        other = msgspec.structs.replace(planned.chosen.checkpoint, id="other")
        one = msgspec.structs.replace(planned.chosen, checkpoint=other)
        plan = self.with_one(planned, one)
        assert one not in contenders(plan, most=9)
        assert one in contenders(plan, most=9, any_checkpoint=True)

    def test_several_engines_are_no_service(self, planned: Plan) -> None:
        """``serve`` runs one."""
        layout = msgspec.structs.replace(planned.chosen.parallelism, replicas=2)
        one = msgspec.structs.replace(planned.chosen, parallelism=layout)
        assert one not in contenders(self.with_one(planned, one), most=9)

    def test_the_callers_word_counts(self, planned: Plan) -> None:
        """For alternatives; the choice is made already."""
        plan = self.with_one(planned, planned.chosen)
        assert contenders(plan, most=9, allowed=lambda _: False) == [planned.chosen]

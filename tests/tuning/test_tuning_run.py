"""Trials: which are made, that each is run once, and which wins."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.facts import Slo
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
from qwenhost.plan import Plan, PlanRequest
from qwenhost.planner import make_plan
from qwenhost.profiles import load_catalog
from qwenhost.tuning import Trial, TuneState, contenders, load_state, run_trials, state_to_json, winner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AT = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)


def run_of(
    rate: float, *, good: float | None = None, answer_ms: float = 1000.0, **changes: Any
) -> Measurements:
    """A run with this rate."""
    flat = Percentiles(mean=answer_ms, p50=1.0, p90=1.0, p95=1.0, p99=1.0)
    kept = None
    if good is not None:
        limits = Slo(tpot_ms=50)
        kept = Goodput(slo=limits, requests_per_s=1.0, output_tokens_per_s=good, fraction=good / rate)
    given: dict[str, Any] = {
        "workload": MeasuredWorkload(id="chat", endpoint="chat", mean_input_tokens=1, mean_output_tokens=1),
        "load": Load(kind="closed", concurrency=1, duration_s=1.0),
        "requests": RequestCounts(sent=4, completed=4, failed=0),
        "output_tokens_per_s": rate, "input_tokens_per_s": 1.0, "total_tokens_per_s": rate + 1,
        "request_per_s": 1.0, "ttft_ms": flat, "tpot_ms": flat, "itl_ms": flat, "e2e_ms": flat,
        "goodput": kept, "send_lag_ms": Lag(p50=0, p99=0, max=0),
        "server": Server(name="vllm", version=None, model="m", url="u"), "started_at": AT, "machine": {},
    }  # fmt: skip
    return Measurements(**given | changes)


def state_of(*labels: str, **changes: Any) -> TuneState:
    """Trials that wait."""
    trials = tuple(Trial(id=f"trial-{i}", label=label) for i, label in enumerate(labels, start=1))
    words: dict[str, Any] = {
        "question": "q",
        "asked": "chat on 1x X",
        "machine": "1x X",
        "started_at": "",
        "updated_at": "",
    }
    return msgspec.structs.replace(TuneState(objective="cost", trials=trials, **words), **changes)


def tune(state: TuneState, runs: dict[str, Any]) -> tuple[TuneState, list[str], list[TuneState]]:
    """The end, the trials that were run, and every state that was kept."""
    started: list[str] = []
    saved: list[TuneState] = []

    def measure(trial: Trial) -> tuple[Measurements, str]:
        started.append(trial.id)
        found = runs[trial.label]
        if isinstance(found, BaseException):
            raise found
        return found, f"{trial.id}.measurements.json"

    end = run_trials(state, measure, save=saved.append, tell=lambda _: None)
    return end, started, saved


def test_each_trial_runs_once_and_the_fastest_wins() -> None:
    """200 tokens a second beat 100; the file of each is named; every step was kept."""
    end, started, saved = tune(state_of("a", "b"), {"a": run_of(100), "b": run_of(200)})
    assert started == ["trial-1", "trial-2"]
    assert end.winner == "trial-2"
    assert [trial.status for trial in end.trials] == ["measured", "measured"]
    assert end.trials[1].measurements == "trial-2.measurements.json"
    assert [[trial.status for trial in state.trials] for state in saved] == [
        ["running", "waiting"], ["measured", "waiting"], ["measured", "running"], ["measured", "measured"],
        ["measured", "measured"],
    ]  # fmt: skip


def test_one_percent_is_no_win() -> None:
    """The one that the plan ranked first stays."""
    end, _, _ = tune(state_of("a", "b"), {"a": run_of(100), "b": run_of(100.9)})
    assert end.winner == "trial-1"


def test_tokens_within_the_service_level_count() -> None:
    """The faster node that breaks its limits loses; where nobody keeps them the plain rate decides."""
    end, _, _ = tune(state_of("a", "b"), {"a": run_of(300, good=10), "b": run_of(200, good=190)})
    assert end.winner == "trial-2"
    end, _, _ = tune(state_of("a", "b"), {"a": run_of(300, good=0), "b": run_of(200, good=0)})
    assert end.winner == "trial-1"


def test_latency_takes_the_quickest_answer() -> None:
    """Whatever the rate."""
    runs = {"a": run_of(500, answer_ms=9.0), "b": run_of(100, answer_ms=1.0)}
    end, _, _ = tune(state_of("a", "b", objective="latency"), runs)
    assert end.winner == "trial-2"


def test_a_trial_that_fails_is_a_result() -> None:
    """Its reason is kept and the next one runs; void runs and runs without an answer cannot win."""
    none = RequestCounts(sent=3, completed=0, failed=3, by_error={"timeout": 3})
    runs = {
        "a": UnavailableError("out of memory"),
        "b": run_of(900, void=True, void_reason="the client was late"),
        "c": run_of(900, requests=none),
        "d": run_of(10),
    }
    end, started, _ = tune(state_of("a", "b", "c", "d"), runs)
    assert len(started) == 4
    assert [trial.status for trial in end.trials] == ["failed", "void", "failed", "measured"]
    assert [trial.error for trial in end.trials[:3]] == [
        "out of memory", "the client was late", "no request was answered (timeout x3)"
    ]  # fmt: skip
    assert end.winner == "trial-4"
    end, _, _ = tune(state_of("a"), {"a": UnavailableError("x")})
    assert end.winner is None


def test_a_wrong_option_ends_the_run() -> None:
    """It would fail every trial alike."""
    with pytest.raises(BadInputError, match="no such folder"):
        tune(state_of("a"), {"a": BadInputError("no such folder")})


def test_what_was_cut_off_goes_on(tmp_path: Path) -> None:
    """Killed in the second trial: the first is not run again, the second is, from the kept file."""
    kept: list[TuneState] = []
    runs: dict[str, Any] = {"a": run_of(100), "b": KeyboardInterrupt(), "c": run_of(300)}

    def measure(trial: Trial) -> tuple[Measurements, str]:
        found = runs[trial.label]
        if isinstance(found, BaseException):
            raise found
        return found, "file"

    with pytest.raises(KeyboardInterrupt):
        run_trials(state_of("a", "b", "c"), measure, save=kept.append, tell=lambda _: None)
    (tmp_path / "state.json").write_bytes(state_to_json(kept[-1]))
    found = load_state(tmp_path, "q")
    assert found is not None
    assert [trial.status for trial in found.trials] == ["measured", "running", "waiting"]
    end, started, _ = tune(found, {"b": run_of(200), "c": run_of(300)})
    assert started == ["trial-2", "trial-3"]
    assert end.winner == "trial-3"


def test_another_question_is_not_gone_on_with(tmp_path: Path) -> None:
    """Its measurements would answer what nobody asked."""
    assert load_state(tmp_path, "q") is None
    (tmp_path / "state.json").write_bytes(state_to_json(state_of("a")))
    assert load_state(tmp_path, "q") is not None
    with pytest.raises(BadInputError, match="another question") as caught:
        load_state(tmp_path, "other")
    assert "--fresh" in caught.value.remedy
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(BadInputError, match="not the state of a tuning"):
        load_state(tmp_path, "q")


def test_no_trial_no_winner() -> None:
    """Nothing measured, nothing said."""
    assert winner([], "cost") is None


@pytest.fixture(scope="module")
def plan() -> Callable[..., Plan]:
    """A plan for chat on the named GPUs."""
    catalog = load_catalog([])
    chat = catalog.workloads["chat"]

    def make(gpus: str, **given: Any) -> Plan:
        node = parse_gpus(gpus, catalog.gpus)
        return make_plan(PlanRequest(node=node, workload=chat, slo=chat.slo, **given), catalog)

    return make


@pytest.mark.parametrize("objective", ["cost", "latency"])
def test_contenders_overlap_the_choice(plan: Callable[..., Plan], objective: str) -> None:
    """The choice first, of its checkpoint, one engine each, the band reaching into its band."""
    made = plan("8xH200", objective=objective)
    found = contenders(made, most=4)
    assert found[0] is made.chosen
    assert 2 <= len(found) <= 4
    assert {one.checkpoint.id for one in found} == {made.chosen.checkpoint.id}
    assert all(one.parallelism.replicas == 1 for one in found)
    wide = contenders(made, most=12, any_checkpoint=True)
    assert len({one.checkpoint.id for one in wide}) > 1
    if objective == "cost":
        least = made.chosen.estimate.output_tokens_per_s.low
        assert all(one.estimate.output_tokens_per_s.high >= least for one in wide)
    allowed = contenders(made, most=4, allowed=lambda one: one.engine_args.num_speculative_tokens == 0)
    assert all(one.engine_args.num_speculative_tokens == 0 for one in allowed[1:])


def test_a_clear_choice_has_no_contenders(plan: Callable[..., Plan]) -> None:
    """Alternatives at a tenth of the rate are not tried."""
    made = plan("8xH200")
    tenth = []
    for one in made.alternatives:
        rate = one.estimate.output_tokens_per_s
        slow = msgspec.structs.replace(rate, value=rate.value / 10, low=rate.low / 10, high=rate.high / 10)
        speed = msgspec.structs.replace(one.estimate, output_tokens_per_s=slow)
        tenth.append(msgspec.structs.replace(one, estimate=speed))
    assert contenders(msgspec.structs.replace(made, alternatives=tuple(tenth)), most=4) == [made.chosen]

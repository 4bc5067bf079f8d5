"""``calibrate``, ``tune``, ``count-tokens``, ``fetch`` and ``demo``: what they keep, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from qwenhost.cli import tuning_setup, wiring
from qwenhost.measurements import load_measurements, measurements_to_json
from qwenhost.plan import load_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli_kit import Cli

KEY = "sk-ant-of-nobody-1122334455"


@pytest.fixture
def run_file(recorded: Path, chat_plan: Any, tmp_path: Path) -> Callable[..., Path]:
    """``run_file("a", slower=2.0)``: a run of the plan's own size, so much slower than the plan says."""
    measured = load_measurements(recorded.with_name("m.json"))
    estimate = chat_plan.chosen.estimate

    def write(name: str, *, slower: float = 1.0, **changes: Any) -> Path:
        def times(value: float) -> Any:
            return msgspec.structs.replace(
                measured.ttft_ms, mean=value, p50=value, p90=value, p95=value, p99=value
            )

        workload = chat_plan.inputs.workload_detail
        made = msgspec.structs.replace(
            measured,
            ttft_ms=times(slower * estimate.ttft_ms.value),
            tpot_ms=times(slower * estimate.tpot_ms.value),
            void=False,
            void_reason=None,
            server=msgspec.structs.replace(measured.server, version="0.33.0", simulated=False),
            load=msgspec.structs.replace(measured.load, concurrency=round(estimate.concurrency.value)),
            workload=msgspec.structs.replace(
                measured.workload,
                mean_input_tokens=workload.input_tokens.mean,
                mean_output_tokens=workload.output_tokens.mean,
            ),
        )
        path = tmp_path / f"{name}.json"
        path.write_bytes(measurements_to_json(msgspec.structs.replace(made, **changes)))
        return path

    return write


class TestCalibrate:
    def test_a_slower_machine_makes_later_plans_slower(self, cli: Cli, saved: Path, run_file: Any) -> None:
        """Kept in the user's own profiles, used by the next plan, undone by deleting the file."""
        words = ("plan", "--gpus", "2xH200", "--json")
        before = cli(*words).data["chosen"]["estimate"]["tpot_ms"]["value"]
        done = cli("calibrate", "--plan", saved, run_file("slow", slower=1.5), "--json")
        assert done.code == 0, done.err
        kept = Path(done.data["path"])
        assert kept.parent == wiring.user_profiles()
        assert yaml.safe_load(kept.read_text())["calibrations"][0]["gpu"] == "h200"
        pinned = json.loads(saved.read_bytes())["chosen"]["engine_args"]["max_num_seqs"]
        after = cli(*words, "--max-num-seqs", pinned).data["chosen"]["estimate"]["tpot_ms"]["value"]
        assert after > before
        kept.unlink()
        assert cli(*words).data["chosen"]["estimate"]["tpot_ms"]["value"] == before

    def test_a_dry_run_says_all_and_keeps_nothing(self, cli: Cli, saved: Path, run_file: Any) -> None:
        words = ("calibrate", "--plan", saved, run_file("slow", slower=1.5), "--dry-run")
        data, shown = cli(*words, "--json").data, cli(*words)
        assert (data["path"], data["dry_run"]) == (None, True)
        assert not wiring.user_profiles().exists()
        for scale in data["scales"]:
            assert shown.row(scale["name"])[3] == f"{scale['factor']:.2f}"
        assert "Kept nothing (--dry-run)." in shown.err
        assert data["runs"]
        assert f"band of predictions -{data['band']['low']:.0%} +{data['band']['high']:.0%}" in shown.text

    def test_the_more_it_is_off_the_more_is_changed(self, cli: Cli, saved: Path, run_file: Any) -> None:
        factors = []
        for slower in (1.0, 1.3, 1.8):
            words = (
                "calibrate",
                "--plan",
                saved,
                run_file(f"run-{slower}", slower=slower),
                "--dry-run",
                "--json",
            )
            scales = cli(*words).data["scales"]
            factors.append(max(abs(scale["factor"] - 1) for scale in scales))
        assert factors[0] < 0.12, "a machine as built in changes little"
        assert factors[0] < factors[1] < factors[2]

    def test_what_a_reader_should_doubt_is_told(self, cli: Cli, saved: Path, run_file: Any) -> None:
        """Failed requests, an interruption, more at once than the plan runs, too few runs."""
        clean = load_measurements(run_file("clean"))
        path = run_file(
            "doubtful", interrupted=True,
            requests=msgspec.structs.replace(clean.requests, sent=10, completed=7, failed=3),
            load=msgspec.structs.replace(clean.load, kind="closed", concurrency=99_999),
        )  # fmt: skip
        warnings = " ".join(cli("calibrate", "--plan", saved, path, "--dry-run", "--json").data["warnings"])
        for word in ("interrupted", "3 of 10 requests failed", "99999 at once", "fewer than three runs"):
            assert word in warnings
        shown = cli("calibrate", "--plan", saved, path, "--dry-run")
        assert "Warning: " in shown.err

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"void": True, "void_reason": "the client was late"}, "is void: the client was late"),
            ({"simulated": True}, "is of a simulated engine"),
        ],
    )
    def test_runs_that_teach_nothing(
        self, cli: Cli, saved: Path, run_file: Any, change: dict[str, Any], says: str
    ) -> None:
        if change.pop("simulated", False):
            clean = load_measurements(run_file("clean"))
            change["server"] = msgspec.structs.replace(clean.server, simulated=True)
        path = run_file("bad", **change)
        cli("calibrate", "--plan", saved, path).refused(str(path), says)

    def test_files_must_make_sense_together(self, cli: Cli, saved: Path, run_file: Any) -> None:
        run = run_file("one")
        cli("calibrate", run).refused(f"{run}: no plan says what ran", "--plan plan.json")
        cli("calibrate", saved).refused(
            "no measurements among the files", "qwenhost probe URL --save run.json"
        )
        cli("calibrate", saved, run, run).refused(f"{run} is named twice")
        cli("calibrate").refused("Missing argument")
        clean = load_measurements(run)
        other = run_file("other", server=msgspec.structs.replace(clean.server, version="0.30.1"))
        cli("calibrate", saved, run, other).refused("runs of vLLM 0.30.1, 0.33.0", "each in turn")


class TestTune:
    WORDS = ("tune", "--gpus", "2xH200", "--engine", "simulated", "--output-dir", "out")

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--target", "cpu", "--engine", "simulated"), "--engine simulated needs GPUs to simulate"),
            (("--target", "cpu"), "--target cpu needs a small checkpoint"),
            (("--gpus", "2xH200"), "--gpus describes GPUs, and trials run on this machine's"),
            (("--concurrency", "2", "--rate", "1"), "--concurrency and --rate were both given"),
            (("--candidates", "1"), "1 is not in the range 2<=x<=12"),
            (("--candidates", "13"), "13 is not in the range 2<=x<=12"),
            (("--duration", "0.5"), "0.5 is not in the range 1<=x<=86400"),
            (("--duration", "nan"), "'nan' is no finite number"),
            (("--engine", "simulated", "--gpus", "2xH200", "--workload", "nope"), "'nope': no such preset"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
    )  # fmt: skip
    def test_wrong_values(self, cli: Cli, words: tuple[str, ...], says: str) -> None:
        cli("tune", *words, "--output-dir", "out").refused(says)
        assert not Path("out/state.json").exists()

    def test_the_trials_are_the_plans_best_and_a_failure_is_told(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With an engine that never comes up: each trial fails by name; exit 1."""

        def broken(*_: Any, **__: Any) -> Any:
            from qwenhost.errors import UnavailableError

            raise UnavailableError("it did not start", remedy="See the log.")

        monkeypatch.setattr(tuning_setup, "_measure", broken)
        done = cli(*self.WORDS, "--candidates", "2")
        assert done.code == 1
        assert done.err.count("it did not start") >= 2
        assert "No trial was measured" in done.out
        assert "SIMULATED" in done.out
        state = json.loads(Path("out/state.json").read_bytes())
        assert [trial["status"] for trial in state["trials"]] == ["failed", "failed"]
        plans = [load_plan(Path(f"out/trial-{i}.plan.json")) for i in (1, 2)]
        assert [plan.chosen.label for plan in plans] == [trial["label"] for trial in state["trials"]]
        assert plans[0].chosen.label == load_plan_label(cli)
        assert not Path("out/plan.json").exists()

    def test_an_interruption_keeps_what_was_measured(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, run_file: Any
    ) -> None:
        """The first trial is done, Ctrl-C in the second: 130; the next call measures the second only."""
        run = load_measurements(run_file("trial"))
        asked: list[str] = []

        def measure(_: Any, __: Any, trial: Any, *more: Any) -> Any:
            asked.append(trial.id)
            if len(asked) == 2:
                raise KeyboardInterrupt
            return run

        monkeypatch.setattr(tuning_setup, "_measure", measure)
        words = (*self.WORDS, "--candidates", "2")
        assert cli(*words).code == 130
        done = cli(*words, "--json")
        assert done.code == 0, done.err
        assert asked == ["trial-1", "trial-2", "trial-2"]
        assert done.data["winner"] in {"trial-1", "trial-2"}
        assert load_plan(Path("out/plan.json")).chosen.label in {t["label"] for t in done.data["trials"]}
        assert done.data["calibration"] is None, "a simulated engine teaches nothing"

    def test_another_question_is_not_mixed_in(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, run_file: Any
    ) -> None:
        """--fresh forgets the earlier answers, and only what a tuning wrote."""
        run = load_measurements(run_file("trial"))
        monkeypatch.setattr(tuning_setup, "_measure", lambda *_: run)
        assert cli(*self.WORDS, "--candidates", "2").code == 0
        Path("out/mine.txt").write_text("keep")
        done = cli(*self.WORDS, "--candidates", "3")
        done.refused("out", "--fresh")
        assert cli(*self.WORDS, "--candidates", "3", "--fresh").code == 0
        assert Path("out/mine.txt").read_text() == "keep"
        assert len(json.loads(Path("out/state.json").read_bytes())["trials"]) <= 3


def load_plan_label(cli: Cli) -> str:
    """The label of what ``plan`` chooses for the same question."""
    assert cli("plan", "--gpus", "2xH200", "--save", "same.json").code == 0
    return load_plan(Path("same.json")).chosen.label


class TestCountTokens:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ((), "give exactly one of --url and --tokenizer"),
            (("--url", "http://x", "--tokenizer", "t.json"), "give exactly one of --url and --tokenizer"),
            (("--tokenizer", "t.json", "--save", "no/c.json"), "--save no/c.json: no such folder"),
            (("--tokenizer", "t.json"), "there is no key for Claude's tokenizer"),
            (("--tokenizer", "t.json", "--limit", "0"), "0 is not in the range x>=1"),
        ],
    )
    def test_wrong_values(self, cli: Cli, words: tuple[str, ...], says: str, tmp_path: Path) -> None:
        sample = tmp_path / "s.jsonl"
        sample.write_text('{"prompt": "Hello"}\n')
        cli("count-tokens", sample, *words).refused(says)

    def test_nothing_is_sent_where_the_sample_is_not_there(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And the key is not shown."""
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        done = cli("count-tokens", "nowhere.jsonl", "--tokenizer", "t.json")
        done.refused("nowhere.jsonl")
        assert KEY not in done.err


class TestFetch:
    def test_offline_without_a_copy_is_4(self, cli: Cli, tmp_path: Path) -> None:
        """Of a checkpoint by id its repository is named."""
        done = cli("fetch", "fp8", "--offline", "--cache", tmp_path / "hub")
        done.refused("Qwen/Qwen3.5-122B-A10B-FP8", code=4)

    def test_a_variable_says_offline_too(
        self, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        cli("fetch", "fp8", "--cache", tmp_path / "hub").refused("Qwen/Qwen3.5-122B-A10B-FP8", code=4)

    @pytest.mark.parametrize("ref", ["not-a-checkpoint", "a/b/c", ""])
    def test_what_names_nothing(self, cli: Cli, tmp_path: Path, ref: str) -> None:
        done = cli("fetch", ref, "--offline", "--cache", tmp_path / "hub")
        assert done.code in {2, 4}
        assert done.err.startswith("Error: ")
        assert done.out == ""


def test_demo_is_compare_with_a_simulated_engine(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two H200 unless others are named; every file in one folder."""
    seen: dict[str, Any] = {}

    def run(_: Any, plan: Any, workload: Any, options: Any, **more: Any) -> list[Any]:
        seen.update(gpus=plan.inputs.node.description, workload=workload.id, engine=options["engine"])
        return []

    monkeypatch.setattr("qwenhost.cli.live.measurements", run)
    assert cli("demo").code == 0
    assert seen == {"gpus": "2x NVIDIA H200", "workload": "chat", "engine": "simulated"}
    assert {path.name for path in Path("demo-out").iterdir()} == {"comparison.json", "report.html"}
    assert cli("demo", "--gpus", "8xH100-80GB", "--workload", "rag", "--output-dir", "d").code == 0
    assert (seen["gpus"], seen["workload"]) == ("8x NVIDIA H100 80GB HBM3", "rag")
    cli("demo", "--duration", "1").refused("1.0 is not in the range 5<=x<=86400")

"""Recorded loads on the command line: a replica is measured by their sizes, hours by their rates; ramps."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from qwenhost.cli.main import run
from qwenhost.profiles import load_catalog
from qwenhost.simulate.engine import Request
from qwenhost.simulate.fleet_demand import sizes_of
from qwenhost.simulate.load import Arrival, Sizes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved plan for two H200."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    assert run(["plan", "--gpus", "2xH200", "--save", str(path), "--json"]) == 0
    return str(path)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A minute in Azure's format: 2 requests a second of 400 tokens in and 12 out."""
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    rows = [
        f"2023-11-16 18:{15 + at // 60:02d}:{at % 60:02d}.{half}000000,400,12"
        for at in range(60)
        for half in (0, 5)
    ]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    return str(path)


def ran(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    """The command's JSON."""
    capsys.readouterr()
    assert run(["simulate", "--json", *args]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


class TestSizes:
    def test_a_trace_has_sizes_of_its_own(self) -> None:
        """Mean and percentiles are the trace's, the cached share what it states; the level stays."""
        chat = load_catalog([]).workloads["chat"]
        arrivals = [Arrival(float(n), Request(100 * n, 7, 50 * n)) for n in range(1, 11)]
        found = sizes_of(arrivals, chat)
        assert found.input_tokens.mean == 550
        assert found.input_tokens.p50 == 550
        assert found.output_tokens.mean == 7
        assert found.prefix_hit_5m == 0.5
        assert found.slo == chat.slo
        assert Sizes(found.output_tokens).sigma == 0  # all alike: no spread is made up
        assert Sizes(found.input_tokens).sigma > 0


class TestFindFleet:
    def test_a_trace_is_searched_by_its_own_sizes(
        self, plan: str, trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Short answers: one replica carries far more than chat's 26 a second; the page has its curve."""
        page = tmp_path / "fleet.html"
        found = ran(capsys, "--plan", plan, "--trace", trace, "--find-fleet", "--html", str(page))
        assert found["schema"] == "qwenhost.fleet_search/1"
        carried = re.search(r"carries ([\d.]+) requests/s", found["why"][0])
        assert carried is not None
        assert float(carried[1]) > 60
        assert found["label"].startswith("1 x ")
        assert found["chosen"]["requests"]["completed"] == 120
        assert found["chosen"]["mean_input_tokens"] == 400
        assert not found["interrupted"]
        text = page.read_text()
        assert "requests/s offered to one replica" in text
        assert "Every fleet tried" in text

    def test_a_run_of_a_trace_has_the_curve_too(
        self, plan: str, trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without a search as well."""
        page = tmp_path / "fleet.html"
        ran(capsys, "--plan", plan, "--trace", trace, "--replicas", "2", "--html", str(page))
        assert "requests/s offered to one replica" in page.read_text()

    def test_the_chosen_run_is_not_made_twice(
        self, plan: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One whole run for each fleet tried; the one chosen is among them."""
        from qwenhost.cli import fleet_finding, fleet_trial

        runs: list[str] = []

        def counted(*args: Any, **more: Any) -> Any:
            runs.append(args[1][0].name)
            return fleet_trial.simulate(*args, **more)

        monkeypatch.setattr(fleet_finding, "simulate", counted)
        found = ran(capsys, "--plan", plan, "--find-fleet", "--rate", "5", "--requests", "60")
        assert len(runs) == sum(one["verdict"] != "not run" for one in found["tried"])

    def test_interrupted(
        self, plan: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C before anything kept it: exit 130, what was tried is printed as JSON all the same."""
        from qwenhost.cli import fleet_finding

        def stop(*_args: Any, **_more: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(fleet_finding, "simulate", stop)
        found = ran(capsys, "--plan", plan, "--find-fleet", "--rate", "5", "--requests", "60", code=130)
        assert found["interrupted"] is True
        assert found["chosen"] is None

    def test_a_long_load_is_sampled(
        self, plan: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Samples and whole runs agree on the fleet; what only samples judged says so."""
        from qwenhost.cli import fleet_finding

        args = ("--plan", plan, "--find-fleet", "--input-tokens", "200", "--output-tokens", "4",
                "--rate", "6", "--days", "0.05", "--slo", "ttft=60,p=80")  # fmt: skip
        whole = ran(capsys, *args)
        monkeypatch.setattr(fleet_finding, "SAMPLED_FROM", 100)
        sampled = ran(capsys, *args)
        assert sampled["label"] == whole["label"]
        assert sampled["chosen"]["usd_per_day"] == pytest.approx(whole["chosen"]["usd_per_day"])
        assert not any(one["sampled"] for one in whole["tried"])
        best = next(one for one in sampled["tried"] if one["verdict"] == "cheapest")
        assert not best["sampled"]


WORKERS = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from qwenhost.cli.fleet_finding import _begin_worker
pool = ProcessPoolExecutor(
    2, mp_context=multiprocessing.get_context("fork"), initializer=_begin_worker, initargs=(None, os.getpid())
)
print(pool.submit(os.getpid).result(), flush=True)
asked = [pool.submit(time.sleep, 600) for _ in range(2)]
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_go_with_the_one_who_asked(how: signal.Signals) -> None:
    """Those who judge samples for --find-fleet were left at it when the command was killed."""
    with subprocess.Popen([sys.executable, "-c", WORKERS], stdout=subprocess.PIPE) as search:
        assert search.stdout is not None
        assert int(search.stdout.readline())
        workers = psutil.Process(search.pid).children(recursive=True)
        assert len(workers) == 2
        search.send_signal(how)
        _, left = psutil.wait_procs(workers, timeout=30)
        for one in left:
            one.kill()
    assert left == []


class TestRamp:
    LOAD = ("--concurrency", "16", "--requests", "160", "--input-tokens", "500", "--output-tokens", "50")

    def test_users_who_begin_apart_stay_apart(self, plan: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Equal answers: together their prompts come in one burst, spread out they hardly meet."""
        together = ran(capsys, "--plan", plan, *self.LOAD)
        apart = ran(capsys, "--plan", plan, *self.LOAD, "--ramp-up", "5")
        assert apart["ttft_ms"]["p90"] < 0.8 * together["ttft_ms"]["p90"]
        assert together["requests"]["completed"] == apart["requests"]["completed"] == 160

    @pytest.mark.parametrize(
        "load",
        [
            ("--rate", "3"),
            ("--rate", "3", "--replicas", "2"),
            ("--slo",),
        ],
    )
    def test_only_for_users(
        self, plan: str, capsys: pytest.CaptureFixture[str], load: tuple[str, ...]
    ) -> None:
        """Exit 2 and the flag, where nobody takes turns."""
        assert run(["simulate", "--plan", plan, *load, "--ramp-up", "5"]) == 2
        assert "--ramp-up" in capsys.readouterr().err

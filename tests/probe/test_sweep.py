"""Sweeps and searches: against a model of a server, and against the simulated engine."""

from __future__ import annotations

import datetime as dt
import json
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo
from qwenhost.measurements import RequestRecord, Server, load_measurements
from qwenhost.probe import ProbeConfig, ProbeResult
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.results import Run, measurements_of
from qwenhost.probe.store import store_of
from qwenhost.probe.sweep import Plan, find_limit, run_sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = ProbeConfig(url="http://model", warmup=0, seed=1, slo=Slo(ttft_ms=100, percentile=90))
CALM = LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0.1)
STUCK = LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0.99)


class Model:
    """A server whose first token comes after 50 ms up to its limit, and after 200 ms for most beyond."""

    def __init__(
        self, limit: float, *, lag: LoopLag = CALM, good: float = 1.0, interrupt_at: int | None = None
    ) -> None:
        self.limit, self.lag, self.good, self.interrupt_at = limit, lag, good, interrupt_at
        self.runs: list[ProbeConfig] = []

    def __call__(self, config: ProbeConfig, /) -> ProbeResult:
        self.runs.append(config)
        config.check()
        load = config.rate or config.concurrency or 0
        draw = random.Random(config.seed)  # noqa: S311 - a model of chance
        slots = config.concurrency or 1
        records = []
        for i in range(config.planned_requests or 100):
            due = i / config.rate if config.rate else i // slots * 1.0
            good = draw.random() < (self.good if load <= self.limit else 0.5)
            first = due + (0.05 if good else 0.2)
            record = RequestRecord(
                index=i, scheduled_s=due, sent_s=due, first_token_s=first, last_s=due + 1,
                token_times_s=(first, due + 1), input_tokens=10, output_tokens=2,
            )  # fmt: skip
            records.append(record)
        interrupted = self.interrupt_at == len(self.runs)
        run = Run(
            config=config, store=store_of(records), server=Server(name="m", version=None, model="m", url="m"),
            fit=None, seed=1, exact=False, counters={}, lag=self.lag, interrupted=interrupted,
            started_at=dt.datetime.now(dt.UTC),
        )  # fmt: skip
        return ProbeResult(measurements=measurements_of(run), records=tuple(records), clock_zero_s=0)


def test_the_highest_concurrency_is_found() -> None:
    """The model keeps its limits up to 11 in flight: 11 is shown, 12 is not, and the search is sure."""
    found = find_limit(CONFIG, Plan(axis="concurrency"), measure=Model(11, good=0.98))
    assert (found.found_at, found.not_shown_at, found.end) == (11, 12, "sure")
    assert [point.at for point in found.points] == [1, 2, 4, 8, 11, 12, 13, 16]
    assert found.found is not None
    assert found.found.measurements.load.concurrency == 11
    assert found.found.share_low >= 0.9


def test_the_highest_rate_is_found_within_the_tolerance() -> None:
    """A limit of 3.3 requests/s, from one at a time (1 s a request, so 1 request/s) upwards."""
    found = find_limit(CONFIG, Plan(axis="rate"), measure=Model(3.3))
    assert found.end == "sure"
    assert found.found_at is not None
    assert found.not_shown_at is not None
    assert found.found_at <= 3.3 < found.not_shown_at <= found.found_at * 1.05


def test_no_two_runs_send_the_same_prompts(tmp_path: Path) -> None:
    """Each run has its own seed and its own file of records."""
    model = Model(3)
    find_limit(
        msgspec.structs.replace(CONFIG, records=tmp_path / "r.jsonl"),
        Plan(axis="concurrency"), measure=model,
    )  # fmt: skip
    assert len({run.seed for run in model.runs}) == len(model.runs)
    assert [run.records.name for run in model.runs if run.records][:2] == [
        "r-concurrency-1-1.jsonl", "r-concurrency-2-1.jsonl",
    ]  # fmt: skip


def test_a_server_that_is_too_slow_at_one_at_a_time() -> None:
    """Nothing is found, and it says so."""
    found = find_limit(CONFIG, Plan(axis="concurrency"), measure=Model(0))
    assert (found.found_at, found.end) == (None, "none_meets")
    assert found.reason == "not even 1 in flight was shown to keep the SLO"


def test_void_runs_are_no_evidence() -> None:
    """A client that was the bottleneck proves nothing: four looks, then the search ends with the reason."""
    model = Model(11, lag=STUCK)
    found = find_limit(CONFIG, Plan(axis="concurrency"), measure=model)
    assert (found.found_at, found.end, len(model.runs)) == (None, "void", 4)
    assert "saturated" in found.reason
    assert found.points[0].judged == 0


def test_time_ends_the_search() -> None:
    """Runs of a minute each do not fit into a second: only the first, of unknown length, is made."""
    model = Model(11)
    found = find_limit(CONFIG, Plan(axis="concurrency", within_s=1), measure=model)
    assert found.end == "time"
    assert len(model.runs) == 1


def test_an_interruption_ends_it_with_what_was_shown() -> None:
    """Ctrl-C in the third run: one and two in flight had been shown."""
    found = find_limit(CONFIG, Plan(axis="concurrency"), measure=Model(11, interrupt_at=3))
    assert (found.end, found.found_at) == ("interrupted", 2)


def test_a_sweep_measures_each_load_once() -> None:
    """Four loads in ascending order; 4 keeps the SLO, 8 is over the limit."""
    model = Model(5)
    swept = run_sweep(
        msgspec.structs.replace(CONFIG, requests=60), "concurrency", [8, 1, 4, 2], measure=model
    )
    assert [run.concurrency for run in model.runs] == [1, 2, 4, 8]
    assert (swept.found_at, swept.not_shown_at, swept.end) == (4, 8, "complete")
    assert swept.points[-1].verdict == "misses"


@pytest.mark.parametrize("loads", [[], [0], [1.5], [-2]])
def test_loads_must_be_possible(loads: list[float]) -> None:
    """One and a half requests in flight are none."""
    with pytest.raises(BadInputError, match="--sweep concurrency"):
        run_sweep(CONFIG, "concurrency", loads, measure=Model(5))


def test_without_a_limit_there_is_nothing_to_find() -> None:
    """And a remedy is named."""
    with pytest.raises(BadInputError, match="no SLO"):
        find_limit(ProbeConfig(url="u"), Plan(axis="rate"), measure=Model(5))


# --------------------------------------------------------------------------- the command

COMMAND = [sys.executable, "-m", "qwenhost.cli.main"]
SHORT = ["--input-tokens", "40", "--output-tokens", "4", "--warmup", "0", "--json"]


def qwenhost(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulated engine for two H200."""
    folder = tmp_path_factory.mktemp("engine")
    done = qwenhost("plan", "--gpus", "2xH200", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "plan.json").write_text(done.stdout)
    log = folder / "log"
    arguments = ["_simulated-engine", "--plan", str(folder / "plan.json"), "--port", "0"]
    with log.open("w") as file:
        process = subprocess.Popen([*COMMAND, *arguments, "--startup-seconds", "0.1"], stderr=file)
    try:
        deadline = time.monotonic() + 30
        while "http://" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield "http://" + log.read_text().partition("http://")[2].split()[0]
    finally:
        process.kill()
        process.wait()


def test_a_search_on_the_simulated_engine(engine: str, tmp_path: Path) -> None:
    """At most 4 in flight with a generous limit: 4 is found and saved as plain measurements."""
    saved = tmp_path / "m.json"
    limits = ["--slo-ttft-ms", "60000", "--slo-tpot-ms", "10000", "--most", "4"]
    done = qwenhost(
        "probe", engine, "--find-concurrency", "--concurrency", "4", *limits, *SHORT, "--save", str(saved)
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["schema"], found["found_at"], found["end"]) == ("qwenhost.sweep/1", 4, "limit")
    assert load_measurements(saved).load.concurrency == 4


def test_a_limit_that_nothing_keeps_is_exit_5(engine: str) -> None:
    """No first token comes within a microsecond."""
    limits = ["--slo-ttft-ms", "0.001", "--requests", "20"]
    done = qwenhost("probe", engine, "--find-concurrency", *limits, *SHORT)
    assert done.returncode == 5
    assert json.loads(done.stdout)["end"] == "none_meets"


def test_a_sweep_for_people(engine: str, tmp_path: Path) -> None:
    """One row a load, and the object in a file."""
    saved = tmp_path / "sweep.json"
    options = [*SHORT[:-1], "--requests", "8", "--save-sweep", str(saved)]
    done = qwenhost("probe", engine, "--sweep", "concurrency=1,2", *options)
    assert "in flight" in done.stdout, done.stderr
    assert [point["at"] for point in json.loads(saved.read_text())["points"]] == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sweep", "speed=1"], "--sweep 'speed=1'"),
        (["--sweep", "rate=1", "--find-rate"], "one of"),
        (["--find-rate", "--find-concurrency"], "one of"),
        (["--find-rate", "--duration", "9"], "--duration"),
        (["--find-concurrency", "--most", "0.5"], "--most"),
    ],
)
def test_bad_options_are_a_sentence(options: list[str], message: str) -> None:
    """Exit 2 before anything is sent."""
    done = qwenhost("probe", "http://127.0.0.1:9", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr

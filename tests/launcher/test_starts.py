"""How long a start should take: by allowance, or as earlier ones on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from launcher_kit import QUICK, RESTLESS, Story

from qwenhost.launcher.command import EngineCommand
from qwenhost.launcher.launch import Launch
from qwenhost.launcher.phases import Phase
from qwenhost.launcher.starts import Allowance, Span, Starts, fingerprint
from qwenhost.launcher.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.launcher.events import ServiceEvent
    from qwenhost.launcher.state import Expected, ServiceHome
    from qwenhost.plan import Plan

ALLOWANCE = Allowance(
    boot_s=Span(value=30, low=15, high=60),
    read_gb_per_s=Span(value=2.0, low=0.5, high=4.0),
    warmup_s=Span(value=150, low=45, high=440),
)


def command(**changes: Any) -> EngineCommand:
    fields: dict[str, Any] = {
        "engine": "vllm", "argv": ("vllm", "serve", "m", "--port", "8000", "--max-model-len", "4096"),
        "host": "127.0.0.1", "port": 8000, "model": "m", "label": "l",
    }  # fmt: skip
    return EngineCommand(**(fields | changes))


def test_an_allowance_is_boot_read_and_warm_up() -> None:
    """100 GB: 30 + 50 + 150 s; at best 15 + 25 + 45, at worst 60 + 200 + 440."""
    expected = ALLOWANCE.of(100e9)
    assert (expected.ready_s, expected.low_s, expected.high_s) == (230.0, 85.0, 700.0)
    assert expected.end_of(Phase.CONFIG) == 30.0
    assert expected.end_of(Phase.WEIGHTS) == 80.0
    assert expected.end_of(Phase.GRAPHS) == 230.0
    assert expected.basis == "assumed"
    assert "100 GB of weights at 2 GB/s" in expected.sentence


def test_nothing_is_expected_of_what_no_plan_describes(tmp_path: Path, plan: Plan) -> None:
    """A trial on CPU has no plan; a planned engine has its checkpoint's bytes."""
    starts = Starts(tmp_path / "starts.json", ALLOWANCE)
    assert starts.expected(command()) is None
    assert Starts(tmp_path / "starts.json").expected(command(candidate=plan.chosen)) is None
    planned = starts.expected(command(candidate=plan.chosen))
    assert planned is not None
    assert planned.ready_s == pytest.approx(180 + plan.chosen.checkpoint.disk_bytes / 2e9)


def test_earlier_starts_here_are_better_than_allowances(tmp_path: Path, plan: Plan) -> None:
    """The median of the last five; phases that not all of them showed are left out."""
    starts = Starts(tmp_path / "starts.json", ALLOWANCE)
    mine = command(candidate=plan.chosen)
    for ready in (900.0, 100.0, 60.0, 50.0, 70.0, 80.0):
        phases = {"weights": 10.0, "ready": ready} | ({"kv": 40.0} if ready != 60.0 else {})
        starts.remember(mine, phases, at="2026-11-23T10:00:00+00:00")
    expected = starts.expected(mine)
    assert expected is not None
    assert (expected.ready_s, expected.low_s, expected.high_s) == (70.0, 50.0, 100.0)
    assert set(expected.begins_s) == {"weights", "ready"}
    assert expected.basis == "measured"
    assert "last 5 starts, medians, on this machine, until 2026-11-23" in expected.sentence


def test_address_and_names_do_not_make_another_engine() -> None:
    """Flags that change the work do."""
    words = (
        "vllm",
        "serve",
        "m",
        "--port",
        "9000",
        "--max-model-len",
        "4096",
        "--served-model-name",
        "a",
        "b",
    )
    assert fingerprint(command()) == fingerprint(command(argv=words, port=9000))
    longer = ("vllm", "serve", "m", "--port", "8000", "--max-model-len", "8192")
    assert fingerprint(command()) != fingerprint(command(argv=longer))
    assert fingerprint(command()) != fingerprint(command(env={"A": "1"}))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"x": 1}'])
def test_a_broken_file_is_none(tmp_path: Path, content: bytes) -> None:
    """It is replaced with the next start."""
    file = tmp_path / "starts.json"
    file.write_bytes(content)
    starts = Starts(file)
    assert starts.expected(command()) is None
    starts.remember(command(), {"ready": 5.0}, at="2026-11-23T10:00:00+00:00")
    assert starts.expected(command()) is not None


def ready_once(
    engine: EngineCommand, home: ServiceHome, file: Path
) -> tuple[list[str], Expected | None, list[ServiceEvent]]:
    """Started, ready, stopped: kinds of events, what was expected, the events."""
    story = Story()
    running: list[Supervisor] = []

    def on_event(event: ServiceEvent) -> None:
        story.events.append(event)
        if event.kind == "ready":
            running[0].request_stop()

    launch = Launch(command=engine, limits=QUICK, policy=RESTLESS, starts=Starts(file))
    running.append(Supervisor(launch, home, on_event=on_event))
    state = running[0].run()
    return story.kinds, state.expected, story.events


def test_a_supervisor_remembers_and_expects(
    home: ServiceHome, stand_in: Callable[..., EngineCommand], tmp_path: Path
) -> None:
    """The second start knows what the first took, in its events and in its state."""
    log = tmp_path / "log"
    log.write_text("INFO 11-23 10:00:00 [x.py:1] Starting to load model m\n")
    engine = stand_in(log=str(log))
    expected = [ready_once(engine, home, tmp_path / "starts.json") for _ in range(2)]
    assert "expected" not in expected[0][0]
    assert expected[0][1] is None
    assert expected[1][0][:2] == ["start", "expected"]
    second = expected[1][1]
    assert second is not None
    assert (second.basis, 0 < second.ready_s < QUICK.ready_s) == ("measured", True)
    weights = next(event for event in expected[1][2] if event.data.get("phase") == "weights")
    assert "loading weights (until about " in weights.message
    assert weights.data["expected_ready_s"] == pytest.approx(second.ready_s, abs=0.1)
    ready = next(event for event in expected[1][2] if event.kind == "ready")
    assert "expected (measured)" in ready.message
    kept = msgspec.json.decode((tmp_path / "starts.json").read_bytes())
    assert [len(rows) for rows in kept.values()] == [2]

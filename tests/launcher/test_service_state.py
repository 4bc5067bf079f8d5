"""State files, locks, rotated logs, and the plan's figures beside the log's."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from qwenhost.errors import BadInputError
from qwenhost.launcher.deviation import describe, deviations
from qwenhost.launcher.log_reader import read_lines
from qwenhost.launcher.phases import LogFigures
from qwenhost.launcher.process import RotatingLog
from qwenhost.launcher.state import ServiceHome, ServiceState, current_state, service_homes, state_root
from qwenhost.units import GIB

if TYPE_CHECKING:
    from qwenhost.plan import Plan


def state(**changes: object) -> ServiceState:
    fields = {
        "name": "test", "status": "ready", "engine": "vllm", "target": "gpu", "base_url": "http://127.0.0.1:1",
        "model": "m", "label": "l", "supervisor_pid": os.getpid(), "started_at": "", "updated_at": "",
    }  # fmt: skip
    return ServiceState(**{**fields, **changes})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"QWENHOST_STATE_DIR": "/a", "XDG_STATE_HOME": "/b"}, "/a"),
        ({"XDG_STATE_HOME": "/b"}, "/b/qwenhost"),
        ({}, str(Path.home() / ".local/state/qwenhost")),
    ],
)
def test_where_states_are_kept(environ: dict[str, str], expected: str) -> None:
    """Ours, then XDG's, then XDG's default."""
    assert str(state_root(environ)) == expected


def test_a_name_is_held_by_one_supervisor(home: ServiceHome) -> None:
    """By a lock that dies with it, not by a process id that another process may get."""
    assert not home.is_running()
    lock = home.lock()
    assert home.is_running()
    with pytest.raises(BadInputError, match="already running"):
        home.lock()
    os.close(lock)
    assert not home.is_running()


def test_a_state_without_its_supervisor_is_failed(home: ServiceHome) -> None:
    """Whatever it wrote last; a stopped one stays stopped."""
    home.write_state(state())
    died = current_state(home)
    assert died is not None
    assert died.failure is not None
    assert (died.status, died.failure.kind) == ("failed", "supervisor_died")
    with (home.path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        alive = current_state(home)
        assert alive is not None
        assert alive.status == "ready"
    home.write_state(state(status="stopped"))
    stopped = current_state(home)
    assert stopped is not None
    assert stopped.status == "stopped"


def test_a_foreign_file_is_named(home: ServiceHome) -> None:
    """Not a traceback of the decoder."""
    home.state_file.write_text("{}")
    with pytest.raises(BadInputError, match=r"state\.json: schema is None, expected 'qwenhost\.service/1'"):
        home.read_state()


def test_only_folders_with_a_state_are_services(home: ServiceHome) -> None:
    """By name; other folders are left alone."""
    root = home.path.parent
    (root / "other").mkdir()
    home.write_state(state())
    assert [found.name for found in service_homes(root)] == ["test"]
    assert service_homes(root / "nowhere") == []


def test_a_log_is_rotated_and_still_followed(home: ServiceHome) -> None:
    """The first part moves to .1 when the limit is passed."""
    log = RotatingLog(home.log_file, limit_bytes=20)
    log.write(b"first line\n")
    log.write(b"second line\n")
    log.close()
    assert list(read_lines(home)) == ["second line"]
    assert home.log_file.with_name("engine.log.1").read_text() == "first line\n"


def test_a_new_run_begins_a_new_log(home: ServiceHome) -> None:
    """The one before stays beside it."""
    for words in (b"one\n", b"two\n"):
        log = RotatingLog(home.log_file)
        log.write(words)
        log.close()
    assert list(read_lines(home)) == ["two"]
    assert home.log_file.with_name("engine.log.1").read_text() == "one\n"


def test_the_last_lines(home: ServiceHome) -> None:
    """Of three, two."""
    home.log_file.write_text("a\nb\nc\n")
    assert list(read_lines(home, last=2)) == ["b", "c"]
    assert list(read_lines(home, last=2, follow=True)) == ["b", "c"], "nobody runs, so following ends"


def test_figures_off_the_plan_are_reported(plan: Plan) -> None:
    """60 GiB of weights planned and 66 loaded is 10 % off; 4 % less cache is not worth a word."""
    memory = msgspec.structs.replace(
        plan.chosen.memory_per_gpu, weights_bytes=60 * GIB, kv_cache_bytes=50 * GIB
    )
    candidate = msgspec.structs.replace(plan.chosen, memory_per_gpu=memory)
    found = deviations(LogFigures(model_loading_gib=66.0, available_kv_gib=48.0), candidate)
    assert [(d.name, round(d.relative, 6)) for d in found] == [("weights", 0.1)]
    assert describe(found[0]) == "weights: 66 GiB, planned 60 GiB (+10.0%)"


def test_without_a_plan_there_is_nothing_to_compare() -> None:
    """--target cpu has none."""
    assert deviations(LogFigures(model_loading_gib=1.0), None) == ()

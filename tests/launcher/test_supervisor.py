"""The supervisor against real processes that misbehave on demand."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest
from launcher_kit import QUICK, RESTLESS, Story

from qwenhost.launcher.command import EngineCommand
from qwenhost.launcher.launch import FallbackCommand
from qwenhost.launcher.process import session_members
from qwenhost.launcher.supervisor import Supervisor

if TYPE_CHECKING:
    from qwenhost.launcher.state import ServiceHome

LOGS = Path(__file__).parent.parent / "logs"
Make = Callable[..., tuple[Supervisor, Story]]
Command = Callable[..., EngineCommand]


@contextmanager
def running(supervisor: Supervisor) -> Iterator[threading.Thread]:
    """The supervisor's loop on a thread; stopped by force at the end, whatever happened."""
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield thread
    finally:
        supervisor.request_stop(force=True)
        thread.join(10)
        assert not thread.is_alive()


def test_a_service_becomes_ready_and_stops_when_asked(
    supervise: Make, stand_in: Command, home: ServiceHome
) -> None:
    """Ready means that a completion came back; the state file follows."""
    supervisor, story = supervise(stand_in(log=str(LOGS / "vllm-0.32-cpu-start.log")))
    with running(supervisor):
        story.wait_for("ready")
        state = home.read_state()
        assert state is not None
        assert (state.status, state.model) == ("ready", "stand-in")
        assert state.figures.kv_cache_tokens == 1_198_372
        supervisor.request_stop()
        story.wait_for("stopped")
    assert story.kinds == ["start", "ready", "stopping", "stopped"]
    assert session_members(state.engine_pid or -1) == []


def test_files_are_for_their_owner_alone(supervise: Make, stand_in: Command, home: ServiceHome) -> None:
    """0700 for the folder, 0600 for log and state."""
    supervisor, story = supervise(stand_in())
    with running(supervisor):
        story.wait_for("ready")
    modes = [path.stat().st_mode & 0o777 for path in (home.path, home.log_file, home.state_file)]
    assert modes == [0o700, 0o600, 0o600]


def test_an_unrequested_exit_0_is_a_crash(supervise: Make, stand_in: Command, tmp_path: Path) -> None:
    """VLLM's server ends with 0 when its engine dies; the service comes back."""
    once = str(tmp_path / "once")
    supervisor, story = supervise(stand_in(then="exit0", after_s=1.0, once=once))
    with running(supervisor):
        story.wait_for("ready", 2)
        assert supervisor.state.restarts == 1
    assert story.kinds[:5] == ["start", "ready", "failure", "restart", "start"]


def test_an_engine_killed_from_outside_comes_back(supervise: Make, stand_in: Command) -> None:
    """Its first process is gone; its workers must not stay."""
    supervisor, story = supervise(stand_in(children=2))
    with running(supervisor):
        story.wait_for("ready")
        first = supervisor.state.engine_pid
        assert first is not None
        family = psutil.Process(first).children(recursive=True)
        assert len(family) == 2
        os.kill(first, signal.SIGKILL)
        story.wait_for("ready", 2)
        assert not any(process.is_running() for process in family)


@pytest.mark.parametrize(("fault", "kind"), [("503", "unhealthy"), ("stall", "hung")])
def test_a_half_dead_engine_is_replaced(
    supervise: Make, stand_in: Command, tmp_path: Path, fault: str, kind: str
) -> None:
    """/health says 503; or it says 200 while requests run and no token comes."""
    supervisor, story = supervise(
        stand_in(then=fault, after_s=0.6, once=str(tmp_path / "once"), ignore_sigterm=True)
    )
    with running(supervisor):
        assert story.wait_for("unhealthy").data["failure"] == kind
        story.wait_for("ready", 2)


def test_a_service_that_keeps_dying_is_given_up(
    supervise: Make, stand_in: Command, home: ServiceHome
) -> None:
    """Three restarts within the window, then failed."""
    supervisor, story = supervise(stand_in(then="exit0", after_s=0.7))
    state = supervisor.run()
    assert state.status == "failed"
    assert story.kinds.count("start") == 1 + RESTLESS.max_restarts
    assert state.failure is not None
    assert state.failure.kind == "exited"


def test_a_wrong_flag_is_not_tried_again(supervise: Make, stand_in: Command) -> None:
    """The log of a real vLLM that refused a flag, exit code 2."""
    supervisor, story = supervise(stand_in(log=str(LOGS / "vllm-0.32-cpu-bad-flag.log"), exit=2))
    state = supervisor.run()
    assert story.kinds == ["start", "failure", "failed"]
    assert state.failure is not None
    assert (state.failure.kind, state.failure.exit_code) == ("bad_flag", 2)


def test_a_start_that_does_not_fit_takes_the_plans_fallback(supervise: Make, stand_in: Command) -> None:
    """The log of a context that did not fit; the shorter one, sized in advance, starts."""
    log = str(LOGS / "vllm-0.32-cpu-context-does-not-fit.log")
    refused = stand_in(log=log, exit=1, exit_unless_flag="--short")
    shorter = msgspec.structs.replace(refused, argv=(*refused.argv, "--short"))
    other = FallbackCommand(trigger="out_of_memory", change="fewer sequences", command=refused)
    fallback = FallbackCommand(
        trigger="kv_cache_too_small", change="131072 tokens of context", command=shorter
    )
    supervisor, story = supervise(refused, fallbacks=(other, fallback))
    with running(supervisor):
        story.wait_for("ready")
        changes = supervisor.state.fallbacks
        assert [(c.trigger, c.change) for c in changes] == [
            ("kv_cache_too_small", "131072 tokens of context")
        ]
        assert "3328" in changes[0].cause
        assert supervisor.state.argv[-1] == "--short"


def test_fallbacks_run_out(supervise: Make, stand_in: Command) -> None:
    """One fallback that fails alike: the service fails and says why."""
    refused = stand_in(log=str(LOGS / "vllm-0.32-cpu-context-does-not-fit.log"), exit=1)
    fallback = FallbackCommand(trigger="kv_cache_too_small", change="shorter", command=refused)
    supervisor, story = supervise(refused, fallbacks=(fallback,))
    state = supervisor.run()
    assert story.kinds == ["start", "failure", "fallback", "start", "failure", "failed"]
    assert state.failure is not None
    assert state.failure.kind == "kv_cache_too_small"


def test_sigterm_swallowed_during_the_start_ends_in_a_kill(supervise: Make, stand_in: Command) -> None:
    """VLLM swallows SIGTERM while it starts; its workers are killed with it."""
    command = stand_in(ignore_sigterm=True, children=1, log="/dev/null")
    supervisor, story = supervise(msgspec.structs.replace(command, port=1))  # never found ready
    with running(supervisor):
        while not (pid := supervisor.state.engine_pid) or not psutil.Process(pid).children():
            pass
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        supervisor.request_stop()
        story.wait_for("stopped", within_s=QUICK.kill_s + 5)
    # Whose parent is gone is reaped by another, a moment later.
    assert psutil.wait_procs(family, timeout=10)[1] == []


def test_a_start_that_never_becomes_ready_fails_in_time(supervise: Make, stand_in: Command) -> None:
    """Not ready after --ready-timeout; the message says where it stood."""
    command = stand_in(log=str(LOGS / "vllm-0.32-cpu-no-weights.log"))
    limits = msgspec.structs.replace(QUICK, ready_s=1.0)
    supervisor, _ = supervise(msgspec.structs.replace(command, port=1), limits=limits)
    state = supervisor.run()
    assert state.failure is not None
    assert state.failure.kind == "not_ready_in_time"
    assert "loading weights" in state.failure.cause


def test_a_first_completion_that_fails_is_not_ready(supervise: Make, stand_in: Command) -> None:
    """/health says 200; the model cannot chat. Another start would not help."""
    supervisor, story = supervise(stand_in(chat=400))
    state = supervisor.run()
    assert story.kinds == ["start", "unhealthy", "failure", "failed"]
    assert state.failure is not None
    assert "/v1/chat/completions answered 400" in state.failure.cause


def test_the_log_explains_a_failed_first_completion(supervise: Make, stand_in: Command) -> None:
    """MTP with prefix caching on CPU dies at the first request; the exception says more than the 500."""
    said = "(Worker pid=9) ERROR 11-23 10:00:00 [m.py:1] TypeError: 'function' object is not subscriptable\n"
    supervisor, _ = supervise(stand_in(chat=500, says=said))
    state = supervisor.run()
    assert state.failure is not None
    assert state.failure.cause == "TypeError: 'function' object is not subscriptable"


def test_a_first_start_is_tried_three_times_at_most(supervise: Make, stand_in: Command) -> None:
    """Where the failure may pass, as when another process still holds the GPU."""
    supervisor, story = supervise(stand_in(exit=0))
    assert supervisor.run().status == "failed"
    assert story.kinds.count("start") == 3


def test_a_program_that_cannot_run_is_a_clear_failure(supervise: Make, stand_in: Command) -> None:
    """No traceback for a path that is no program."""
    command = msgspec.structs.replace(stand_in(), argv=("/nonexistent/vllm", "serve"))
    supervisor, _ = supervise(command)
    state = supervisor.run()
    assert state.failure is not None
    assert (state.failure.kind, state.failure.bad_input) == ("not_executable", True)
    assert "/nonexistent/vllm: No such file or directory" in state.failure.cause


def test_the_key_is_neither_in_argv_nor_in_any_file(
    supervise: Make, stand_in: Command, home: ServiceHome
) -> None:
    """It reaches the engine by its environment only."""
    supervisor, story = supervise(stand_in(), api_key="very-secret-key")
    with running(supervisor):
        story.wait_for("ready")
        pid = supervisor.state.engine_pid
        assert b"VLLM_API_KEY=very-secret-key" in Path(f"/proc/{pid}/environ").read_bytes()
        assert b"very-secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    written = b"".join(path.read_bytes() for path in home.path.iterdir())
    assert b"very-secret" not in written
    assert b"very-secret" not in repr(supervisor._launch).encode()

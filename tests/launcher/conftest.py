"""Services made of real processes: a stand-in engine where a fault cannot be had on a CPU."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from launcher_kit import QUICK, RESTLESS, STAND_IN, Story

from qwenhost.cli.main import run
from qwenhost.launcher.build import free_port
from qwenhost.launcher.command import EngineCommand
from qwenhost.launcher.launch import FallbackCommand, Launch
from qwenhost.launcher.state import ServiceHome
from qwenhost.launcher.supervisor import Supervisor
from qwenhost.plan import Plan, load_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.launcher.health import Limits
    from qwenhost.launcher.restart import RestartPolicy


@pytest.fixture
def home(tmp_path: Path) -> ServiceHome:
    found = ServiceHome("test", root=tmp_path / "state")
    found.create()
    return found


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., EngineCommand]:
    """A command for the stand-in; faults as in its own docstring."""

    def command(*flags: str, **faults: Any) -> EngineCommand:
        port = free_port()
        return EngineCommand(
            engine="vllm",
            target="cpu",
            argv=(sys.executable, str(STAND_IN), "serve", "--port", str(port), *flags),
            env={"STAND_IN": json.dumps(faults)},
            host="127.0.0.1",
            port=port,
            model="stand-in",
            label="a stand-in",
        )

    return command


@pytest.fixture
def supervise(home: ServiceHome) -> Callable[..., tuple[Supervisor, Story]]:
    """A supervisor that has not been run yet."""

    def make(
        command: EngineCommand,
        *,
        fallbacks: tuple[FallbackCommand, ...] = (),
        limits: Limits = QUICK,
        policy: RestartPolicy = RESTLESS,
        api_key: str | None = None,
    ) -> tuple[Supervisor, Story]:
        story = Story()
        launch = Launch(command=command, api_key=api_key, fallbacks=fallbacks, limits=limits, policy=policy)
        return Supervisor(launch, home, on_event=story.events.append), story

    return make


@pytest.fixture(scope="session")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real plan for two H200."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    assert run(["plan", "--gpus", "2xH200", "--save", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def plan(plan_file: Path) -> Plan:
    return load_plan(plan_file)

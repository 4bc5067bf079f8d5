"""A plan made ready for a supervisor: command, fallbacks, files in the service's folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from typing import TYPE_CHECKING, Literal

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.launcher.command import ServeOptions, cpu_command, plan_command, simulated_command
from qwenhost.launcher.health import Limits
from qwenhost.launcher.launch import FallbackCommand, Launch
from qwenhost.launcher.service import new_home, running_service
from qwenhost.launcher.starts import Starts
from qwenhost.plan import plan_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qwenhost.launcher.command import EngineCommand
    from qwenhost.launcher.events import ServiceEvent
    from qwenhost.launcher.launch import MetricsAddress
    from qwenhost.launcher.service import RunningService
    from qwenhost.launcher.starts import Allowance
    from qwenhost.launcher.state import ServiceHome
    from qwenhost.plan import Plan


def build_launch(
    plan: Plan | None,
    home: ServiceHome,
    options: ServeOptions,
    *,
    engine: Literal["vllm", "simulated"] = "vllm",
    target: Literal["gpu", "cpu"] = "gpu",
    api_key: str | None = None,
    load_format: str | None = None,
    startup_s: float | None = None,
    ready_s: float = 3600.0,
    stall_s: float = 180.0,
    metrics: MetricsAddress | None = None,
    allowance: Allowance | None = None,
) -> Launch:
    """What a supervisor runs; the plan is saved in the service's folder.

    Args:
        plan: needed unless ``target`` is ``cpu``.
        home: the service's folder, which must exist.
        options: host, port, model and further words for the engine.
        engine: real or simulated.
        target: ``cpu`` takes ``options.model`` and no plan.
        api_key: never written into argv; made here where ``options`` names a file of keys.
        load_format: vLLM's, on CPU.
        startup_s: of a simulated engine.
        ready_s: seconds until the engine must be ready.
        stall_s: seconds without progress, while requests run, before the engine counts as hung.
        metrics: where the supervisor answers ``/metrics``.
        allowance: what a start takes, as long as none was measured here.

    Raises:
        BadInputError: a plan or a model is missing.
        UnavailableError: no vLLM program.
    """
    if api_key is None and options.key_file:
        api_key = secrets.token_urlsafe(32)  # the supervisor's own, so that the users' may change
    options = msgspec.structs.replace(options, guarded=api_key is not None)
    limits = Limits(ready_s=ready_s, stall_s=stall_s, drain_s=options.drain_s)
    if plan is not None:
        home.write_private(home.plan_file, plan_to_json(plan))
    fallbacks: tuple[FallbackCommand, ...] = ()
    command: EngineCommand
    if engine == "simulated":
        if plan is None:
            raise BadInputError("a simulated engine needs a plan", remedy="Give a PLAN or --gpus.")
        command = simulated_command(plan, home.plan_file, options, startup_s=startup_s)
    elif target == "cpu" or plan is None:
        command = cpu_command(options, load_format=load_format)
    else:
        command, fallbacks = _planned(plan, options)
    return Launch(
        command=command,
        api_key=api_key,
        fallbacks=fallbacks,
        limits=limits,
        metrics=metrics,
        # A simulated engine takes as long as it is told to.
        starts=Starts(home.path.parent / "starts.json", allowance) if engine == "vllm" else None,
    )


@contextlib.contextmanager
def running_engine(
    plan: Plan | None,
    options: ServeOptions | None = None,
    *,
    engine: Literal["vllm", "simulated"] = "simulated",
    target: Literal["gpu", "cpu"] = "gpu",
    api_key: str | None = None,
    load_format: str | None = None,
    startup_s: float | None = None,
    ready_s: float = 3600.0,
    name: str | None = None,
    root: Path | None = None,
    on_event: Callable[[ServiceEvent], None] = lambda _: None,
) -> Iterator[RunningService]:
    """A ready engine for the length of a ``with`` block, on a free port unless ``options`` names one.

    Arguments as in :func:`build_launch` and :func:`qwenhost.launcher.service.running_service`.

    Raises:
        QwenhostError: it does not become ready.
    """
    home = new_home(name, root=root)
    os.close(home.lock())  # before a file of a running service could be replaced
    launch = build_launch(
        plan,
        home,
        options or ServeOptions(port=free_port()),
        engine=engine,
        target=target,
        api_key=api_key,
        load_format=load_format,
        startup_s=startup_s,
        ready_s=ready_s,
    )
    with running_service(launch, home=home, keep=name is not None, on_event=on_event) as service:
        yield service


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _planned(plan: Plan, options: ServeOptions) -> tuple[EngineCommand, tuple[FallbackCommand, ...]]:
    """The command of the chosen candidate, and for what is tried where it fails."""
    if plan.chosen.parallelism.replicas > 1:
        raise BadInputError(
            f"the plan has {plan.chosen.parallelism.replicas} engines, and a service runs one",
            remedy="Write them with qwenhost render --format compose or helm, or plan with --replicas 1.",
        )
    return plan_command(plan.chosen, options), _fallbacks(plan, options)


def _fallbacks(plan: Plan, options: ServeOptions) -> tuple[FallbackCommand, ...]:
    """The plan's fallbacks; one with other weights than the chosen ones cannot use their folder."""
    repo_id = plan.chosen.checkpoint.repo_id
    found = []
    for fallback in plan.fallbacks:
        same = fallback.candidate.checkpoint.repo_id == repo_id
        mine = options if same else msgspec.structs.replace(options, model=None)
        command = plan_command(fallback.candidate, mine)
        found.append(FallbackCommand(trigger=fallback.trigger, change=fallback.change, command=command))
    return tuple(found)

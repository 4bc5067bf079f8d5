"""Serve a plan, measure it, stop it: the middle of ``qwenhost compare --engine`` and ``qwenhost demo``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qwenhost.cli.output import make_folder, say
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import click

    from qwenhost.facts import Workload
    from qwenhost.launcher.events import ServiceEvent
    from qwenhost.launcher.service import RunningService
    from qwenhost.measurements import Measurements
    from qwenhost.plan import Plan

STARTUP_OF_SIMULATED_S = 2.0
SHORTEST_LOAD_S = 30.0
REQUESTS_A_SLOT = 4


@dataclass(frozen=True)
class Files:
    """Where the pieces of a job go; None = nowhere."""

    plan: Path | None
    measurements: Path | None
    comparison: Path | None
    report: Path | None

    @classmethod
    def within(cls, folder: Path | None, *, comparison: Path | None, report: Path | None) -> Files:
        """All four in a folder, which is made; a file named on its own goes where it was named."""
        if folder is None:
            return cls(None, None, comparison, report)
        make_folder(folder, option="--output-dir")
        return cls(
            folder / "plan.json",
            folder / "measurements.json",
            comparison or folder / "comparison.json",
            report or folder / "report.html",
        )


def measurements(
    ctx: click.Context,
    plan: Plan,
    workload: Workload,
    options: Mapping[str, Any],
    *,
    measured_before: Sequence[Path],
    files: Files,
    quiet: bool,
) -> list[Measurements]:
    """Saved runs, a run made now, or none to price the prediction.

    Raises:
        BadInputError: both a saved run and an engine were given.
        QwenhostError: weights, engine or endpoint failed.
    """
    from qwenhost.files import write_atomically
    from qwenhost.measurements import load_measurements, measurements_to_json
    from qwenhost.plan import plan_to_json

    engine = options["engine"]
    if engine and measured_before:
        raise BadInputError(
            "--engine and --measurements exclude each other", remedy="Measure now, or price a saved run."
        )
    if files.plan:
        write_atomically(files.plan, plan_to_json(plan))
    if measured_before:
        return [load_measurements(path) for path in measured_before]
    if not engine:
        return []
    _tell(f"plan   {plan.chosen.label} on {plan.inputs.node.description}", quiet=quiet)
    measured = _serve_and_probe(ctx, plan, workload, options, quiet=quiet)
    if files.measurements:
        write_atomically(files.measurements, measurements_to_json(measured))
    return [measured]


def _serve_and_probe(
    ctx: click.Context, plan: Plan, workload: Workload, options: Mapping[str, Any], *, quiet: bool
) -> Measurements:
    from qwenhost.cli.service_setup import checks_for
    from qwenhost.launcher.build import free_port, running_engine
    from qwenhost.launcher.command import ServeOptions
    from qwenhost.launcher.preflight import require_passed

    engine: Literal["vllm", "simulated"] = options["engine"]
    port = free_port()
    subject = {"target": "gpu", "host": "127.0.0.1", "model": None, "vllm_bin": None, **options, "port": port}
    require_passed(checks_for(ctx, plan, subject, os.environ))
    _tell(f"serve  {'a simulated engine, no GPU is used' if engine == 'simulated' else 'vLLM'}", quiet=quiet)
    with running_engine(
        plan,
        ServeOptions(
            port=port,
            vllm_bin=options.get("vllm_bin"),
            model=weights_of(plan) if engine == "vllm" else None,
        ),
        engine=engine,
        startup_s=STARTUP_OF_SIMULATED_S if engine == "simulated" else None,
        on_event=lambda event: _on_event(event, quiet=quiet),
    ) as service:
        return _probe(service, plan, workload, options, quiet=quiet)


def _probe(
    service: RunningService, plan: Plan, workload: Workload, options: Mapping[str, Any], *, quiet: bool
) -> Measurements:
    load = load_of(plan, workload, options)
    words = f"{load.rate:g} requests/s" if load.rate else f"{load.concurrency} in flight"
    _tell(f"probe  {load.duration_s:.0f} s of {workload.id} at {words}", quiet=quiet)
    return probe_service(service, workload, load, gpus=plan.inputs.node.description)


@dataclass(frozen=True)
class OfferedLoad:
    """What a service is asked to carry."""

    concurrency: int | None
    rate: float | None
    duration_s: float
    ramp_up_s: float


def load_of(
    plan: Plan | None, workload: Workload, options: Mapping[str, Any], *, concurrency: int = 1
) -> OfferedLoad:
    """The planned load, unless another was asked for, so that prediction and measurement meet.

    A closed loop ramps up over one request's length and lasts for several. ``concurrency`` is that of an
    engine without a plan.
    """
    rate, users = options.get("rate"), options.get("concurrency")
    if rate is None and users is None:
        users = concurrency if plan is None else max(1, round(plan.chosen.estimate.concurrency.value))
    request_s = 0.0 if plan is None else _expected_request_s(plan, workload)
    duration_s = options["duration_s"] or max(SHORTEST_LOAD_S, REQUESTS_A_SLOT * request_s)
    return OfferedLoad(users, rate, duration_s, 0.0 if rate else request_s)


def probe_service(
    service: RunningService, workload: Workload, load: OfferedLoad, *, gpus: str | None
) -> Measurements:
    """Measure a ready service."""
    from qwenhost.cli.probe_view import live_progress
    from qwenhost.probe import ProbeConfig, run_probe

    config = ProbeConfig(
        url=service.base_url,
        model=service.model,
        api_key=service.api_key,
        concurrency=load.concurrency,
        rate=load.rate,
        duration_s=load.duration_s,
        ramp_up_s=load.ramp_up_s,
        workload=workload.id,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        prefix_hit=min(workload.prefix_hit_5m or 0.0, 0.99),
        slo=workload.slo,
        gpus=gpus,
    )
    with live_progress() as on_progress:
        return run_probe(config, on_progress=on_progress).measurements


def _expected_request_s(plan: Plan, workload: Workload) -> float:
    """How long a request should take by the plan."""
    estimate = plan.chosen.estimate
    return (estimate.ttft_ms.value + estimate.tpot_ms.value * workload.output_tokens.mean) / 1000


def weights_of(plan: Plan) -> str:
    """Folder of the plan's weights, fetched where they are not here."""
    from qwenhost.launcher.weights import fetch_checkpoint

    ref = plan.chosen.checkpoint
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    return str(fetch_checkpoint(ref.repo_id, revision=ref.revision, offline=offline, say=say).path)


def _on_event(event: ServiceEvent, *, quiet: bool) -> None:
    if event.kind in ("restart", "fallback", "failed"):
        _tell(f"       {event.message}", quiet=quiet)


def _tell(line: str, *, quiet: bool) -> None:
    if not quiet:
        say(line)

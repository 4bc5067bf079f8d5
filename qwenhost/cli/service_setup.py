"""From the options of ``serve`` to something a supervisor can run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

    from qwenhost.facts import Catalog
    from qwenhost.launcher.checks import Check
    from qwenhost.launcher.command import ServeOptions
    from qwenhost.launcher.launch import Launch, MetricsAddress
    from qwenhost.launcher.starts import Allowance
    from qwenhost.launcher.state import ServiceHome
    from qwenhost.plan import Plan


def prepare(
    ctx: click.Context, plan_path: Path | None, options: Mapping[str, Any]
) -> tuple[Launch, ServiceHome, int]:
    """The launch, the service's folder and its lock.

    Raises:
        QwenhostError: an option is wrong, nothing fits, or the name is taken.
    """
    from qwenhost.cli import wiring
    from qwenhost.launcher.build import build_launch
    from qwenhost.launcher.preflight import require_passed
    from qwenhost.launcher.state import ServiceHome, state_root

    chosen, key = _service_options(options)
    plan = _plan(ctx, plan_path, options)
    home = ServiceHome(options["name"], root=state_root(os.environ))
    lock = home.lock()
    try:
        if not options["force"]:
            require_passed(checks_for(ctx, plan, options, os.environ))
        launch = build_launch(
            plan,
            home,
            _with_weights(plan, chosen, options),
            engine=options["engine"],
            target=options["target"],
            api_key=key,
            load_format=options["load_format"],
            startup_s=options["startup_seconds"],
            ready_s=options["ready_timeout"],
            stall_s=options["stall_timeout"],
            metrics=_metrics(chosen, options),
            allowance=start_allowance(wiring.catalog(ctx)),
        )
    except BaseException:
        os.close(lock)
        raise
    return launch, home, lock


def start_allowance(known: Catalog) -> Allowance:
    """What a start takes by the profiles' assumptions."""
    from qwenhost.launcher.starts import Allowance, Span

    def span(name: str) -> Span:
        row = known.assumptions[name]
        return Span(value=row.value, low=row.low, high=row.high)

    return Allowance(
        boot_s=span("engine_boot_s"),
        read_gb_per_s=span("weight_read_gb_per_s"),
        warmup_s=span("engine_warmup_s"),
    )


def _service_options(options: Mapping[str, Any]) -> tuple[ServeOptions, str | None]:
    """What was chosen about the service, and the key where it does not come by file.

    Raises:
        BadInputError: a key or certificate is wrong, or missing where others could call.
    """
    from qwenhost.launcher.access import read_api_keys, require_certificate, require_key_beyond_loopback
    from qwenhost.launcher.command import ServeOptions
    from qwenhost.units import MIB

    key_file: Path | None = options["api_key_file"]
    keys = read_api_keys(key_file, os.environ)
    require_key_beyond_loopback(options["host"], guarded=bool(keys))
    if options["metrics_port"] is not None:
        require_key_beyond_loopback(options["metrics_host"], guarded=bool(keys), flag="--metrics-host")
    certfile, keyfile = options["ssl_certfile"], options["ssl_keyfile"]
    require_certificate(certfile, keyfile)
    chosen = ServeOptions(
        **{name: options[name] for name in ("host", "port", "model", "vllm_bin", "extra_args")},
        **{name: options[name] for name in ("served_model_names", "max_requests_per_minute")},
        max_body_bytes=int(options["max_body_mib"] * MIB),
        key_file=str(key_file.absolute()) if key_file else None,
        ssl_certfile=str(certfile.absolute()) if certfile else None,
        ssl_keyfile=str(keyfile.absolute()) if keyfile else None,
        drain_s=options["drain_timeout"],
    )
    return chosen, None if key_file else next(iter(keys.values()), None)


def _metrics(chosen: ServeOptions, options: Mapping[str, Any]) -> MetricsAddress | None:
    from qwenhost.launcher.launch import MetricsAddress

    if options["metrics_port"] is None:
        return None
    return MetricsAddress(
        host=options["metrics_host"], port=options["metrics_port"], key_file=chosen.key_file
    )


def checks_for(
    ctx: click.Context, plan: Plan | None, options: Mapping[str, Any], environ: Mapping[str, str]
) -> list[Check]:
    """The preflight list for what is about to be started."""
    from qwenhost.cli import wiring
    from qwenhost.launcher.checks import Subject
    from qwenhost.launcher.preflight import preflight

    known = wiring.catalog(ctx)
    candidate = plan.chosen if plan else None
    reads_hub = options["engine"] == "vllm" and not options["model"]
    wanted = candidate.checkpoint if candidate and reads_hub else None
    checkpoint = known.checkpoints.get(candidate.checkpoint.id) if candidate else None
    subject = Subject(
        **{name: options[name] for name in ("engine", "target", "host", "port")},
        metrics_host=options.get("metrics_host") or "127.0.0.1",
        metrics_port=options.get("metrics_port"),
        vllm_bin=_vllm_or_none(options),
        vllm_version=plan.inputs.vllm_version if plan else None,
        repo_id=wanted.repo_id if wanted else None,
        revision=wanted.revision if wanted else None,
        weights_bytes=wanted.disk_bytes if wanted else 0,
        min_compute_capability=checkpoint.min_compute_capability if checkpoint else 0.0,
    )
    return preflight(subject, candidate, known.gpus, environ=environ)


def _vllm_or_none(options: Mapping[str, Any]) -> str | None:
    from qwenhost.errors import UnavailableError
    from qwenhost.launcher.command import find_vllm

    try:
        return find_vllm(options["vllm_bin"])
    except UnavailableError:
        return None


def _with_weights(plan: Plan | None, chosen: ServeOptions, options: Mapping[str, Any]) -> ServeOptions:
    """The options with a verified local folder as model, where an engine will read weights."""
    if options["engine"] == "simulated":
        return chosen
    import msgspec

    from qwenhost.cli.output import say
    from qwenhost.launcher.checkpoint_folder import verify_folder
    from qwenhost.launcher.weights import fetch_checkpoint

    dummy = options["load_format"] == "dummy"
    if chosen.model:
        if Path(chosen.model).is_dir():
            verify_folder(Path(chosen.model), weights=not dummy)
            return chosen
        ref, revision = chosen.model, None
    elif plan is not None:
        ref, revision = plan.chosen.checkpoint.repo_id, plan.chosen.checkpoint.revision
    else:
        return chosen
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    bars = sys.stderr.isatty()
    fetched = fetch_checkpoint(ref, revision=revision, offline=offline, say=say, bars=bars)
    return msgspec.structs.replace(chosen, model=fetched.path)


def _plan(ctx: click.Context, plan_path: Path | None, options: Mapping[str, Any]) -> Plan | None:
    from qwenhost.cli import wiring
    from qwenhost.cli.plan_file import SIZED, saved_plan

    if plan_path is not None:
        return saved_plan(plan_path, also=SIZED)
    if options["target"] == "cpu":
        if options["engine"] == "simulated":
            raise BadInputError(
                "--engine simulated needs a plan for GPUs", remedy="Leave --target out, or give a PLAN."
            )
        if not options["model"]:
            raise BadInputError(
                "--target cpu needs a small checkpoint to serve", remedy="Give its folder: --model DIR."
            )
        return None
    return wiring.make_plan(wiring.catalog(ctx), options)

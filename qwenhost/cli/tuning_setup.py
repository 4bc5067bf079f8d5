"""From the options of ``tune`` to trials that run: plans, engines, probe, files, services put aside."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.cli import wiring
from qwenhost.cli.output import make_folder, say
from qwenhost.cli.tuning_calibration import calibrate_from
from qwenhost.errors import BadInputError, QwenhostError
from qwenhost.files import write_atomically
from qwenhost.measurements import measurements_to_json
from qwenhost.plan import Plan, load_plan, plan_to_json
from qwenhost.tuning import Handover, Trial, TuneState, contenders, load_state, run_trials, state_to_json
from qwenhost.tuning.run import now
from qwenhost.tuning.state import STATE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import FrameType

    import click

    from qwenhost.facts import Catalog, Workload
    from qwenhost.measurements import Measurements

# What varies on a CPU, where no plan is made: enough to see the whole way work.
CPU_TRIALS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("as served", ()),
    ("max_num_seqs 4", ("--max-num-seqs", "4")),
    ("max_num_seqs 32", ("--max-num-seqs", "32")),
    ("max_num_batched_tokens 512", ("--max-num-batched-tokens", "512")),
)
CPU_CONCURRENCY: Final = 4
STARTUP_OF_SIMULATED_S: Final = 1.0
_NOT_ASKED: Final = frozenset({
    "gpu_price", "gpu_tier", "gpu_provider", "vllm_bin", "stop_services", "fresh", "ready_timeout",
    "calibrate",
})  # fmt: skip


@dataclass
class Aside:
    """Services that were stopped, with the environments they had."""

    handovers: list[Handover] = field(default_factory=list)
    environs: dict[str, dict[str, str]] = field(default_factory=dict)


def tuned(ctx: click.Context, folder: Path, options: dict[str, Any]) -> TuneState:
    """Every trial run, the winner's plan written, the services as they were.

    Raises:
        BadInputError: an option is wrong, or a service holds the GPUs.
        QwenhostError: nothing fits, or a service did not come back.
    """
    _check(options)
    question = _digest(options)
    if options["fresh"]:
        _forget(folder)
    earlier = load_state(folder, question)
    make_folder(folder, option="--output-dir")
    known, given = wiring.with_checkpoint_folder(wiring.catalog(ctx), options)
    options = dict(given)
    aside = Aside(list(earlier.stopped) if earlier else [])
    with _signals_as_interrupts(), _services_aside(aside, options, folder):
        state = earlier or _first_state(known, folder, question, options, aside)
        state = msgspec.structs.replace(state, stopped=tuple(aside.handovers))
        return _run(ctx, known, folder, state, options)


def _check(options: Mapping[str, Any]) -> None:
    if options["target"] == "cpu":
        if options["engine"] == "simulated":
            raise BadInputError("--engine simulated needs GPUs to simulate", remedy="Leave --target out.")
        if not options["model"]:
            raise BadInputError(
                "--target cpu needs a small checkpoint to serve", remedy="Give its folder: --model DIR."
            )
    if options["engine"] == "vllm" and options["gpus"] is not None:
        raise BadInputError(
            "--gpus describes GPUs, and trials run on this machine's",
            remedy="Leave --gpus out, or try the command with --engine simulated.",
        )
    if options["concurrency"] is not None and options["rate"] is not None:
        raise BadInputError("--concurrency and --rate were both given", remedy="Give one of the two.")


def _digest(options: Mapping[str, Any]) -> str:
    """Of what was asked: the same again is the same question."""
    asked = {name: value for name, value in sorted(options.items()) if name not in _NOT_ASKED}
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:16]


def _forget(folder: Path) -> None:
    """Only what a tuning writes; services that are still to be started again are not forgotten."""
    path = folder / STATE_FILE
    if path.exists() and b'"stopped": []' not in path.read_bytes():
        raise BadInputError(
            f"{path} names services that are still stopped",
            remedy="Run it once more without --fresh, which starts them again.",
        )
    for old in [*folder.glob("trial-*.json"), folder / "plan.json", path]:
        old.unlink(missing_ok=True)
    shutil.rmtree(folder / "services", ignore_errors=True)


def _first_state(
    known: Catalog, folder: Path, question: str, options: Mapping[str, Any], aside: Aside
) -> TuneState:
    """The trials, each with its plan in the folder."""
    workload = wiring.workload(known, options)
    if options["target"] == "cpu":
        machine = "this machine's CPU"
        trials = [
            Trial(id=f"trial-{i}", label=label, extra_args=flags)
            for i, (label, flags) in enumerate(CPU_TRIALS[: options["candidates"]], start=1)
        ]
    else:
        plan = wiring.make_plan(known, options)
        machine = plan.inputs.node.description
        found = contenders(
            plan,
            most=options["candidates"],
            any_checkpoint=options["any_checkpoint"],
            allowed=lambda one: _is_calibrated(known, one),
        )
        trials = []
        for i, candidate in enumerate(found, start=1):
            trials.append(
                Trial(
                    id=f"trial-{i}",
                    label=candidate.label,
                    predicted_output_tokens_per_s=candidate.estimate.output_tokens_per_s,
                )
            )
            # Without fallbacks: a trial is of this configuration and of no other.
            alone = msgspec.structs.replace(
                plan, chosen=candidate, alternatives=(), fallbacks=(), rejections=()
            )
            write_atomically(folder / f"trial-{i}.plan.json", plan_to_json(alone))
    return TuneState(
        question=question,
        asked=f"{workload.id} on {machine}, objective {options['objective']}",
        objective=options["objective"],
        machine=machine,
        simulated=options["engine"] == "simulated",
        trials=tuple(trials),
        stopped=tuple(aside.handovers),
        started_at=now(),
        updated_at=now(),
    )


def _is_calibrated(known: Catalog, candidate: Any) -> bool:
    """An FP8 cache without scales is a question of quality, which trials do not measure."""
    declared = known.checkpoints[candidate.checkpoint.id].declared_kv_cache_dtype
    return not candidate.engine_args.kv_cache_dtype.startswith("fp8") or declared is not None


def _run(
    ctx: click.Context, known: Catalog, folder: Path, state: TuneState, options: Mapping[str, Any]
) -> TuneState:
    workload = wiring.workload(known, options)

    def save(found: TuneState) -> None:
        write_atomically(folder / STATE_FILE, state_to_json(found))

    def measure(trial: Trial) -> tuple[Measurements, str]:
        run = _measure(ctx, folder, trial, workload, options)
        name = f"{trial.id}.measurements.json"
        write_atomically(folder / name, measurements_to_json(run))
        return run, name

    save(state)
    state = run_trials(state, measure, save=save, tell=say)
    if state.winner and options["target"] == "gpu":
        final = _final_plan(known, folder, state.winner, options)
        write_atomically(folder / "plan.json", plan_to_json(final))
    if state.winner and options["target"] == "gpu" and not state.simulated and options["calibrate"]:
        kept = state.calibration or calibrate_from(known, folder, state)
        state = msgspec.structs.replace(state, calibration=kept)
        save(state)
    return state


def _measure(
    ctx: click.Context, folder: Path, trial: Trial, workload: Workload, options: Mapping[str, Any]
) -> Measurements:
    """Serve one configuration on a free port, load it, stop it."""
    from qwenhost.cli.live import load_of, probe_service, weights_of
    from qwenhost.cli.service_setup import checks_for
    from qwenhost.launcher.build import free_port, running_engine
    from qwenhost.launcher.command import ServeOptions
    from qwenhost.launcher.preflight import require_passed

    plan = load_plan(folder / f"{trial.id}.plan.json") if options["target"] == "gpu" else None
    port, engine = free_port(), options["engine"]
    subject = {**options, "host": "127.0.0.1", "port": port}
    require_passed(checks_for(ctx, plan, subject, os.environ))
    model = options["model"]
    if model is None and plan is not None and engine == "vllm":
        model = weights_of(plan)
    serve = ServeOptions(port=port, model=model, vllm_bin=options["vllm_bin"], extra_args=trial.extra_args)
    with running_engine(
        plan,
        serve,
        engine=engine,
        target=options["target"],
        load_format=options["load_format"],
        startup_s=STARTUP_OF_SIMULATED_S if engine == "simulated" else None,
        ready_s=options["ready_timeout"],
        name=trial.id,
        root=folder / "services",
    ) as service:
        load = load_of(plan, workload, options, concurrency=CPU_CONCURRENCY)
        run = probe_service(service, workload, load, gpus=plan.inputs.node.description if plan else None)
    if run.interrupted:
        raise KeyboardInterrupt
    return run


def _final_plan(known: Catalog, folder: Path, winner: str, options: Mapping[str, Any]) -> Plan:
    """The winner with fallbacks: planned again with everything pinned to it."""
    plan = load_plan(folder / f"{winner}.plan.json")
    best, layout, args = plan.chosen, plan.chosen.parallelism, plan.chosen.engine_args
    pins = {name: getattr(layout, name) for name in layout.__struct_fields__}
    pins |= {
        name: getattr(args, name)
        for name in (
            "kv_cache_dtype", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
            "num_speculative_tokens", "gpu_memory_utilization", "enable_prefix_caching",
            "language_model_only",
        )
    }  # fmt: skip
    pins["checkpoint"] = best.checkpoint.id
    with contextlib.suppress(
        QwenhostError
    ):  # a memory that changed meanwhile takes fallbacks, not the winner
        again = wiring.make_plan(known, {**options, **pins})
        return msgspec.structs.replace(again, chosen=best)
    return plan


@contextlib.contextmanager
def _services_aside(aside: Aside, options: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Named services stopped for the block and started again after it, also those of an earlier run."""
    from qwenhost.launcher.handover import services_on_gpus, take_over
    from qwenhost.launcher.state import ServiceHome, state_root

    root = state_root(os.environ)
    real = (options["engine"], options["target"]) == ("vllm", "gpu")
    others = [state.name for state in services_on_gpus(root) if state.name not in options["stop_services"]]
    if real and others:
        raise BadInputError(
            f"service {others[0]!r} runs on the GPUs",
            remedy=f"--stop-service {others[0]} stops it for the trials and starts it again at the end.",
        )
    try:
        for name in options["stop_services"]:
            if name not in [one.name for one in aside.handovers]:
                say(f"stop   service {name}, to be started again at the end")
                handover, environ = take_over(ServiceHome(name, root=root))
                aside.handovers.append(handover)
                aside.environs[name] = environ
        yield
    finally:
        _start_again(aside, folder)


def _start_again(aside: Aside, folder: Path) -> None:
    from qwenhost.launcher.handover import give_back

    failures: list[QwenhostError] = []
    for handover in list(aside.handovers):
        say(f"start  service {handover.name} again")
        try:
            give_back(handover, aside.environs.get(handover.name))
        except QwenhostError as error:
            failures.append(error)
            say(f"       {error.message}. {error.remedy}")
        else:
            aside.handovers.remove(handover)
    _note_stopped(folder, tuple(aside.handovers))
    if failures:
        raise failures[0]


def _note_stopped(folder: Path, stopped: tuple[Handover, ...]) -> None:
    """What is still to be started, in the state of a run that has one."""
    path = folder / STATE_FILE
    if path.exists():
        state = msgspec.json.decode(path.read_bytes(), type=TuneState)
        write_atomically(path, state_to_json(msgspec.structs.replace(state, stopped=stopped)))


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP end the run as Ctrl-C does: the engine is stopped, services come back."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

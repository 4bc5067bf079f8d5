"""``qwenhost plan --check LOG``: a real start held against its prediction, and what follows kept."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec
import yaml
from rich.table import Table

from qwenhost.cli import wiring
from qwenhost.cli.output import console, say, write_json
from qwenhost.errors import BadInputError
from qwenhost.facts import Calibration, Source
from qwenhost.files import write_atomically
from qwenhost.launcher.logged_args import logged_arguments
from qwenhost.launcher.phases import LogFigures, read_log
from qwenhost.plan import Parallelism
from qwenhost.planner.check import Launch, Start
from qwenhost.planner.differences import (
    Difference,
    ObservedStart,
    differences,
    differences_on_cpu,
    learned,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qwenhost.facts import Catalog, Checkpoint
    from qwenhost.node import Node

SCHEMA = "qwenhost.check/1"
_LOGGED = (
    "gpu_memory_utilization", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_dtype",
    "mamba_ssm_cache_dtype", "enable_prefix_caching", "language_model_only", "skip_mm_profiling",
    "enforce_eager", "gdn_prefill_backend",
)  # fmt: skip
_LAYOUT = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel")


def check_log(
    known: Catalog, log: Path, options: Mapping[str, Any], *, calibrate: bool, as_json: bool
) -> None:
    """Print the differences; with ``calibrate`` keep what follows in the user's own profiles.

    Raises:
        BadInputError: no such log, no figures in it, a checkpoint or GPU that cannot be told.
    """
    try:
        text = log.read_text(errors="replace")
    except OSError as error:
        raise BadInputError(f"{log}: {error.strerror}", remedy="Name vLLM's start-up log.") from error
    figures = read_log(text).figures
    launch = _launch(known, figures, logged_arguments(text), options)
    observed = _observed(figures, log)
    node, refusal, kept = None, None, None
    if "CPU KV cache size" in text:
        architecture = known.architectures[known.checkpoints[launch.checkpoint].architecture]
        rows = differences_on_cpu(architecture, launch, observed)
        if calibrate:
            raise BadInputError(
                f"{log} is of vLLM's CPU build: it teaches nothing about a GPU",
                remedy="Leave --calibrate out, or name the log of a start on a GPU.",
            )
    else:
        node = wiring.node(known, options)
        start = Start(launch, node, known)
        rows, refusal = differences(start, observed), start.figures().refusal
        if calibrate:
            kept = _keep(known, launch, node, observed, log)
    if as_json:
        write_json(
            {
                "schema": SCHEMA,
                "log": str(log),
                "node": node.description if node else "CPU",
                "launch": launch,
                "differences": [
                    msgspec.to_builtins(row) | {"relative": round(row.relative, 6)} for row in rows
                ],
                "predicted_refusal": refusal,
                "calibration": str(kept) if kept else None,
            }
        )
        return
    _show(rows, f"{launch.checkpoint} {launch.parallelism.label}, vLLM {launch.vllm_version}", node)
    if refusal:
        say(f"Predicted not to start: {refusal.message}")
    if kept:
        say(f"Kept in {kept}; every plan for this GPU uses it from now on. Delete the file to undo.")


def _launch(
    known: Catalog, figures: LogFigures, logged: Mapping[str, Any], options: Mapping[str, Any]
) -> Launch:
    """The log's flags; what is pinned on the command line stands above them."""
    given = {name: logged[name] for name in _LOGGED if logged.get(name) is not None}
    given |= {name: options[name] for name in _LOGGED if options.get(name) is not None}
    layout = {name: logged[name] for name in _LAYOUT if logged.get(name) is not None}
    layout |= {name: options[name] for name in _LAYOUT if options.get(name) is not None}
    drafts = options.get("num_speculative_tokens")
    if drafts is None:
        speculative = logged.get("speculative_config")
        drafts = speculative.get("num_speculative_tokens", 0) if isinstance(speculative, dict) else 0
    lengths = {} if "max_model_len" in given else {"max_model_len": figures.max_model_len}
    version = figures.vllm_version or options["vllm_version"]
    try:
        return msgspec.convert(
            {
                "checkpoint": _checkpoint(known, logged, options).id,
                "parallelism": Parallelism(**layout),
                "vllm_version": version,
                "num_speculative_tokens": drafts,
                **lengths,
                **given,
            },
            Launch,
        )
    except msgspec.ValidationError as error:
        raise BadInputError(
            f"the log's flags: {error}", remedy="Pin the flag on the command line instead."
        ) from error


def _checkpoint(known: Catalog, logged: Mapping[str, Any], options: Mapping[str, Any]) -> Checkpoint:
    name = str(options.get("checkpoint") or logged.get("model") or logged.get("model_tag") or "")
    wanted = name.rstrip("/").lower()
    for row in known.checkpoints.values():
        if wanted in {row.id.lower(), row.repo_id.lower()}:
            return row
    raise BadInputError(
        f"model {name!r} of the log is no checkpoint of the catalog" if name else "the log names no model",
        remedy="Say which it is: --checkpoint ID (qwenhost profiles list checkpoints).",
    )


def _observed(figures: LogFigures, log: Path) -> ObservedStart:
    found = {name: getattr(figures, name) for name in ObservedStart.__struct_fields__}
    if all(value is None for value in found.values()):
        raise BadInputError(
            f"{log}: no memory figures in it",
            remedy="Name the log of a start that came as far as loading the model.",
        )
    return ObservedStart(**found)


def _keep(known: Catalog, launch: Launch, node: Node, observed: ObservedStart, log: Path) -> Path:
    spec = known.gpus[str(node.gpus[0].spec)]
    constants = learned(launch, node, known, observed)
    if not constants:
        raise BadInputError(
            f"{log}: neither model loading nor available memory in it, so nothing follows",
            remedy="Name the log of a complete start.",
        )
    row = Calibration(
        id=f"measured-{spec.id}",
        gpu_architecture=spec.architecture,
        gpu=spec.id,
        vllm_version=launch.vllm_version,
        kernels={},
        constants=constants,
        relative_band_low=0.1,
        relative_band_high=0.1,
        basis="measured",
        measurements=(f"{launch.checkpoint} {launch.parallelism.label} on {node.description}",),
        source=Source(
            where=str(log.resolve()),
            as_of=dt.datetime.now(tz=dt.UTC).date(),
            note="Written by: qwenhost plan --check LOG --calibrate. Memory only.",
        ),
    )
    path = wiring.user_profiles() / f"measured-{spec.id}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"calibrations": [msgspec.to_builtins(row, builtin_types=(dt.date,))]}
    write_atomically(path, yaml.safe_dump(rows, sort_keys=False).encode())
    return path


def _show(rows: tuple[Difference, ...], title: str, node: Node | None) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.title = f"{title}, {node.description if node else 'CPU'}"
    for name, justify in (
        ("", "left"),
        ("predicted", "right"),
        ("log", "right"),
        ("", "right"),
        ("given", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        digits = 0 if row.unit == "tokens" else 2
        values = (f"{value:,.{digits}f} {row.unit}" for value in (row.predicted, row.observed))
        table.add_row(row.figure, *values, f"{row.relative:+.1%}", row.given)
    console().print(table)

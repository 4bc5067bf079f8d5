"""``qwenhost k8s init``: plan on the GPUs that a pod was really given, for the engine beside it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from qwenhost.cli import wiring
from qwenhost.cli.options import json_option
from qwenhost.cli.output import say, write_json
from qwenhost.errors import BadInputError, QwenhostError

if TYPE_CHECKING:
    from qwenhost.facts import Catalog
    from qwenhost.kubernetes import InitRequest
    from qwenhost.node import Node
    from qwenhost.plan import Plan

_LONGEST_MESSAGE = 4096  # what Kubernetes keeps of a termination message


@click.command("init", short_help="Plan on this pod's GPUs, or refuse in one sentence.")
@click.option(
    "--request",
    "request_file",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML: checkpoints that are mounted, workload, limits, nodes; the chart writes it.",
)
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="vLLM's config file to write."
)
@click.option(
    "--termination-log",
    default="/dev/termination-log",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where a refusal is written for kubectl describe.",
)
@json_option
@click.pass_context
def init(ctx: click.Context, request_file: Path, output: Path, termination_log: Path, as_json: bool) -> None:
    """Plan on the GPUs of this pod and write vLLM's config file, or refuse with one sentence.

    The chart's init container runs it. Beside the config file it writes `env` (NAME=value lines for the
    engine) and `cache-key`, the name of the folder for compiled kernels. Exit code 3 where nothing fits.

    \b
    qwenhost k8s init --request /etc/qwenhost/init.yaml --output /plan/vllm.yaml
    """  # noqa: D301 - click wants the character itself
    try:
        plan, config = _planned(ctx, request_file)
        _write(plan, config, output)
    except QwenhostError as error:
        message = " ".join(f"{error.message} {error.remedy}".split())
        with contextlib.suppress(OSError):
            termination_log.write_text(message[:_LONGEST_MESSAGE], errors="backslashreplace")
        raise
    if as_json:
        write_json(plan)
    else:
        _show(plan, output)


def _planned(ctx: click.Context, request_file: Path) -> tuple[Plan, dict[str, Any]]:
    """The plan, and vLLM's config file for it."""
    from qwenhost.kubernetes import mounted_catalog, read_request, whole_machine
    from qwenhost.planner import make_plan
    from qwenhost.render import engine_config

    known = wiring.catalog(ctx, use_cache=False)
    try:
        request = read_request(request_file.read_bytes(), str(request_file))
    except OSError as error:
        raise BadInputError(
            f"{request_file}: {error.strerror}", remedy="The chart mounts it; give --request FILE."
        ) from error
    mounted, places = mounted_catalog(request, known)
    machine = whole_machine(_given(known), request.nodes)
    asked = _options(request)
    pins = wiring.pins(asked)
    if request.nodes > 1:
        pins = msgspec.structs.replace(
            pins,
            tensor_parallel_size=pins.tensor_parallel_size or machine.gpu_count // request.nodes,
            pipeline_parallel_size=request.nodes,
        )
    wanted = wiring.plan_request(known, {**asked, "gpus": f"1x{machine.gpus[0].spec}"})
    wanted = msgspec.structs.replace(
        wanted, node=machine, pins=pins, gpu_price=wiring.gpu_price(known, machine, asked)
    )
    plan = make_plan(wanted, mounted)
    chosen = plan.chosen.checkpoint
    names = list(request.servedNames or (chosen.repo_id,))
    head = {"model": places[chosen.id].path, "served-model-name": names}
    return plan, head | engine_config(plan)


def _given(known: Catalog) -> Node:
    """The GPUs of this container."""
    from qwenhost.discovery import NoGpuError, discover_node

    try:
        return discover_node(known.gpus)
    except NoGpuError as error:
        raise NoGpuError(
            error.message, remedy="The container needs GPUs: a limit on nvidia.com/gpu, or a claim."
        ) from error


def _options(request: InitRequest) -> dict[str, Any]:
    """The limits as ``qwenhost plan`` understands them, its own defaults for the rest.

    Raises:
        BadInputError: one that it does not know, or with a value it does not take.
    """
    from qwenhost.cli.plan import command
    from qwenhost.kubernetes import option_words

    words = option_words(request.limits)
    try:
        given = command.make_context("limits", words).params
    except click.ClickException as error:
        raise BadInputError(
            f"limits: {error.format_message()}", remedy="They are options of: qwenhost plan --help"
        ) from error
    return {**given, "workload": request.workload, "vllm_version": request.vllmVersion}


def _write(plan: Plan, config: dict[str, Any], output: Path) -> None:
    from qwenhost.files import write_atomically
    from qwenhost.kubernetes import cache_key, env_text
    from qwenhost.render import dump, header

    # The engine starts once the config is there: it comes last.
    write_atomically(output.with_name("env"), env_text(dict(plan.chosen.vllm_env)))
    write_atomically(output.with_name("cache-key"), cache_key(plan) + "\n")
    write_atomically(output, header(plan) + dump(config))


def _show(plan: Plan, output: Path) -> None:
    """The pod's log keeps what was decided and why."""
    from qwenhost.planner import explain

    click.echo(f"{plan.inputs.node.description}: {plan.chosen.checkpoint.repo_id}, {plan.chosen.label}")
    for title, lines in explain(plan):
        for line in (f"{title}:", *(f"  {line}" for line in lines)) if lines else ():
            click.echo(line)
    say(f"Wrote {output}, env and cache-key beside it.")

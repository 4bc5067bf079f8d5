"""``qwenhost plan``: which checkpoint, layout and flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from qwenhost.cli import wiring
from qwenhost.cli.options import (
    json_option,
    load_options,
    lora_options,
    node_options,
    objective_option,
    pin_options,
    price_options,
    workload_options,
)
from qwenhost.cli.output import console, say, write_json
from qwenhost.cli.ranges import FloatRange
from qwenhost.errors import InfeasibleError
from qwenhost.files import write_atomically
from qwenhost.plan import DEFAULT_VLLM_VERSION, SCHEMA, plan_to_json

if TYPE_CHECKING:
    from qwenhost.facts import Catalog
    from qwenhost.plan import Plan, PlanRequest


@click.command("plan")
@node_options
@workload_options
@load_options
@objective_option()
@pin_options
@lora_options
@price_options
@click.option("--vllm-version", default=DEFAULT_VLLM_VERSION, show_default=True, help="vLLM to plan for.")
@click.option(
    "--memory-margin",
    type=FloatRange(0, 0.5),
    help="Share of GPU memory to leave unplanned. [default: 0.02]",
)
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Also write the plan's JSON.")
@click.option(
    "--explain", "with_reasons", is_flag=True, help="Why, the memory arithmetic, what was set aside."
)
@click.option("--why-not", metavar="CHECKPOINT/LAYOUT", help="Why this one was not chosen, e.g. bf16/TP2.")
@click.option(
    "--check",
    "log",
    type=click.Path(path_type=Path),
    metavar="LOG",
    help="Hold vLLM's start-up log against the prediction for the same flags.",
)
@click.option("--calibrate", is_flag=True, help="With --check: keep what follows for later plans.")
@click.option("--top", type=click.IntRange(0), default=3, show_default=True, help="Alternatives to show.")
@click.option("--pareto", is_flag=True, help="The front of cost, rate per GPU and per user, and context.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="With --pareto: also as a page."
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    memory_margin: float | None,
    save: Path | None,
    with_reasons: bool,
    why_not: str | None,
    log: Path | None,
    calibrate: bool,
    top: int,
    pareto: bool,
    html: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Choose checkpoint, layout and every vLLM flag for a node.

    Exit code 3 where nothing fits; the reasons are printed, with need and have.

    \b
    qwenhost plan --gpus 2xH200 --workload chat
    qwenhost plan --gpus 8xA100 --input-tokens 4000 --output-tokens 500 --concurrency 64 --explain
    qwenhost plan --save plan.json                    for this machine's GPUs
    qwenhost plan --gpus 1xH200 --checkpoint fp8 --available-kv-gib 9.4
    qwenhost plan --gpus 2xH200 --check vllm.log --calibrate
    qwenhost plan --gpus 8xH200 --pareto --html front.html
    """  # noqa: D301 - click wants the character itself
    known, pinned = wiring.with_checkpoint_folder(wiring.catalog(ctx), options)
    if log is not None:
        from qwenhost.cli.plan_check import check_log

        check_log(known, log, pinned, calibrate=calibrate, as_json=as_json)
        return 0
    if calibrate:
        raise click.UsageError("--calibrate needs --check LOG")
    if html is not None and not pareto:
        raise click.UsageError("--html needs --pareto")
    request = wiring.plan_request(known, pinned)
    if memory_margin is not None:
        request = msgspec.structs.replace(request, memory_margin=memory_margin)
    try:
        plan = _plan(request, known)
    except InfeasibleError as error:
        _show_refusal(request, known, error, why_not, as_json=as_json)
        raise
    if save is not None:
        write_atomically(save, plan_to_json(plan))
        say(f"Saved {save}")
    if why_not is not None:
        _show_why_not(request, known, plan, why_not)
    elif pareto:
        from qwenhost.cli.pareto_view import show_front

        show_front(request, known, plan, as_json=as_json, html=html)
    elif as_json:
        write_json(plan)
    else:
        _show(plan, top=top, with_reasons=with_reasons, saved=save)
    return 0


def _plan(request: PlanRequest, known: Catalog) -> Plan:
    from qwenhost.planner import make_plan

    return wiring.with_argv(make_plan(request, known))


def _show_why_not(request: PlanRequest, known: Catalog, plan: Plan, label: str) -> None:
    from qwenhost.planner import why_not, why_not_arithmetic

    click.echo("\n".join([*why_not(plan, label), *why_not_arithmetic(request, known, label, plan)]))


def _show_refusal(
    request: PlanRequest, known: Catalog, error: InfeasibleError, why_not: str | None, *, as_json: bool
) -> None:
    from qwenhost.planner import explain_rejections, plan_inputs, why_not_arithmetic

    if as_json:
        inputs = plan_inputs(request, known)
        write_json({"schema": SCHEMA, "inputs": inputs, "chosen": None, "rejections": error.rejections})
        return
    lines = why_not_arithmetic(request, known, why_not) if why_not else []
    for line in [*explain_rejections(error.rejections), *lines]:
        say(f"  {line}")


def _show(plan: Plan, *, top: int, with_reasons: bool, saved: Path | None) -> None:
    from qwenhost.cli.plan_view import blocks

    screen = console()
    for block in blocks(plan, top=top, with_reasons=with_reasons, saved=saved):
        screen.print(block, markup=False, soft_wrap=isinstance(block, str))

"""``qwenhost plan``: which checkpoint, layout and flags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
from qwenhost.errors import BadInputError, InfeasibleError
from qwenhost.files import write_atomically
from qwenhost.plan import DEFAULT_VLLM_VERSION, SCHEMA, plan_to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.facts import Catalog
    from qwenhost.plan import Plan, PlanRequest

_LAYOUT: Final = re.compile(r"(\d+x )?tp ?\d+( [a-z]+ ?\d*)*|any layout")
"""``tp4``, ``tp1 dp2``, ``2x tp1``, ``tp2 ep``."""


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
@click.option(
    "--method",
    type=click.Choice(["formula", "simulate"]),
    default="formula",
    show_default=True,
    help="What times the leading candidates: equations, or the simulated engine under the load.",
)
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
    method: str,
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
    qwenhost plan --gpus 2xH200 --rate 20 --method simulate
    """  # noqa: D301 - click wants the character itself
    _refuse_idle(ctx)
    known, pinned = wiring.with_checkpoint_folder(wiring.catalog(ctx), options)
    if log is not None:
        from qwenhost.cli.plan_check import check_log

        check_log(known, log, pinned, calibrate=calibrate, as_json=as_json)
        return 0
    if why_not is not None:
        _check_name(known, why_not)
    request = _request(known, pinned, memory_margin)
    try:
        plan = _plan(request, known, method)
    except InfeasibleError as error:
        _show_refusal(request, known, error, why_not, as_json=as_json)
        raise
    if save is not None:
        write_atomically(save, plan_to_json(plan))
        say(f"Saved {save}")
    if why_not is not None:
        _show_why_not(request, known, plan, why_not, as_json=as_json)
    elif pareto:
        from qwenhost.cli.pareto_view import show_front

        show_front(request, known, plan, as_json=as_json, html=html)
    elif as_json:
        write_json(plan)
    else:
        _show(plan, top=top, with_reasons=with_reasons, saved=save)
    return 0


def _refuse_idle(ctx: click.Context) -> None:
    """Refuse options that would have no effect: the user believes that they have one.

    Raises:
        UsageError: names both.
    """
    from qwenhost.cli.plan_file import given_options

    given = ctx.params
    idle = given_options(ctx, {"save", "why_not", "pareto", "html", "with_reasons", "top", "memory_margin",
                                "method"})  # fmt: skip
    if given["log"] is not None and idle:
        raise click.UsageError(f"{idle[0]} has no effect with --check LOG")
    if given["calibrate"] and given["log"] is None:
        raise click.UsageError("--calibrate needs --check LOG")
    if given["html"] is not None and not given["pareto"]:
        raise click.UsageError("--html needs --pareto")
    if given["method"] == "simulate" and (given["pareto"] or given["why_not"] is not None):
        other = "--pareto" if given["pareto"] else "--why-not"
        raise click.UsageError(f"--method simulate has no effect with {other}, which compares by formula")
    if given["why_not"] is not None and given["pareto"]:
        raise click.UsageError("--pareto has no effect with --why-not")


def _check_name(known: Catalog, wanted: str) -> None:
    """What ``--why-not`` asks after is a checkpoint, a layout or both.

    Raises:
        BadInputError: a part is neither.
    """
    from qwenhost.planner.explain import words_of

    names = {name.lower() for name in known.checkpoints}
    strange = [word for word in words_of(wanted) if word not in names and not _LAYOUT.fullmatch(word)]
    if strange or not words_of(wanted):
        said = f"{strange[0][:60] if strange else 'nothing'!r} is no checkpoint and no layout"
        raise BadInputError(
            f"--why-not {wanted[:60]!r}: {said}",
            remedy="Write for example bf16/TP2; the ids: qwenhost profiles list checkpoints.",
        )


def _request(known: Catalog, options: Mapping[str, Any], memory_margin: float | None) -> PlanRequest:
    request = wiring.plan_request(known, options)
    return request if memory_margin is None else msgspec.structs.replace(request, memory_margin=memory_margin)


def _plan(request: PlanRequest, known: Catalog, method: str) -> Plan:
    from qwenhost.planner import make_plan

    plan = make_plan(request, known)
    if method == "simulate":
        from qwenhost.cli.plan_simulated import simulated_plan

        plan = simulated_plan(request, known, plan)
    return wiring.with_argv(plan)


def _show_why_not(request: PlanRequest, known: Catalog, plan: Plan, label: str, *, as_json: bool) -> None:
    from qwenhost.planner import why_not, why_not_arithmetic

    lines = [*why_not(plan, label), *why_not_arithmetic(request, known, label, plan)]
    if as_json:
        write_json(msgspec.to_builtins(plan) | {"why_not": lines})
    else:
        click.echo("\n".join(lines))


def _show_refusal(
    request: PlanRequest, known: Catalog, error: InfeasibleError, why_not: str | None, *, as_json: bool
) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from qwenhost.planner import explain_rejections, plan_inputs, why_not_arithmetic

    lines = why_not_arithmetic(request, known, why_not) if why_not else []
    if as_json:
        inputs = plan_inputs(request, known)
        found = {"schema": SCHEMA, "inputs": inputs, "chosen": None, "rejections": error.rejections}
        write_json(found | ({"why_not": lines} if why_not else {}))
        return
    screen = console(stderr=True)
    for line in explain_rejections(error.rejections):
        screen.print(Padding(Text(line), (0, 0, 0, 2)))
    for line in lines:
        say(f"  {line}")


def _show(plan: Plan, *, top: int, with_reasons: bool, saved: Path | None) -> None:
    from qwenhost.cli.plan_view import blocks

    screen = console()
    for block in blocks(plan, top=top, with_reasons=with_reasons, saved=saved):
        screen.print(block, markup=False, soft_wrap=isinstance(block, str))

"""``qwenhost advise``: what to do, from what matters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from qwenhost.cli import pricing, wiring
from qwenhost.cli.options import (
    json_option,
    load_options,
    node_options,
    pin_options,
    price_options,
    workload_options,
)
from qwenhost.cli.output import console, write_json
from qwenhost.cli.pricing_options import api_options, self_host_options
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.cost import Needs

NEEDS: Final[dict[str, str]] = {
    "multimodal": "Images or documents are part of the prompts.",
    "open_weights": "The weights must be open: to keep, audit or fine-tune.",
    "privacy": "Prompts must not leave machines you control.",
    "coding": "Tasks are code.",
    "agentic": "Tasks are tool calls of agents.",
    "science": "Tasks are science or mathematics.",
    "languages": "Texts are in many languages.",
    "long_context": "Prompts exceed 262,144 tokens.",
    "no_operations": "Nobody is there to run a service.",
}


def _need_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, help_text in reversed(NEEDS.items()):
        function = click.option(f"--{name.replace('_', '-')}", is_flag=True, help=help_text)(function)
    return function


@click.command("advise")
@_need_options
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    help="Plan by qwenhost plan --save; else one is made.",
)
@click.option(
    "--measurements",
    "measurements_file",
    type=click.Path(path_type=Path),
    help="Run by qwenhost probe --save; without it the plan's prediction is priced.",
)
@self_host_options
@api_options
@node_options
@workload_options
@load_options
@price_options
@pin_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    plan_file: Path | None,
    measurements_file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    r"""Say what to do, with reasons, scores, costs, mixes of both, and what fine-tuning must gain.

    On a terminal it asks what matters where no need is given.

    \b
    qwenhost advise --gpus 2xH200 --workload coding_agent --requests-per-day 20000 --coding --agentic
    qwenhost advise --gpus 2xH200 --workload chat --volume 300000 --privacy --success qwen=0.7,sonnet=0.8
    """
    from qwenhost.cost import advise
    from qwenhost.measurements import load_measurements

    known = wiring.catalog(ctx)
    needs = _needs(options, ask=sys.stdin.isatty() and not as_json)
    known = pricing.with_pictures(known, options, file=plan_file)
    plan, workload = pricing.plan_and_workload(ctx, known, plan_file, options)
    runs = [load_measurements(measurements_file)] if measurements_file else []
    comparison = pricing.make_comparison(ctx, known, plan=plan, workload=workload, runs=runs, options=options)
    gpu = known.gpus.get(plan.inputs.node.gpus[0].spec or "")
    if gpu is None:
        raise BadInputError(
            f"{plan.inputs.node.description} is not in the profiles", remedy="Name GPUs with --gpus."
        )
    advice = advise(known, comparison, needs, gpu=gpu)
    if as_json:
        write_json(advice)
        return
    from qwenhost.report import advice_parts

    for part in advice_parts(advice):
        console().print(part)


def _needs(options: dict[str, Any], *, ask: bool) -> Needs:
    from qwenhost.cost import Needs

    given = {name: bool(options.pop(name)) for name in NEEDS}
    if ask and not any(given.values()):
        given = {name: click.confirm(text, default=False, err=True) for name, text in NEEDS.items()}
    return Needs(**given)

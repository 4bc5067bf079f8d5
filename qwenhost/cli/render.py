"""``qwenhost render``: a plan as something to run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli import wiring
from qwenhost.cli.options import json_option, load_options, node_options, pin_options, workload_options
from qwenhost.cli.output import say, write_json

if TYPE_CHECKING:
    from qwenhost.plan import Plan

# The names of qwenhost.render.FORMATS; importing it here would slow --help down.
FORMATS = ("argv", "config", "env", "docker", "compose", "systemd", "helm")
MANIFESTS = "k8s"


@click.command("render")
@click.argument("plan_file", metavar="[PLAN]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--format", "-f", "fmt", type=click.Choice([*FORMATS, MANIFESTS]), default="argv", show_default=True
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File to write instead of stdout.")
@click.option("--model", help="Local folder or hub id in place of the plan's checkpoint.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--image", help="Container image in place of vLLM's own.")
@click.option("--release", default="qwen", show_default=True, help="With k8s: name of the objects.")
@click.option("--namespace", default="default", show_default=True, help="With k8s: where they will live.")
@click.option(
    "--values", multiple=True, type=click.Path(path_type=Path), help="With k8s: further chart values."
)
@click.option("--kube-version", default="1.34", show_default=True, help="With k8s: the cluster's version.")
@node_options
@workload_options
@load_options
@pin_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    plan_file: Path | None,
    fmt: str,
    output: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a plan as argv, vLLM config, env file, docker, compose, systemd unit, Helm values or manifests.

    PLAN is a file by `qwenhost plan --save`; without it a plan is made for --gpus or this machine. No
    format ever holds a secret.

    \b
    qwenhost render plan.json --format compose --output compose.yaml
    qwenhost render --gpus 2xH200 --workload chat --format systemd
    qwenhost render --gpus 2xH200 --format k8s --namespace llm | kubectl apply -n llm -f -
    sh -c "$(qwenhost render plan.json)"
    """  # noqa: D301 - click wants the character itself
    from qwenhost.render import render

    plan = _plan(ctx, plan_file, options)
    target = _target(plan_file, options)
    text = _manifests(plan, target, options) if fmt == MANIFESTS else render(plan, fmt, target)
    if output:
        from qwenhost.files import write_atomically

        write_atomically(output, text)
        say(f"Wrote {output}.")
    if as_json:
        write_json(_document(plan, fmt, text, options))
    elif not output:
        click.echo(text, nl=False)


def _plan(ctx: click.Context, plan_file: Path | None, options: dict[str, Any]) -> Plan:
    """The saved plan, or a fresh one."""
    if plan_file is None:
        return wiring.make_plan(wiring.catalog(ctx), options)
    from qwenhost.cli.plan_file import LOADED, SIZED, saved_plan

    return saved_plan(plan_file, also=SIZED | LOADED)


def _manifests(plan: Plan, target: Any, options: dict[str, Any]) -> str:
    from qwenhost.cli.render_k8s import plain_manifests
    from qwenhost.render import render

    return plain_manifests(
        render(plan, "helm", target),
        release=options["release"],
        namespace=options["namespace"],
        more=options["values"],
        kube_version=options["kube_version"],
    )


def _target(plan_file: Path | None, options: dict[str, Any]) -> Any:
    from qwenhost.render import Target

    model = options["model"]
    if model and Path(model).is_dir():
        model = str(Path(model).absolute())
    found = shutil.which("qwenhost", path=str(Path(sys.executable).parent)) or shutil.which("qwenhost")
    known = {
        "plan_path": str(plan_file.absolute()) if plan_file else None,
        "executable": found,
        "image": options["image"],
    }
    return Target(
        model=model,
        host=options["host"],
        port=options["port"],
        **{name: value for name, value in known.items() if value},
    )


def _document(plan: Plan, fmt: str, text: str, options: dict[str, Any]) -> dict[str, Any]:
    from qwenhost.render import vllm_argv

    argv = vllm_argv(plan.chosen, model=options["model"], host=options["host"], port=options["port"])
    return {
        "schema": "qwenhost.render/1",
        "format": fmt,
        "vllm_version": plan.inputs.vllm_version,
        "vllm_argv": argv,
        "vllm_env": dict(plan.chosen.vllm_env),
        "text": text,
    }

"""``qwenhost doctor``: the checks before a start, with their remedies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.options import json_option
from qwenhost.cli.output import console, write_json

if TYPE_CHECKING:
    from qwenhost.launcher.checks import Check

_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]", "skip": "[dim]skip[/]"}
_UNAVAILABLE = 4


@click.command(name="doctor")
@click.argument("plan_path", metavar="[PLAN]", required=False, type=click.Path(path_type=Path))
@click.option("--target", default="gpu", show_default=True, type=click.Choice(["gpu", "cpu"]))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the engine would take.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--vllm-bin", envvar="QWENHOST_VLLM_BIN", help="vLLM's program. Also QWENHOST_VLLM_BIN.")
@json_option
@click.pass_context
def command(ctx: click.Context, /, plan_path: Path | None, as_json: bool, **options: Any) -> int:
    r"""Check this machine before a start: the same list that qwenhost serve goes through.

    Exit code 4 if a check failed, else 0.

    \b
    qwenhost doctor
    qwenhost doctor plan.json --port 8000
    """
    from qwenhost.cli.service_setup import checks_for
    from qwenhost.plan import load_plan

    plan = load_plan(plan_path) if plan_path else None
    checks = checks_for(ctx, plan, {**options, "engine": "vllm", "model": None}, os.environ)
    if as_json:
        write_json(checks)
    else:
        _print(checks)
    return _UNAVAILABLE if any(check.status == "fail" for check in checks) else 0


def _print(checks: list[Check]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "check", "found", box=None, pad_edge=False)
    for check in checks:
        remedy = f"\n[dim]-> {escape(check.remedy)}[/]" if check.remedy else ""
        table.add_row(_MARKS[check.status], check.name, escape(check.detail) + remedy)
    console().print(table)

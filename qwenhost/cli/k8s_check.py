"""``qwenhost k8s check``: do rendered manifests fit together?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.options import json_option
from qwenhost.cli.output import say, write_json
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qwenhost.kubernetes import Finding

_COLOURS = {"error": "red", "warning": "yellow"}
_MOST_FILES = 20_000


@click.command("check", short_help="Check that rendered manifests fit together.")
@click.argument("files", metavar="FILES|-", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Let warnings fail too.")
@json_option
def check(files: tuple[Path, ...], strict: bool, as_json: bool) -> int:
    """Check that rendered manifests fit together: what schema validators pass and a server refuses.

    FILES are YAML or JSON, folders of them, or - for stdin; all are checked as one application.
    An error cannot work. A warning may work, as where a Secret is in the cluster already.
    Exit code 1 on errors, with --strict on warnings too.

    \b
    helm template qwen k8s/chart -f values.yaml | qwenhost k8s check -
    qwenhost k8s check rendered/ --strict
    """  # noqa: D301 - click wants the character itself
    from qwenhost.kubernetes import check_manifests, read_manifests

    manifests, findings = [], []
    for name, text in _texts(files):
        found, twice = read_manifests(text, name)
        manifests += found
        findings += twice
    if not manifests:
        raise BadInputError(
            f"no manifest in {', '.join(map(str, files))}", remedy="Did helm template print anything?"
        )
    findings = [*findings, *check_manifests(manifests)]
    errors = sum(one.severity == "error" for one in findings)
    if as_json:
        write_json(_document(findings, len(manifests), errors))
    else:
        _print(findings)
        say(f"{len(manifests)} objects: {errors} errors, {len(findings) - errors} warnings.")
    return 1 if errors or (strict and findings) else 0


def _texts(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for path in files:
        if str(path) == "-":
            yield "stdin", _decoded("stdin", sys.stdin.buffer.read())
            continue
        for one in _within(path):
            try:
                yield str(one), _decoded(str(one), one.read_bytes())
            except OSError as error:
                raise BadInputError(
                    f"{one}: {error.strerror}", remedy="Name files with rendered manifests, or - for stdin."
                ) from error


def _within(path: Path) -> list[Path]:
    """The manifests of a folder; a name that no folder can have is a file's.

    Raises:
        BadInputError: a folder of so much that it cannot be one of manifests.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - pathlib's fails on a name that is too long
        return [path]
    found, seen = [], 0
    for folder, _, names in os.walk(path):
        seen += len(names) + 1
        if seen > _MOST_FILES:
            raise BadInputError(
                f"{path}: more than {_MOST_FILES:,} files, no folder of manifests",
                remedy="Name the folder that helm template --output-dir wrote.",
            )
        found += [Path(folder, name) for name in names if name.endswith((".yaml", ".yml", ".json"))]
    return sorted(found)


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInputError(f"{name}: not text in UTF-8", remedy="Give YAML or JSON.") from error


def _document(findings: Sequence[Finding], objects: int, errors: int) -> dict[str, Any]:
    return {
        "schema": "qwenhost.k8s-check/1",
        "objects": objects,
        "errors": errors,
        "warnings": len(findings) - errors,
        "findings": findings,
    }


def _print(findings: Sequence[Finding]) -> None:
    for one in findings:
        mark = click.style(one.severity, fg=_COLOURS[one.severity])
        click.echo(f"{one.file}:{one.line}: {mark}: {one.object} {one.path}")
        click.echo(f"  {one.message} [{one.rule}]")
        if one.remedy:
            click.echo(f"  {one.remedy}")

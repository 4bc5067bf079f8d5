"""``qwenhost report``: saved comparisons, shown again or side by side."""

from __future__ import annotations

from pathlib import Path

import click

from qwenhost.cli import pricing
from qwenhost.cli.options import json_option
from qwenhost.cli.output import console, write_json
from qwenhost.errors import BadInputError


@click.command("report")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="File for the report (HTML).")
@click.option(
    "--csv",
    "csv_dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for every table as CSV.",
)
@json_option
def command(files: tuple[Path, ...], html: Path | None, csv_dir: Path | None, as_json: bool) -> None:
    r"""Show a comparison saved by qwenhost compare --save; several stand side by side.

    \b
    qwenhost report comparison.json --html report.html
    qwenhost report h200.json b200.json
    """
    from qwenhost.cost import load_comparison

    comparisons = [load_comparison(path) for path in files]
    if len(comparisons) == 1:
        pricing.deliver(comparisons[0], save=None, html=html, csv_dir=csv_dir, as_json=as_json)
        return
    if html or csv_dir:
        raise BadInputError(
            "--html and --csv take one comparison", remedy="Give one FILE, or leave --html and --csv out."
        )
    from qwenhost.report import side_by_side

    stems = [path.stem for path in files]
    names = [path.stem if stems.count(path.stem) == 1 else str(path) for path in files]
    rows = dict(zip(names, comparisons, strict=True))
    write_json(rows) if as_json else console().print(side_by_side(rows))

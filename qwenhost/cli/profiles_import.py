"""``qwenhost profiles import``: a checkpoint profile from its true tensors."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from qwenhost.cli import wiring
from qwenhost.cli.options import json_option
from qwenhost.cli.output import say, write_json
from qwenhost.files import write_atomically
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from qwenhost.facts import Catalog
    from qwenhost.tensors import Imported


@click.command("import")
@click.argument("ref", metavar="REPO_OR_DIR")
@click.option("--id", "name", metavar="NAME", help="Id of the profile. [default: from the name]")
@click.option("--revision", metavar="COMMIT", help="Commit or branch of the repository.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write NAME.yaml into this folder of profiles, instead of to stdout.",
)
@click.option("--offline", is_flag=True, help="Take what the hub's cache holds.")
@json_option
@click.pass_context
def import_(
    ctx: click.Context,
    ref: str,
    name: str | None,
    revision: str | None,
    output: Path | None,
    *,
    offline: bool,
    as_json: bool,
) -> None:
    """Make a checkpoint profile from config.json and safetensors headers; no weights are fetched.

    Precision, sharding and size of every tensor are the true ones. HF_TOKEN and HF_ENDPOINT are honoured.

    \b
    qwenhost profiles import Qwen/Qwen3.5-122B-A10B-FP8 --output my-profiles
    qwenhost profiles import ./my-finetune --id mine --output my-profiles
    qwenhost --profiles my-profiles plan --gpus 2xH200 --checkpoint mine
    """  # noqa: D301 - click wants the character itself
    from qwenhost.tensors import import_checkpoint

    known = wiring.catalog(ctx)
    today = dt.datetime.now(dt.UTC).date()
    found = import_checkpoint(ref, known, today=today, name=name, revision=revision, offline=offline or None)
    text = found.to_yaml()
    file = None if output is None else output / f"{found.checkpoint.id}.yaml"
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    if as_json:
        write_json(_summary(found, known, file))
    elif file is None:
        click.echo(text, nl=False)
    else:
        summary = _summary(found, known, file)
        say(
            f"Wrote {file}: {found.tensors:,} tensors, "
            f"{format_gib(summary['load_bytes'])} loaded on one GPU without MTP."
        )


def _summary(found: Imported, known: Catalog, file: Path | None) -> dict[str, Any]:
    from qwenhost.plan import Parallelism
    from qwenhost.planner.weights import WeightSizes

    catalog = found.into(known)
    sizes = WeightSizes(
        catalog.architectures[found.checkpoint.architecture], found.checkpoint, catalog.formats
    )
    load = sizes.per_rank(Parallelism(), vision=True, mtp=False)
    return {
        "file": None if file is None else str(file),
        "tensors": found.tensors,
        "load_bytes": load.total_bytes,
        "load_bytes_by_group": load.bytes_by_group,
        **{kind: msgspec.to_builtins(rows) for kind, rows in _rows(found).items()},
    }


def _rows(found: Imported) -> dict[str, Any]:
    return {
        "architectures": found.architectures,
        "formats": found.formats,
        "checkpoints": (found.checkpoint,),
    }

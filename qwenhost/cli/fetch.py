"""``qwenhost fetch``: weights on disk, complete and checked, without starting anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from qwenhost.cli import wiring
from qwenhost.cli.options import json_option
from qwenhost.cli.output import say, write_json


@click.command(name="fetch")
@click.argument("checkpoint", metavar="CHECKPOINT|REPO|DIR")
@click.option("--revision", help="Commit, tag or branch; the profile's commit unless given.")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="The hub's cache folder, instead of HF_HOME's."
)
@click.option("--offline", is_flag=True, help="Take what the cache holds. Also HF_HUB_OFFLINE=1.")
@click.option("--endpoint", metavar="URL", help="A mirror of the hub. Also HF_ENDPOINT.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    checkpoint: str,
    revision: str | None,
    cache: Path | None,
    offline: bool,
    endpoint: str | None,
    as_json: bool,
) -> None:
    r"""Fetch and verify weights: a CHECKPOINT of the profiles, a repository OWNER/NAME, or a folder.

    Safetensors, configuration and tokenizer only; every file is compared with the hub's checksum, a damaged
    one is fetched again, and an interrupted fetch goes on with the files it had not completed. HF_TOKEN is
    the hub's token.

    Exit codes: 0 complete, 2 no such repository or folder, 4 no network, access or space.

    \b
    qwenhost fetch fp8
    qwenhost fetch Qwen/Qwen3.5-122B-A10B-FP8 --revision main --cache /data/hub
    qwenhost fetch gptq-int4 --endpoint https://hub.example.net --json
    """
    from qwenhost.launcher.weights import fetch_checkpoint
    from qwenhost.units import format_bytes

    known = wiring.catalog(ctx).checkpoints.get(checkpoint)
    found = fetch_checkpoint(
        known.repo_id if known else checkpoint,
        revision=revision or (known.revision if known else None),
        cache=cache,
        offline=offline or os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
        endpoint=endpoint,
        say=say,
        bars=sys.stderr.isatty(),
    )
    if as_json:
        write_json(found)
    else:
        click.echo(found.path)
        say(f"{format_bytes(found.size_bytes)}, verified by {found.verified_by}")

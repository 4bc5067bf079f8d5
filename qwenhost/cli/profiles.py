"""``qwenhost profiles``: the facts everything rests on."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from qwenhost.cli import wiring
from qwenhost.cli.options import json_option
from qwenhost.cli.output import console, say, write_json
from qwenhost.cli.profiles_import import import_
from qwenhost.errors import BadInputError
from qwenhost.units import format_gib, format_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qwenhost.facts import Catalog
    from qwenhost.profiles.sources import DatedFact

STATED: Final = -1
"""``--freshness`` without a number."""
OLD_FACTS: Final = 5
Column = tuple[str, "Callable[[Any], str]"]
"""Head of a column, and what it says of a row."""


@click.group("profiles")
def command() -> None:
    """List, show and check the facts everything rests on.

    Your own folder of YAML files is merged over the built-in profiles by id: qwenhost --profiles DIR,
    or QWENHOST_PROFILES.

    \b
    qwenhost profiles list gpus
    qwenhost profiles show checkpoints/fp8
    qwenhost profiles check ./my-profiles
    qwenhost profiles import OWNER/NAME --output ./my-profiles
    """  # noqa: D301 - click wants the character itself


command.add_command(import_)


@command.command("list")
@click.argument("kind", required=False)
@json_option
@click.pass_context
def list_(ctx: click.Context, kind: str | None, as_json: bool) -> None:
    """List the kinds of profiles, or all rows of one KIND.

    \b
    qwenhost profiles list
    qwenhost profiles list gpu_prices --json
    """  # noqa: D301 - click wants the character itself
    from qwenhost.profiles import KINDS, rows_of

    known = wiring.catalog(ctx)
    if kind is None:
        counts = {name: len(rows_of(known, name)) for name in KINDS}
        summary = {"digest": known.digest, "newest_fact": known.newest_fact, "kinds": counts}
        write_json(summary) if as_json else _print_kinds(known, counts)
        return
    if kind not in KINDS:
        raise BadInputError(f"no kind {kind!r} of profile", remedy=f"Choose one of: {', '.join(KINDS)}.")
    rows = rows_of(known, kind)
    write_json(rows) if as_json else _print_rows(kind, rows)


@command.command("show", short_help="Show every row called NAME, with its source.")
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show every row called NAME, an ID or KIND/ID, with its source and what follows from it.

    \b
    qwenhost profiles show h200
    qwenhost profiles show checkpoints/fp8 --json
    """  # noqa: D301 - click wants the character itself
    from qwenhost.profiles import find_rows

    found = find_rows(wiring.catalog(ctx), name)
    if as_json:
        write_json(found)
        return
    import yaml

    for item in found:
        parts = {"profile": item.row} | ({"derived": item.derived} if item.derived else {})
        click.echo(f"# {item.kind}/{item.id}")
        click.echo(yaml.safe_dump(msgspec.to_builtins(parts), sort_keys=False, allow_unicode=True, width=100))


@command.command("check", short_help="Check profiles: file, line and key of each mistake.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--freshness", type=click.IntRange(-1), is_flag=False, flag_value=STATED, metavar="[DAYS]",
    help="List facts older than this many days, without a number than the age stated for their kind; exit 5 "
    "if there are any.",
)  # fmt: skip
@json_option
@click.pass_context
def check(ctx: click.Context, folder: Path | None, freshness: int | None, as_json: bool) -> None:
    """Check the built-in profiles and your own, FOLDER last; exit 2 on a mistake.

    \b
    qwenhost profiles check ./my-profiles
    qwenhost profiles check ./my-profiles --freshness
    qwenhost profiles check --freshness 90
    """  # noqa: D301 - click wants the character itself
    from qwenhost.profiles import ProfileError, dated_facts, load_catalog

    folders = [*wiring.profile_folders(ctx), *([folder] if folder else [])]
    try:
        known = load_catalog(folders, use_cache=False)
    except ProfileError as error:
        if not as_json:
            raise
        write_json({"ok": False, "mistakes": error.mistakes})
        say(f'Error: mistakes in profiles: {len(error.mistakes):,}; see "mistakes" on stdout.')
        ctx.exit(error.exit_code)
    facts = dated_facts(known)
    old = _older(known, facts, freshness)
    said = None if freshness is None else "their stated age" if freshness == STATED else f"{freshness} days"
    if as_json:
        result = {"ok": True, "mistakes": [], "digest": known.digest, "newest_fact": known.newest_fact}
        write_json({**result, "facts": len(facts), "older_than": said, "old": old})
    else:
        for fact in old:
            click.echo(f"{fact.as_of}  {fact.kind}/{fact.id}  {fact.where}")
        aged = "" if said is None else f"; {len(old)} older than {said}"
        say(f"No mistakes. {len(facts)} sourced facts, the newest of {known.newest_fact}{aged}.")
    if old:
        ctx.exit(OLD_FACTS)


def _older(known: Catalog, facts: Sequence[DatedFact], freshness: int | None) -> list[DatedFact]:
    """Facts beyond so many days, or rows whose newest source is beyond the age stated for their kind."""
    from qwenhost.cost import max_age_days

    today = dt.datetime.now(dt.UTC).date()
    if freshness is None:
        return []
    if freshness != STATED:
        return [fact for fact in facts if (today - fact.as_of).days > freshness]
    newest = {(fact.kind, fact.id): fact for fact in facts}  # oldest first
    limits = {kind: max_age_days(known, kind) for kind, _ in newest}
    return [
        fact
        for fact in newest.values()
        if (limit := limits[fact.kind]) is not None and (today - fact.as_of).days > limit
    ]


@command.command("schema", short_help="Print the JSON Schema of a kind of row.")
@click.argument("kind")
@json_option
def schema(kind: str, as_json: bool) -> None:
    """Print the JSON Schema of a profile file with rows of KIND; for editors and other checkers.

    \b
    qwenhost profiles schema gpus > gpus.schema.json
    """  # noqa: D301 - click wants the character itself
    from qwenhost.profiles import schema_of

    del as_json  # JSON is all there is
    write_json(schema_of(kind))


def _print_kinds(known: Catalog, counts: Mapping[str, int]) -> None:
    from rich.table import Table

    table = Table("kind", "rows", box=None, pad_edge=False)
    for name, count in counts.items():
        table.add_row(name, str(count))
    screen = console()
    screen.print(table)
    screen.print(f"Newest fact: {known.newest_fact}. Digest: {known.digest[:12]}.", markup=False)


def _print_rows(kind: str, rows: Sequence[Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    columns = (*_COLUMNS[kind], ("as of", lambda row: str(row.source.as_of)))
    table = Table(box=None, pad_edge=False)
    for i, (head, _) in enumerate(columns):
        # Names are copied into other commands: never cut them short.
        table.add_column(head, no_wrap=i in {0, len(columns) - 1}, overflow="fold")
    for row in rows:
        table.add_row(*(escape(text(row)) for _, text in columns))
    console().print(table)


def _optional(text: Callable[[Any], str], value: Any) -> str:
    return "-" if value is None else text(value)


def _rates(row: Any) -> str:
    rates = row.periods[-1].usd_per_mtok
    return f"{format_usd(rates.input)} / {format_usd(rates.output)}"


_ID: Final[Column] = ("id", lambda row: row.id)
_COLUMNS: Final[Mapping[str, tuple[Column, ...]]] = {
    "architectures": (
        _ID,
        ("parameters", lambda row: f"{row.total_parameters:,}"),
        ("layers", lambda row: f"{row.num_hidden_layers} ({row.num_full_attention_layers} full attention)"),
        ("experts", lambda row: f"{row.num_experts}, {row.num_experts_per_tok} per token"),
    ),
    "formats": (
        _ID,
        ("bytes per parameter", lambda row: f"{row.bytes_per_parameter:.6g}"),
        ("group", lambda row: str(row.group_size)),
        ("computes in", lambda row: row.compute),
    ),
    "checkpoints": (
        _ID,
        ("repository", lambda row: row.repo_id),
        ("on disk", lambda row: f"{row.disk_bytes / 1e9:.1f} GB ({row.disk_bytes_basis})"),
        ("MTP", lambda row: "yes" if row.mtp else "no"),
        ("TP up to", lambda row: str(row.max_tensor_parallel_size)),
        ("searched", lambda row: "yes" if row.recommended else "by name"),
    ),
    "gpus": (
        _ID,
        ("name", lambda row: row.name),
        ("memory", lambda row: format_gib(row.memory_bytes)),
        ("GB/s", lambda row: f"{row.hbm_bytes_per_s / 1e9:,.0f}"),
        ("BF16 TFLOP/s", lambda row: f"{row.bf16_flops / 1e12:,.0f}"),
        ("FP8", lambda row: _optional(lambda flops: f"{flops / 1e12:,.0f}", row.fp8_flops)),
        ("link GB/s", lambda row: f"{row.link} {row.link_bytes_per_s / 1e9:,.0f}"),
        ("W", lambda row: f"{row.power_w:,.0f}"),
    ),
    "gpu_prices": (
        ("gpu", lambda row: row.gpu),
        ("provider", lambda row: row.provider),
        ("tier", lambda row: row.tier),
        ("USD/GPU h", lambda row: f"{row.usd_per_gpu_hour:.2f}"),
        ("from GPUs", lambda row: str(row.min_gpus)),
    ),
    "owned_gpus": (
        ("gpu", lambda row: row.gpu),
        ("USD", lambda row: f"{row.purchase_usd_low:,.0f} to {row.purchase_usd_high:,.0f}"),
        ("kW", lambda row: f"{row.facility_kw:.3f}"),
    ),
    "api_prices": (
        _ID,
        ("name", lambda row: row.name),
        ("input / output per Mtok", _rates),
        ("cached", lambda row: _optional(format_usd, row.periods[-1].usd_per_mtok.cache_read)),
        ("context", lambda row: f"{row.context_tokens:,}"),
    ),
    "workloads": (
        _ID,
        ("description", lambda row: row.description),
        ("input", lambda row: f"{row.input_tokens.mean:,.0f}"),
        ("output", lambda row: f"{row.output_tokens.mean:,.0f}"),
        ("TTFT", lambda row: _optional(lambda ms: f"{ms:,.0f} ms", row.slo.ttft_ms)),
        ("TPOT", lambda row: _optional(lambda ms: f"{ms:,.0f} ms", row.slo.tpot_ms)),
    ),
    "benchmarks": (
        ("benchmark", lambda row: row.benchmark),
        ("model", lambda row: row.model),
        ("score", lambda row: f"{row.score:g} {row.unit}"),
        ("by", lambda row: row.by),
        ("like for like", lambda row: "yes" if row.like_for_like else "no"),
    ),
    "costs_per_task": (
        ("benchmark", lambda row: row.benchmark),
        ("model", lambda row: row.model),
        ("USD per task", lambda row: f"{row.usd_per_task:.3f}"),
        ("score", lambda row: f"{row.score:g}"),
    ),
    "assumptions": (
        _ID,
        ("value", lambda row: f"{row.value:g} {row.unit}"),
        ("range", lambda row: f"{row.low:g} to {row.high:g}"),
        ("why", lambda row: row.why),
    ),
    "calibrations": (
        _ID,
        ("for", lambda row: row.gpu or row.gpu_architecture),
        ("basis", lambda row: row.basis),
        ("band", lambda row: f"-{row.relative_band_low:.0%} +{row.relative_band_high:.0%}"),
        ("vLLM", lambda row: row.vllm_version),
    ),
}

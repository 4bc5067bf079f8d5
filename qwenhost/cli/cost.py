"""``qwenhost cost``: the API side alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli import wiring
from qwenhost.cli.options import json_option, workload_options
from qwenhost.cli.output import console, write_json
from qwenhost.cli.pricing import extras, price_day, with_pictures
from qwenhost.cli.pricing_options import api_options

if TYPE_CHECKING:
    from qwenhost.cost import Quote


@click.command("cost")
@click.option(
    "--usage",
    "usage_file",
    type=click.Path(path_type=Path),
    help="Requests to price instead of a workload: OpenAI's or Anthropic's usage rows or reports, or a trace "
    "(JSON lines, Mooncake's, Azure's or BurstGPT's CSV).",
)
@workload_options
@api_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, usage_file: Path | None, as_json: bool, **options: Any) -> None:
    r"""Price a workload's mean request, or every request of a usage file, on the API side.

    \b
    qwenhost cost --workload coding_agent --cache 5m
    qwenhost cost --usage requests.jsonl --as-of 2026-03-01 --json
    """
    from qwenhost.cost import ApiTerms, load_trace, quote_usage, quote_workload, reference_tokenizer

    known = wiring.catalog(ctx)
    terms = ApiTerms(
        as_of=price_day(options),
        cache=options["cache"],
        batch=options["batch"],
        residency=options["residency"],
        extras=extras(options),
        reference_tokenizer=reference_tokenizer(known),
    )
    if usage_file:
        quote = quote_usage(
            known, load_trace(usage_file), usage_file.name, terms, baselines=options["baselines"]
        )
    else:
        known = with_pictures(known, options)
        workload = wiring.workload(known, options)
        quote = quote_workload(known, workload, terms, baselines=options["baselines"])
    write_json(quote) if as_json else _print(quote)


def _print(quote: Quote) -> None:
    from qwenhost.report import quote_table

    screen = console()
    screen.print(quote_table(quote, width=screen.width))

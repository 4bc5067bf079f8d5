"""``qwenhost count-tokens``: a user's sample through both tokenizers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.options import json_option

if TYPE_CHECKING:
    from qwenhost.token_counts import TokenCounts, TokenizerCount, TokenRatio

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="count-tokens")
@click.argument("sample", type=_FILE)
@click.option("--url", help="A running vLLM whose /tokenize counts for Qwen; its key in QWENHOST_API_KEY.")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path),
    help="Instead of a server: Qwen's tokenizer.json, or its folder.",
)  # fmt: skip
@click.option("--model", help="Name to ask for, instead of the first that the server lists.")
@click.option("--claude-model", help="Model whose tokenizer counts. [default: the baseline of the prices]")
@click.option(
    "--claude-url", default="https://api.anthropic.com", show_default=True, help="Where it is counted."
)
@click.option("--claude-key-file", type=_FILE, help="File with the key. Or set ANTHROPIC_API_KEY.")
@click.option("--limit", type=click.IntRange(1), help="Count so many requests at most.")
@click.option("--save", type=_FILE, help="Write the counts to this file, for compare --token-counts.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sample: Path,
    save: Path | None,
    claude_key_file: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    r"""Count SAMPLE with Qwen's tokenizer and with Claude's, and give the ratio that compare prices with.

    SAMPLE is a file as for probe --prompts: a prompt, messages, or a ShareGPT conversation a line. A last
    message by the model is counted as output. Counting is free on both sides; the texts are sent to
    Claude's count_tokens endpoint.

    \b
    qwenhost count-tokens sample.jsonl --url http://127.0.0.1:8000 --save counts.json
    qwenhost count-tokens sample.jsonl --tokenizer Qwen3.5-122B-A10B/tokenizer.json --json
    """
    from qwenhost.cli import wiring
    from qwenhost.cli.output import write_json
    from qwenhost.errors import BadInputError
    from qwenhost.files import write_atomically
    from qwenhost.launcher.access import read_api_key
    from qwenhost.probe.count_tokens import Counting, count_tokens
    from qwenhost.token_counts import token_counts_to_json

    if (options["url"] is None) == (options["tokenizer"] is None):
        raise BadInputError(
            "give exactly one of --url and --tokenizer",
            remedy="--url of a running vLLM, or --tokenizer with the path of Qwen's tokenizer.json.",
        )
    if save is not None and not save.absolute().parent.is_dir():
        raise BadInputError(f"--save {save}: no such folder", remedy="Make the folder first.")
    key = read_api_key(claude_key_file, {}) or os.environ.get("ANTHROPIC_API_KEY", "").strip()
    if not key:
        raise BadInputError(
            "there is no key for Claude's tokenizer",
            remedy="Set ANTHROPIC_API_KEY or give --claude-key-file; counting costs nothing.",
        )
    baseline = next((p.model for p in wiring.catalog(ctx).api_prices.values() if p.baseline), "")
    counting = Counting(
        sample=sample, most=options["limit"], url=options["url"], tokenizer=options["tokenizer"],
        model=options["model"], api_key=read_api_key(None, os.environ), claude_url=options["claude_url"],
        claude_model=options["claude_model"] or baseline, claude_key=key,
    )  # fmt: skip
    counts = count_tokens(counting, _progress)
    if save is not None:
        write_atomically(save, token_counts_to_json(counts))
    if as_json:
        write_json(token_counts_to_json(counts))
    else:
        _show(counts)
    return 0


def _progress(done: int, total: int) -> None:
    import sys

    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        click.echo(f"\r{done:,} of {total:,} counted{end}", err=True, nl=False)


def _show(counts: TokenCounts) -> None:
    from qwenhost.cli.output import console

    out = console()
    for who in (counts.qwen, counts.sonnet):
        out.print(_line(who))
    out.print(f"Input: {_ratio(counts.input_ratio)}")
    if counts.output_ratio is not None:
        out.print(f"Output: {_ratio(counts.output_ratio)}")
    for warning in counts.warnings:
        out.print(f"[yellow]Note:[/yellow] {warning}")


def _line(who: TokenizerCount) -> str:
    output = "" if who.output_tokens is None else f", {who.output_tokens:,} out"
    return (
        f"[bold]{who.model}[/bold]: {who.input_tokens:,} tokens in{output}, {who.requests:,} requests "
        f"({who.basis} by {who.name}, {who.date})"
    )


def _ratio(ratio: TokenRatio) -> str:
    of = "95 % within" if ratio.interval == "bootstrap" else "single requests"
    return f"{ratio.value:.3f} Claude tokens per Qwen token ({of} {ratio.low:.3f} to {ratio.high:.3f})"

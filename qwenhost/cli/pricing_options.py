"""Options shared by the commands that deal in money."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qwenhost.cli.ranges import FloatRange

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def api_options(function: F) -> F:
    """How the API side is billed."""
    for option in reversed(_API_OPTIONS):
        function = option(function)
    return function


def self_host_options(function: F) -> F:
    """What the self-hosting side is charged with."""
    for option in reversed(_SELF_HOST_OPTIONS):
        function = option(function)
    return function


_API_OPTIONS = (
    click.option(
        "--baseline",
        "baselines",
        multiple=True,
        metavar="ID",
        help="API price to compare with, the first is the main one: qwenhost profiles list api_prices.",
    ),
    click.option(
        "--as-of",
        type=click.DateTime(["%Y-%m-%d"]),
        metavar="YYYY-MM-DD",
        help="Day whose API prices apply.  [default: today]",
    ),
    click.option(
        "--cache",
        type=click.Choice(["auto", "none", "5m", "1h"]),
        default="auto",
        show_default=True,
        help="Prompt cache at the API; auto is the cheapest with a published hit share, or as recorded.",
    ),
    click.option("--batch", is_flag=True, help="Bill as batch where the API sells it."),
    click.option(
        "--tools",
        type=click.Choice(["auto", "any"]),
        help="Every request offers tools: the API adds its own prompt for them; any: a call is forced.",
    ),
    click.option(
        "--image",
        "images",
        multiple=True,
        metavar="WxH",
        help="A picture in every request, in pixels; repeatable. Each side counts its own tokens.",
    ),
    click.option("--web-searches", type=FloatRange(0), default=0.0, help="Searches a request, by the API."),
    click.option("--residency", metavar="WHERE", help="Data residency surcharge, e.g. us."),
)

_SELF_HOST_OPTIONS = (
    click.option(
        "--requests-per-day", "--volume", type=FloatRange(0, min_open=True), help="Volume to price."
    ),
    click.option("--staff-fte", type=FloatRange(0, 1e6), help="People who run it, in full-time jobs."),
    click.option("--spare-nodes", type=click.IntRange(0), help="Idle nodes for failures and upgrades."),
    click.option(
        "--mean-over-peak",
        type=FloatRange(0, 1, min_open=True),
        help="Mean demand over peak demand; nodes are bought for the peak.",
    ),
    click.option(
        "--token-ratio",
        type=FloatRange(0, min_open=True),
        help="The API's tokens per token of the workload, if its tokenizer counts differently.",
    ),
    click.option(
        "--token-counts",
        "token_counts_file",
        type=click.Path(path_type=Path),
        help="Your text through both tokenizers, by qwenhost count-tokens --save: ratio and interval "
        "in place of the assumed one.",
    ),
    click.option(
        "--output-ratio",
        type=FloatRange(0, min_open=True),
        help="Qwen's output tokens per output token of the workload, thinking included.",
    ),
    click.option("--own", is_flag=True, help="Owned hardware in place of rent; the options below refine it."),
    click.option(
        "--own-usd",
        type=FloatRange(0, min_open=True),
        help="Purchase price of a GPU, its share of the server included.",
    ),
    click.option("--own-years", type=FloatRange(0, min_open=True), help="Life of owned hardware."),
    click.option("--own-kw", type=FloatRange(0), help="Power of a GPU, its share of the server included."),
    click.option("--colo-usd-per-kw-month", type=FloatRange(0), help="Colocation."),
    click.option(
        "--electricity-usd-per-kwh",
        type=FloatRange(0),
        help="On your own premises instead of colocation; times --pue.",
    ),
    click.option("--pue", type=FloatRange(1), help="Facility power over IT power."),
    click.option(
        "--success",
        metavar="qwen=P,sonnet=P",
        help="Your own success rates of one attempt, from 0 to 1, beside the published scores.",
    ),
    click.option("--max-attempts", type=click.IntRange(1), help="Give a task up after this many attempts."),
)

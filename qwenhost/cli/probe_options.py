"""Options of ``qwenhost probe`` that say what is sent where; those of a load and of a sweep stand beside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.probe_wishes import wish_options
from qwenhost.cli.ranges import FloatRange

if TYPE_CHECKING:
    from collections.abc import Callable

_FILE = click.Path(path_type=Path, dir_okay=False)
_ABOVE_ZERO = FloatRange(0, min_open=True)
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """``90``, ``90s``, ``15m`` or ``8h`` in seconds; Click calls it."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([a-z]*)", value.strip())
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
        raise click.BadParameter(f"{value!r} is no duration: write 90, 90s, 15m or 8h", ctx, param)
    return float(found[1]) * _UNITS[found[2]]


_CONTENT = (
    click.option(
        "--distribution", type=click.Choice(["fixed", "preset"]), default="fixed", show_default=True,
        help="Every request of the mean size, or sizes drawn from the preset's statistics.",
    ),
    click.option(
        "--prompts", type=_FILE,
        help="Your own: JSON lines with prompt or messages, or ShareGPT conversations.",
    ),
    click.option(
        "--unique-prefix/--no-unique-prefix", default=True,
        help="Open prompts with a mark that no cache has seen. Without it, runs repeat each other's.",
    ),
    click.option(
        "--turns", type=click.IntRange(1), default=1, show_default=True,
        help="Requests of a session: each holds the answers before it and begins with the last prompt.",
    ),
    click.option(
        "--think-time", "think_time_s", type=FloatRange(0), default=0.0,
        help="Mean seconds from an answer to the session's next request, exponential.",
    ),
    click.option(
        "--trace", type=_FILE,
        help="Recorded traffic (Azure, BurstGPT, Mooncake, Claude Code's, own): its sizes and instants; "
        "with --rate or --concurrency its sizes alone.",
    ),
    click.option("--trace-scale", type=_ABOVE_ZERO, default=1.0, help="Play it so many times as fast."),
    click.option("--images", type=click.IntRange(0, 64), default=0, help="Pictures in each request."),
    click.option(
        "--image-size", default="1024x1024", show_default=True, metavar="WxH", help="Of generated pictures."
    ),
    click.option(
        "--image", "image_files", type=_FILE, multiple=True, help="Your own picture instead; repeatable."
    ),
    click.option(
        "--tools", metavar="N|FILE", help="Definitions of tools in each request: so many, or a JSON list."
    ),
    click.option(
        "--tool-choice", type=click.Choice(["auto", "required", "none"]),
        help="Whether the model may call them, must, or must not. [default: auto]",
    ),
    click.option("--thinking/--no-thinking", default=None, help="Ask the model to think, or not to."),
    click.option(
        "--exact-output/--no-exact-output", default=None,
        help="Have answers of exactly the wanted length (ignore_eos). On where the server is vLLM.",
    ),
    click.option("--seed", type=click.IntRange(0), help="Repeat a run's prompts and arrivals exactly."),
)  # fmt: skip

_WHERE = (
    click.option(
        "--endpoint", type=click.Choice(["chat", "completions", "responses", "messages"]), default="chat",
        show_default=True, help="Which API.",
    ),
    click.option("--model", help="Name to ask for, instead of the first that the server lists."),
    click.option("--api-key-file", type=_FILE, help="File with the key. Or set QWENHOST_API_KEY."),
    click.option(
        "--spread", type=click.Choice(["round-robin", "session"]),
        help="Over several URLs: each request to the next, or all of a session to one. [default: session]",
    ),
    click.option(
        "--target", type=click.Choice(["sonnet"]),
        help="Probe Claude's own API with the key in ANTHROPIC_API_KEY or --api-key-file; needs --max-usd.",
    ),
    click.option(
        "--max-usd", type=_ABOVE_ZERO,
        help="Spending cap of --target sonnet: no run begins that could cost more, none goes on past it.",
    ),
)  # fmt: skip

_LOAD = (
    click.option("--requests", type=click.IntRange(1), help="Stop after so many requests."),
    click.option(
        "--duration", "duration_s", metavar="TIME", callback=seconds_of,
        help="Stop sending after so long: 90, 15m, 8h."
    ),
    click.option(
        "--arrivals", type=click.Choice(["poisson", "constant", "gamma"]), default="poisson",
        show_default=True, help="Law of an open loop.",
    ),
    click.option(
        "--burstiness", type=_ABOVE_ZERO, default=1.0, help="Shape of gamma gaps; below 1 is burstier."
    ),
    click.option(
        "--ramp-to", type=_ABOVE_ZERO, help="Have --rate go to this in a straight line over --duration."
    ),
    click.option(
        "--ramp-up", "ramp_up_s", type=FloatRange(0), default=0.0,
        help="Seconds over which a closed loop opens its slots, instead of at once.",
    ),
    click.option("--warmup", type=click.IntRange(0), help="Requests sent first and discarded."),
    click.option(
        "--timeout", "timeout_s", type=_ABOVE_ZERO, default=600.0, show_default=True,
        help="Seconds from the due time to the end of the answer.",
    ),
    click.option(
        "--idle-timeout", "idle_timeout_s", type=_ABOVE_ZERO, default=120.0, show_default=True,
        help="Longest silence within an answer, in seconds.",
    ),
)  # fmt: skip


def _added(options: tuple[Callable[..., Any], ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


content_options = _added((*_CONTENT, *wish_options))
where_options = _added(_WHERE)
schedule_options = _added(_LOAD)

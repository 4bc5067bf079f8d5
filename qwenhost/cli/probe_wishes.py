"""Options of ``qwenhost probe`` that users of other load generators bring along: headers, fields, goodput."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from qwenhost.cli.ranges import FloatRange
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LIMITS: Final = {"ttft": "slo_ttft_ms", "tpot": "slo_tpot_ms", "e2el": "slo_e2e_ms", "e2e": "slo_e2e_ms"}
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token
_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "expect"}
)
_MEASURED: Final = frozenset(
    {"model", "stream", "stream_options", "messages", "prompt", "input", "max_tokens", "n", "best_of",
     "max_completion_tokens", "max_output_tokens"}
)  # fmt: skip
"""Fields that another option decides, or without which nothing could be measured."""

wish_options = (
    click.option(
        "--header", "extra_headers", multiple=True, metavar="NAME=VALUE",
        help="Header of every request, beside our own or in place of one; repeatable.",
    ),
    click.option(
        "--extra-body", metavar="JSON", help='Fields of every request\'s body, e.g. \'{"top_p": 0.8}\'.'
    ),
    click.option(
        "--temperature", type=FloatRange(0), help="Of sampling. [default: the server's]"
    ),
    click.option(
        "--goodput", multiple=True, metavar="KEY:MS",
        help="Limits as vLLM's benchmark takes them: ttft:200, tpot:50, e2el:4000; repeatable.",
    ),
)  # fmt: skip


def take_goodput(options: dict[str, Any]) -> None:
    """Set the limits of ``--goodput`` as if they had been given as ``--slo-...``.

    Raises:
        BadInputError: not KEY:MS, an unknown key, or a limit given twice.
    """
    options["slo_e2e_ms"] = None
    remedy = "Write --goodput ttft:200 --goodput tpot:50, in milliseconds; e2el is end to end."
    for pair in " ".join(options["goodput"]).replace(",", " ").split():
        key, _, text = pair.partition(":")
        limit = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
        if key not in _LIMITS or not limit:
            raise BadInputError(
                f"--goodput {pair}: expected one of ttft, tpot, e2el and a limit", remedy=remedy
            )
        if options[_LIMITS[key]] is not None:
            raise BadInputError(f"--goodput {pair}: the limit was given already", remedy=remedy)
        options[_LIMITS[key]] = limit


def slo_given(options: Mapping[str, Any]) -> bool:
    """Whether the command line names a limit."""
    return any(options.get(name) is not None for name in _LIMITS.values())


def headers_of(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """``NAME=VALUE`` each, as name and value.

    Raises:
        BadInputError: another form, or a header that frames the message.
    """
    found = []
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            before, colon, _ = text.partition(":")
            shown = f" {before}" if colon else ""  # What is no name may be a key.
            raise BadInputError(f"--header{shown}: not NAME=VALUE", remedy="Write --header x-tenant=blue.")
        if name.lower() in _OURS:
            raise BadInputError(f"--header {name}: the client sets it itself", remedy="Leave it out.")
        if not value.isprintable() or not value.isascii():
            raise BadInputError(f"--header {name}: its value is not plain ASCII text")
        found.append((name, value.strip()))
    return tuple(found)


def body_of(text: str | None) -> dict[str, Any]:
    """Fields for every request.

    Raises:
        BadInputError: no JSON object, or a field that is not free.
    """
    if text is None:
        return {}
    remedy = "Write a JSON object, e.g. --extra-body '{\"top_p\": 0.8}'."
    try:
        fields = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInputError(f"--extra-body: {error}", remedy=remedy) from error
    for name in fields:
        if name in _MEASURED:
            raise BadInputError(
                f"--extra-body: {name} is not free",
                remedy="--model, --output-tokens and the other options of content decide it.",
            )
    return fields

"""From the options of ``qwenhost probe`` to the run that is asked for."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.cli import wiring
from qwenhost.cli.probe_wishes import body_of, headers_of
from qwenhost.errors import BadInputError
from qwenhost.facts import Slo
from qwenhost.launcher.access import read_api_key
from qwenhost.probe import ProbeConfig
from qwenhost.probe.images import parse_size
from qwenhost.probe.resume import require_same_settings
from qwenhost.probe.spending import Budget, Prices
from qwenhost.probe.tools import MOST_GENERATED, generated_tools, read_tools

if TYPE_CHECKING:
    import click

    from qwenhost.facts import ApiPrice, Catalog, TokenRates
    from qwenhost.probe.records import Head

_ANTHROPIC = "https://api.anthropic.com"
_DEFAULT_CONCURRENCY = 8


def config_of(ctx: click.Context, options: dict[str, Any]) -> ProbeConfig:
    """The run asked for by the command line.

    Raises:
        BadInputError: options that contradict one another, or name what is not there.
    """
    _refuse_idle(options)
    known = wiring.catalog(ctx)
    workload = wiring.workload(known, options)
    sized = options["input_tokens"] or options["output_tokens"]
    own = options["prompts"] or options["trace"] or sized
    same_name = {name: options[name] for name in ProbeConfig.__struct_fields__ if name in options}
    config = ProbeConfig(
        **same_name
        | _load(options)
        | _where(options)
        | {
            "workload": "custom" if own else workload.id,
            "input_tokens": workload.input_tokens,
            "output_tokens": workload.output_tokens,
            "slo": _slo(options, workload.slo),
            "tools": _tools(options["tools"]),
            "extra_headers": headers_of(options["extra_headers"]),
            "extra_body": body_of(options["extra_body"]),
        }
    )
    if config.images and not config.image_files:
        parse_size(config.image_size)
    return _for_sonnet(config, options, known) if options["target"] == "sonnet" else config


def _slo(options: dict[str, Any], planned: Slo) -> Slo:
    """Limits of ``--goodput`` are all there are; ``--slo-...`` change those of the preset."""
    if not options["goodput"]:
        return planned
    return Slo(
        ttft_ms=options["slo_ttft_ms"], tpot_ms=options["slo_tpot_ms"], e2e_ms=options["slo_e2e_ms"],
        percentile=planned.percentile,
    )  # fmt: skip


def _refuse_idle(options: dict[str, Any]) -> None:
    """Refuse options that would have no effect: the user believes that they have one."""
    sessions = options["turns"] > 1 or options["trace"]
    for flag, given, needed, met in (
        ("--think-time", options["think_time_s"], "--turns or --trace", sessions),
        ("--trace-scale", options["trace_scale"] != 1, "--trace", options["trace"]),
        ("--tool-choice", options["tool_choice"], "--tools", options["tools"]),
        ("--spread", options["spread"], "several URLs", len(options["urls"]) > 1),
    ):
        if given and not met:
            raise BadInputError(f"{flag} has no effect without {needed}")


def resumed_config(ctx: click.Context, options: dict[str, Any], head: Head) -> ProbeConfig:
    """The settings of a run that is resumed; those named again must be the same.

    Raises:
        BadInputError: one differs.
    """
    from click.core import ParameterSource

    recorded = head.config
    names = {name for name in ctx.params if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT} - {
        "resume",
        "as_json",
        "save",
    }
    # What was not named is filled in with the run's own, so that the whole can be read as a new run.
    filled: dict[str, Any] = {"urls": options["urls"] or recorded.urls}
    if recorded.budget is not None:
        filled |= {"target": "sonnet", "max_usd": options["max_usd"] or recorded.budget.max_usd}
    asked = config_of(ctx, options | filled)
    given = {name: getattr(asked, name) for name in _fields_of(names)}
    require_same_settings(recorded, given)
    missing = {name for name, _ in recorded.extra_headers} ^ {name for name, _ in asked.extra_headers}
    if missing:
        raise BadInputError(
            f"the run was begun with other headers: {', '.join(sorted(missing))}",
            remedy="Give the same --header again: a recording does not hold their values.",
        )
    return msgspec.structs.replace(
        recorded,
        api_key=asked.api_key,
        extra_headers=asked.extra_headers,
        records=options["resume"],
        slo=asked.slo if {"slo_ttft_ms", "slo_tpot_ms", "goodput"} & names else recorded.slo,
        gpus=options["gpus"] or recorded.gpus,
    )


def _fields_of(names: set[str]) -> set[str]:
    """Fields of the configuration that named options decide."""
    renamed = {"urls": {"url", "more_urls"}, "target": {"anthropic"}, "max_usd": {"budget"},
               "workload": {"workload", "input_tokens", "output_tokens"}}  # fmt: skip
    found: set[str] = set()
    for name in names:
        found |= renamed.get(name, {name})
    return found & set(ProbeConfig.__struct_fields__)


def _load(options: dict[str, Any]) -> dict[str, Any]:
    if options["concurrency"] is None and options["rate"] is None and options["trace"] is None:
        return {"concurrency": _DEFAULT_CONCURRENCY}
    return {}


def _where(options: dict[str, Any]) -> dict[str, Any]:
    if options["target"] is None:
        if options["max_usd"] is not None:
            raise BadInputError("--max-usd caps --target sonnet; nothing else is billed by use")
        url, *more = options["urls"]
        return {
            "url": url, "more_urls": tuple(more), "api_key": read_api_key(options["api_key_file"], os.environ)
        }  # fmt: skip
    if len(options["urls"]) > 1:
        raise BadInputError("--target sonnet takes one URL at most")
    # The key of our own service is never offered to another's.
    key = read_api_key(options["api_key_file"], {}) or os.environ.get("ANTHROPIC_API_KEY", "").strip()
    if not key:
        raise BadInputError(
            "there is no key for Claude's API", remedy="Set ANTHROPIC_API_KEY or give --api-key-file FILE."
        )
    return {"url": options["urls"][0] if options["urls"] else _ANTHROPIC, "api_key": key}


def _for_sonnet(config: ProbeConfig, options: dict[str, Any], known: Catalog) -> ProbeConfig:
    """Claude's own dialect, model and prices."""
    if options["max_usd"] is None:
        raise BadInputError(
            "--target sonnet is billed by use and needs a spending cap",
            remedy="Give --max-usd, e.g. --max-usd 2; the run says beforehand what it will cost.",
        )
    if config.extra_body:
        raise BadInputError(
            "--extra-body may change what a request costs, so --max-usd could not be kept",
            remedy="Leave it out; --temperature and --thinking are known.",
        )
    if options["sweep"] or options["find_rate"] or options["find_concurrency"]:
        raise BadInputError(
            "a spending cap is of one run, and a sweep makes many",
            remedy="Probe each load by itself: --concurrency 1, then 2...",
        )
    price = next((price for price in known.api_prices.values() if price.baseline), None)
    if price is None:
        raise BadInputError("the profiles name no baseline price", remedy="See: qwenhost profiles list")
    return msgspec.structs.replace(
        config,
        anthropic=True,
        endpoint="messages",
        exact_output=False,
        model=config.model or price.model,
        warmup=config.warmup or 0,
        budget=Budget(max_usd=options["max_usd"], prices=prices_on(price, dt.datetime.now(dt.UTC).date())),
    )


def prices_on(price: ApiPrice, day: dt.date) -> Prices:
    """What the API bills on a day, with its prices for long prompts where it has any."""
    from qwenhost.cost.api_cost import period_on

    period = period_on(price, day)
    since = "" if period.since is None else f", since {period.since}"
    from_where = f"{period.source.where} ({period.source.as_of})"
    longer, above = period.long_context_usd_per_mtok, period.long_context_threshold_tokens
    return _at(
        period.usd_per_mtok, f"{price.name}: {{}} per million tokens{since}; {from_where}",
        above=above, longer=None if longer is None else _at(longer, f"{price.name}: {{}}; {from_where}"),
    )  # fmt: skip


def _at(rates: TokenRates, said: str, *, above: int | None = None, longer: Prices | None = None) -> Prices:
    return Prices(
        input=rates.input,
        output=rates.output,
        cache_write=rates.cache_write_5m or rates.input,
        cache_read=rates.cache_read or rates.input,
        source=said.format(f"{rates.input:g} USD in, {rates.output:g} out"),
        long_context_above_tokens=above,
        long_context=longer,
    )


def _tools(asked: str | None) -> tuple[dict[str, Any], ...]:
    if asked is None:
        return ()
    if not asked.isdecimal():
        return read_tools(Path(asked))
    if not 1 <= int(asked) <= MOST_GENERATED:
        raise BadInputError(
            f"--tools {asked}: 1 to {MOST_GENERATED} can be generated", remedy="Give a file with your own."
        )
    return generated_tools(int(asked))

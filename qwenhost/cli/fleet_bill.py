"""The API's bill for what a simulated fleet answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.cost.quote import QuoteLine
    from qwenhost.facts import Catalog, Workload
    from qwenhost.simulate.fleet_result import FleetRun


def with_api_bills(known: Catalog, run: FleetRun, workload: Workload, options: Mapping[str, Any]) -> FleetRun:
    """The run with every API's bill, and the main one's in each window.

    A trace is priced request by request, a workload by its mean request with its published cache hits; either
    way the tokens answered are billed at the resulting price per token in and out.

    Raises:
        BadInputError: no price on that day, or a term a baseline does not sell.
    """
    from qwenhost.simulate.fleet_config import DAY_S
    from qwenhost.simulate.fleet_result import ApiBill

    lines, prompt, output = _priced(known, workload, options)
    done = run.requests.completed
    tokens_in, tokens_out = run.mean_input_tokens * done, run.mean_output_tokens * done
    bills = []
    for line in lines:
        usd = _usd(line, prompt, output, tokens_in, tokens_out, done)
        bills.append(
            ApiBill(
                id=line.id, name=line.name, usd=usd, usd_per_day=usd * DAY_S / run.duration_s,
                cache_policy=line.cache_policy, as_of=line.as_of, source=line.source,
            )
        )  # fmt: skip
    main = lines[0]
    windows = tuple(
        msgspec.structs.replace(
            window,
            api_usd=_usd(
                main,
                prompt,
                output,
                window.input_tokens,
                window.output_tokens,
                window.requests - window.failed,
            ),
        )
        for window in run.windows
    )
    return msgspec.structs.replace(run, api=tuple(bills), windows=windows)


def _priced(
    known: Catalog, workload: Workload, options: Mapping[str, Any]
) -> tuple[tuple[QuoteLine, ...], float, float]:
    """Every API's bill of one mean request, and that request's tokens."""
    from qwenhost.cli.pricing import price_day
    from qwenhost.cost import ApiTerms, load_trace, quote_usage, quote_workload, reference_tokenizer

    terms = ApiTerms(
        as_of=price_day(dict(options)),
        cache=options["cache"],
        batch=options["batch"],
        residency=options["residency"],
        reference_tokenizer=reference_tokenizer(known),
    )
    baselines = options["baselines"]
    if options["trace_file"] is None:
        quote = quote_workload(known, workload, terms, baselines=baselines)
        return quote.api, workload.input_tokens.mean, workload.output_tokens.mean
    trace = load_trace(options["trace_file"])
    quote = quote_usage(known, trace, options["trace_file"].name, terms, baselines=baselines)
    count = max(1, len(trace.usages))
    prompt = sum(usage.prompt_tokens for usage in trace.usages) / count
    return quote.api, prompt, sum(usage.output_tokens for usage in trace.usages) / count


def _usd(  # noqa: PLR0917 - a mean request, and the tokens to price by it
    line: QuoteLine, prompt: float, output: float, tokens_in: float, tokens_out: float, requests: int
) -> float:
    bill = line.breakdown
    return bill.input / prompt * tokens_in + bill.output / output * tokens_out + bill.fees * requests

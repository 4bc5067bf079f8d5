"""``qwenhost probe``: load an endpoint and measure it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.options import json_option, load_options, workload_options
from qwenhost.cli.output import write_json
from qwenhost.cli.probe_sweep import sweep_options, wants_sweep

if TYPE_CHECKING:
    from qwenhost.measurements import Measurements
    from qwenhost.probe import ProbeConfig

_DEFAULT_CONCURRENCY = 8
_SECONDS = click.FloatRange(0, min_open=True)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="probe")
@click.argument("url", required=False)
@load_options
@click.option("--requests", type=click.IntRange(1), help="Stop after so many requests.")
@click.option("--duration", "duration_s", type=_SECONDS, help="Stop sending after so many seconds.")
@workload_options
@click.option(
    "--distribution", type=click.Choice(["fixed", "preset"]), default="fixed", show_default=True,
    help="Every request of the mean size, or sizes drawn from the preset's statistics.",
)  # fmt: skip
@click.option("--prompts", type=_FILE, help="JSONL file of your own prompts: prompt or messages a line.")
@click.option(
    "--endpoint", type=click.Choice(["chat", "completions", "responses", "messages"]), default="chat",
    show_default=True, help="Which API.",
)  # fmt: skip
@click.option("--model", help="Name to ask for, instead of the first that the server lists.")
@click.option("--api-key-file", type=_FILE, help="File with the key. Or set QWENHOST_API_KEY.")
@click.option(
    "--arrivals", type=click.Choice(["poisson", "constant", "gamma"]), default="poisson", show_default=True,
    help="Law of an open loop.",
)  # fmt: skip
@click.option(
    "--ramp-up", "ramp_up_s", type=click.FloatRange(0), default=0.0,
    help="Seconds over which a closed loop opens its slots, instead of at once.",
)  # fmt: skip
@click.option("--burstiness", type=_SECONDS, default=1.0, help="Shape of gamma gaps; below 1 is burstier.")
@click.option("--thinking/--no-thinking", default=None, help="Ask the model to think, or not to.")
@click.option(
    "--exact-output/--no-exact-output", default=None,
    help="Have answers of exactly the wanted length (ignore_eos). On where the server is vLLM.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), help="Repeat a run's prompts and arrivals exactly.")
@click.option("--warmup", type=click.IntRange(0), help="Requests sent first and discarded.")
@click.option("--timeout", "timeout_s", type=_SECONDS, default=600.0, show_default=True, help="Of a request.")
@click.option("--gpus", metavar="NxNAME", help="Hardware behind the endpoint, noted in the result.")
@click.option("--save", type=_FILE, help="Write the measurements to this file.")
@click.option("--records", type=_FILE, help="Write each request's record to this JSONL file as it ends.")
@click.option(
    "--from-records", type=_FILE,
    help="Measure nothing: draw the figures anew from a file of --records, for any --slo-...",
)  # fmt: skip
@sweep_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, save: Path | None, **options: Any) -> int:
    r"""Offer load to the server at URL and measure TTFT, TPOT, ITL, end-to-end time and throughput.

    --concurrency keeps so many requests in flight (default 8). --rate sends so many a second whatever
    the server does. Latency counts from the instant at which a request was due. A run whose own client
    was late or overloaded declares itself void.

    --sweep measures several loads; --find-rate and --find-concurrency double the load, then bisect, until
    the highest that keeps the SLO is known with --confidence. They print one object with every run, and
    --save writes the found run.

    Exit codes: 0 measured, 4 nobody answers, 5 void, a limit given with --slo-... was missed, or none
    found that keeps it, 130 interrupted.

    \b
    qwenhost probe http://127.0.0.1:8000
    qwenhost probe http://127.0.0.1:8000 --rate 2 --duration 60 --slo-ttft-ms 2000 --slo-tpot-ms 40
    qwenhost probe http://127.0.0.1:8000 --concurrency 64 --input-tokens 4000 --output-tokens 500 --json
    qwenhost probe --from-records run.jsonl --slo-ttft-ms 500
    qwenhost probe http://127.0.0.1:8000 --find-rate --slo-ttft-ms 2000 --save measurements.json
    """
    from qwenhost.cli import probe_sweep
    from qwenhost.cli.probe_view import print_summary
    from qwenhost.errors import BadInputError
    from qwenhost.files import write_atomically
    from qwenhost.measurements import measurements_to_json

    if save is not None and not save.absolute().parent.is_dir():
        raise BadInputError(f"--save {save}: no such folder", remedy="Make the folder first.")
    if (options["url"] is None) == (options["from_records"] is None):
        raise BadInputError("give the server's URL or --from-records FILE", remedy="qwenhost probe --help")
    if wants_sweep(options):
        return probe_sweep.run(_config(ctx, options), options, as_json=as_json, save=save)
    measured = _recorded(options) if options["from_records"] else _measured(ctx, options)
    if save is not None:
        write_atomically(save, measurements_to_json(measured))
    if as_json:
        write_json(measurements_to_json(measured))
    else:
        print_summary(measured)
    return _exit_code(measured, slo_given=bool(options["slo_ttft_ms"] or options["slo_tpot_ms"]))


def _measured(ctx: click.Context, options: dict[str, Any]) -> Measurements:
    from qwenhost.cli.probe_view import live_progress
    from qwenhost.probe import run_probe

    with live_progress() as on_progress:
        return run_probe(_config(ctx, options), on_progress=on_progress).measurements


def _recorded(options: dict[str, Any]) -> Measurements:
    """The recorded run's figures, judged by its own SLO where none is given."""
    from qwenhost.facts import Slo
    from qwenhost.probe.records import measurements_from

    given = Slo(ttft_ms=options["slo_ttft_ms"], tpot_ms=options["slo_tpot_ms"])
    return measurements_from(options["from_records"], None if given == Slo() else given)


def _config(ctx: click.Context, options: dict[str, Any]) -> ProbeConfig:
    """The run asked for by the command line."""
    from qwenhost.cli import wiring
    from qwenhost.launcher.access import read_api_key
    from qwenhost.probe import ProbeConfig

    workload = wiring.workload(wiring.catalog(ctx), options)
    sized = options["input_tokens"] or options["output_tokens"]
    concurrency = options["concurrency"]
    if concurrency is None and options["rate"] is None:
        concurrency = _DEFAULT_CONCURRENCY
    same_name = {name: options[name] for name in ProbeConfig.__struct_fields__ if name in options}
    return ProbeConfig(
        **same_name
        | {
            "concurrency": concurrency,
            "api_key": read_api_key(options["api_key_file"], os.environ),
            "workload": "custom" if options["prompts"] or sized else workload.id,
            "input_tokens": workload.input_tokens,
            "output_tokens": workload.output_tokens,
            "prefix_hit": options["prefix_hit"] or 0.0,
            "slo": workload.slo,
        }
    )


def _exit_code(measured: Measurements, *, slo_given: bool) -> int:
    from qwenhost.cli.output import say

    if measured.interrupted:
        return 130
    if measured.void:
        return 5
    goodput = measured.goodput
    if slo_given and goodput is not None and goodput.fraction < goodput.slo.percentile / 100:
        say(f"SLO missed: {goodput.fraction:.1%} of requests kept it, {goodput.slo.percentile:g} % must.")
        return 5
    return 0

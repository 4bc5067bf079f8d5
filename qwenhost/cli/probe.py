"""``qwenhost probe``: load an endpoint and measure it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.options import json_option, load_options, workload_options
from qwenhost.cli.output import require_folders, write_json
from qwenhost.cli.probe_options import content_options, schedule_options, where_options
from qwenhost.cli.probe_sweep import sweep_options, wants_sweep
from qwenhost.cli.probe_wishes import slo_given, take_goodput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.measurements import Measurements, RequestRecord

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="probe")
@click.argument("urls", metavar="[URL]...", nargs=-1)
@load_options
@schedule_options
@workload_options
@content_options
@where_options
@click.option("--gpus", metavar="NxNAME", help="Hardware behind the endpoint, noted in the result.")
@click.option("--save", type=_FILE, help="Write the measurements to this file.")
@click.option("--html", type=_FILE, help="Write a page of plots: over time, distributions, against load.")
@click.option("--csv", "csv_file", type=_FILE, help="Write a row for each request, or for each load tried.")
@click.option("--records", type=_FILE, help="Write each request's record to this JSONL file as it ends.")
@click.option(
    "--from-records", type=_FILE,
    help="Measure nothing: draw the figures anew from a file of --records, for any --slo-...",
)  # fmt: skip
@click.option(
    "--resume", type=_FILE,
    help="Go on with the run of a file of --records that was killed or interrupted, as it began.",
)  # fmt: skip
@sweep_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    as_json: bool,
    save: Path | None,
    html: Path | None,
    csv_file: Path | None,
    **options: Any,
) -> int:
    r"""Offer load to the server at URL and measure TTFT, TPOT, ITL, end-to-end time and throughput.

    Several URLs are replicas of one service: requests are spread over them, figures given together and by
    URL.

    --concurrency keeps so many requests in flight (default 8). --rate sends so many a second whatever
    the server does. Latency counts from the instant at which a request was due. A run whose own client
    was late or overloaded declares itself void.

    --turns makes sessions: the model's own answers come back to it, the next turn is sent when one has been
    read and thought about. --rate still counts requests: sessions begin at rate / turns. --prefix-hit then
    is the share of prompt tokens that an earlier prompt held.

    --sweep measures several loads; --find-rate and --find-concurrency double the load, then bisect, until
    the highest that keeps the SLO is known with --confidence; a rate must hold from an empty server and
    after a rush at twice the rate. They print one object with every run, and --save writes the found run.

    Exit codes: 0 measured, 4 nobody answers, 5 void, a limit given with --slo-... was missed, or none
    found that keeps it, 130 interrupted.

    \b
    qwenhost probe http://127.0.0.1:8000
    qwenhost probe http://127.0.0.1:8000 --rate 2 --duration 60 --slo-ttft-ms 2000 --slo-tpot-ms 40
    qwenhost probe http://127.0.0.1:8000 --concurrency 64 --input-tokens 4000 --output-tokens 500 --json
    qwenhost probe http://127.0.0.1:8000 --turns 5 --think-time 3 --prefix-hit 0.7
    qwenhost probe http://127.0.0.1:8000 --trace azure.csv --trace-scale 2 --records run.jsonl
    qwenhost probe --resume run.jsonl
    qwenhost probe --from-records run.jsonl --slo-ttft-ms 500 --html run.html
    qwenhost probe --target sonnet --max-usd 2 --requests 50 --concurrency 4
    qwenhost probe http://127.0.0.1:8000 --find-rate --slo-ttft-ms 2000 --save measurements.json
    """
    from qwenhost.cli import probe_sweep
    from qwenhost.cli.probe_config import config_of
    from qwenhost.cli.probe_view import print_summary
    from qwenhost.measurements import measurements_to_json

    take_goodput(options)
    require_folders({"--save": save, "--html": html, "--csv": csv_file})
    _require_one_source(options)
    if wants_sweep(options):
        files = probe_sweep.Files(save=save, html=html, csv=csv_file)
        return probe_sweep.run(config_of(ctx, options), options, files, as_json=as_json)
    measured, records = _recorded(options) if options["from_records"] else _measured(ctx, options)
    _write(measured, records, save=save, html=html, csv_file=csv_file)
    if as_json:
        write_json(measurements_to_json(measured))
    else:
        print_summary(measured)
    return _exit_code(measured, slo_named=slo_given(options))


def _write(
    measured: Measurements,
    records: Sequence[RequestRecord],
    *,
    save: Path | None,
    html: Path | None,
    csv_file: Path | None,
) -> None:
    from qwenhost.files import write_atomically
    from qwenhost.measurements import measurements_to_json

    if save is not None:
        write_atomically(save, measurements_to_json(measured))
    if html is not None:
        from qwenhost.report.probe_page import run_html

        write_atomically(html, run_html(measured, records).encode())
    if csv_file is not None:
        from qwenhost.report.probe_csv import requests_csv

        slo = None if measured.goodput is None else measured.goodput.slo
        write_atomically(csv_file, requests_csv(records, slo).encode())


def _require_one_source(options: dict[str, Any]) -> None:
    from qwenhost.errors import BadInputError

    given = [name for name in ("urls", "from_records", "resume") if options[name]]
    if not given and options["target"] is None:
        raise BadInputError("give the server's URL or --from-records FILE", remedy="qwenhost probe --help")
    if "from_records" in given and (len(given) > 1 or options["target"]):
        raise BadInputError(
            "--from-records measures nothing", remedy="Leave the URL, --resume and --target out."
        )
    if options["resume"] and options["records"]:
        raise BadInputError("--resume appends to the file that it names", remedy="Leave --records out.")


def _measured(ctx: click.Context, options: dict[str, Any]) -> tuple[Measurements, Sequence[RequestRecord]]:
    from qwenhost.cli.probe_config import config_of, resumed_config
    from qwenhost.cli.probe_view import live_progress, say_cost
    from qwenhost.probe import run_probe
    from qwenhost.probe.resume import read_resumption

    resumption = None if options["resume"] is None else read_resumption(options["resume"])
    config = config_of(ctx, options) if resumption is None else resumed_config(ctx, options, resumption.head)
    with live_progress() as on_progress:
        ran = run_probe(config, on_progress=on_progress, on_prepared=say_cost, resumption=resumption)
        return ran.measurements, ran.records


def _recorded(options: dict[str, Any]) -> tuple[Measurements, Sequence[RequestRecord]]:
    """The recorded run's figures, judged by its own SLO where none is given."""
    from qwenhost.facts import Slo
    from qwenhost.probe.records import measurements_from, read_recording

    limits = {name: options[f"slo_{name}"] for name in ("ttft_ms", "tpot_ms", "e2e_ms")}
    given = Slo(**limits)
    measured = measurements_from(options["from_records"], None if given == Slo() else given)
    return measured, read_recording(options["from_records"]).store.records


def _exit_code(measured: Measurements, *, slo_named: bool) -> int:
    from qwenhost.cli.output import say

    if measured.interrupted:
        return 130
    if measured.void:
        return 5
    goodput = measured.goodput
    if slo_named and goodput is not None and goodput.fraction < goodput.slo.percentile / 100:
        say(f"SLO missed: {goodput.fraction:.1%} of requests kept it, {goodput.slo.percentile:g} % must.")
        return 5
    return 0

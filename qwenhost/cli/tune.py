"""``qwenhost tune``: measure the few candidates that the plan cannot tell apart, keep the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.options import (
    json_option,
    load_options,
    node_options,
    objective_option,
    pin_options,
    price_options,
    workload_options,
)
from qwenhost.cli.output import console, say, write_json
from qwenhost.cli.ranges import FloatRange

if TYPE_CHECKING:
    from qwenhost.tuning import Trial, TuneState


@click.command("tune")
@node_options
@workload_options
@load_options
@objective_option()
@click.option(
    "--candidates", type=click.IntRange(2, 12), default=4, show_default=True, help="Trials at most."
)
@click.option(
    "--any-checkpoint", is_flag=True, help="Also other weights than the choice's, which may answer worse."
)
@click.option(
    "--duration",
    "duration_s",
    type=FloatRange(1, 86400),
    help="Seconds of load of each trial.  [default: four requests' length, 30 at least]",
)
@click.option(
    "--ready-timeout", type=FloatRange(1), default=3600.0, show_default=True,
    help="Seconds until a trial's engine must be ready.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice(["vllm", "simulated"]), default="vllm", show_default=True,
    help="simulated: a try-out of the command that measures nothing.",
)  # fmt: skip
@click.option(
    "--target", type=click.Choice(["gpu", "cpu"]), default="gpu", show_default=True,
    help="cpu: vLLM's CPU build with a small checkpoint, for trials of the command.",
)  # fmt: skip
@click.option("--model", metavar="DIR", help="Local checkpoint instead of the plan's.")
@click.option("--load-format", help="vLLM's, e.g. dummy for random weights (--target cpu).")
@click.option("--vllm-bin", envvar="QWENHOST_VLLM_BIN", help="vLLM's program. Also QWENHOST_VLLM_BIN.")
@click.option(
    "--stop-service", "stop_services", multiple=True, metavar="NAME",
    help="Service that holds the GPUs: stopped now, started again at the end, however it ends; repeatable.",
)  # fmt: skip
@click.option(
    "--output-dir", type=click.Path(path_type=Path, file_okay=False), default=Path("tune-out"),
    show_default=True, help="Folder for state, measurements, logs and the winning plan.",
)  # fmt: skip
@click.option(
    "--calibrate/--no-calibrate", default=True, show_default=True,
    help="Keep what the trials teach the speed model, as qwenhost calibrate does.",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Forget an earlier run in that folder.")
@pin_options
@price_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, output_dir: Path, as_json: bool, **options: Any) -> int:
    r"""Run the candidates that the plan's bands cannot tell apart, one after another, and keep the best.

    Each is served and loaded with the workload for a bounded time. A run that was cut off goes on where it
    was when it is called again with the same options. A running service is only touched where --stop-service
    names it. Exit codes: 0 a winner was found, 1 every trial failed or was void, 3 nothing fits.

    \b
    qwenhost tune --workload chat
    qwenhost tune --workload coding_agent --concurrency 32 --duration 120 --stop-service prod
    qwenhost tune --gpus 2xH200 --engine simulated --duration 5
    qwenhost tune --target cpu --model ./tiny --load-format dummy --input-tokens 64 --output-tokens 32
    """
    from qwenhost.cli.tuning_setup import tuned

    state = tuned(ctx, output_dir, options)
    if as_json:
        write_json(state)
    else:
        _show(state, output_dir)
    return 0 if state.winner else 1


def _show(state: TuneState, folder: Path) -> None:
    from rich.table import Table

    table = Table("", "trial", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("predicted", "measured", "in SLO", "first token", "per token"):
        table.add_column(title, justify="right")
    for trial in state.trials:
        table.add_row("*" if trial.id == state.winner else "", *_cells(trial))
    console().print(table, markup=False)
    for trial in state.trials:
        if trial.error:
            say(f"{trial.label}: {trial.status}, {trial.error}")
    if state.simulated:
        click.echo("SIMULATED: no hardware was measured, and nothing is to be learned from it.")
    best = next((trial for trial in state.trials if trial.id == state.winner), None)
    if best is None:
        click.echo(f"No trial was measured; see the logs in {folder / 'services'}.")
        return
    plan = folder / "plan.json"
    click.echo(f"Best: {best.label}. Output tokens/s; everything is in {folder}.")
    if plan.exists():
        click.echo(f"Serve it: qwenhost serve {plan}")


def _cells(trial: Trial) -> tuple[str, ...]:
    predicted = trial.predicted_output_tokens_per_s
    band = (
        "" if predicted is None else f"{predicted.value:,.0f} ({predicted.low:,.0f} to {predicted.high:,.0f})"
    )
    figures = (trial.output_tokens_per_s, trial.goodput_tokens_per_s)
    rates = tuple("" if rate is None else f"{rate:,.1f}" for rate in figures)
    times = tuple("" if ms is None else f"{ms:,.1f} ms" for ms in (trial.ttft_ms, trial.tpot_ms))
    return (trial.label, band, *rates, *times)

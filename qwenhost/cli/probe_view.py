"""How a probe run is shown: one live line on a terminal while it runs, tables at the end."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from qwenhost.cli.output import console, say
from qwenhost.cli.probe_view_extra import extra_lines
from qwenhost.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.measurements import Measurements, Percentiles
    from qwenhost.probe import Progress
    from qwenhost.probe.prepare import Prepared

_PLAIN_EVERY_S: Final = 30.0


@contextmanager
def live_progress() -> Iterator[Callable[[Progress], None] | None]:
    """A line on stderr that changes in place; a plain one each half minute where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield _plainly()
        return
    from rich.live import Live
    from rich.text import Text

    # The run calls about four times a second; rich gets no thread of its own to compete with it.
    with Live(console=console(stderr=True), auto_refresh=False, transient=True) as live:
        yield lambda progress: live.update(Text(progress_line(progress)), refresh=True)


def _plainly() -> Callable[[Progress], None]:
    """For logs: short runs stay quiet."""
    told = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal told
        if time.monotonic() - told >= _PLAIN_EVERY_S:
            told = time.monotonic()
            sys.stderr.write(progress_line(progress) + "\n")
            sys.stderr.flush()

    return tell


def progress_line(progress: Progress) -> str:
    """E.g. ``load  12.3 s   140 of 640 done, 64 in flight, 1,890 tok/s, TTFT p50 210 p99 480 ms``."""
    of = "" if progress.total_requests is None else f" of {progress.total_requests:,}"
    ended = progress.completed + progress.failed
    parts = [f"{ended:,}{of} done", f"{progress.in_flight:,} in flight"]
    if progress.elapsed_s > 0 and progress.output_tokens:
        parts.append(f"{progress.output_tokens / progress.elapsed_s:,.0f} tok/s")
    ttft = progress.ttft_ms
    if ttft is not None and ttft.p50 is not None:
        parts.append(f"TTFT p50 {_ms(ttft.p50)} p99 {_ms(ttft.p99)} ms")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    left = _time_left(progress, ended)
    if left is not None:
        parts.append(f"{format_seconds(left)} left")
    return f"{progress.phase:<8} {format_seconds(progress.elapsed_s):>9}   {', '.join(parts)}"


def _time_left(progress: Progress, ended: int) -> float | None:
    if progress.phase != "load":
        return None
    if progress.duration_s is not None:
        return max(0.0, progress.duration_s - progress.elapsed_s)
    if progress.total_requests and ended:
        return progress.elapsed_s / ended * max(0, progress.total_requests - ended)
    return None


def say_cost(prepared: Prepared) -> None:
    """What a run against a paid API may cost, before its first request."""
    cost = prepared.cost
    if cost is not None:
        say(
            f"Expected cost: {cost.expected_usd:.4g} USD for {cost.requests:,} requests, "
            f"{cost.worst_usd:.4g} USD at worst (modelled from the sizes asked for)."
        )


def print_summary(measured: Measurements) -> None:
    """The figures of a run for people, on stdout."""
    from rich.table import Table

    out = console()
    out.print(_headline(measured))
    out.print(_requests_line(measured))
    out.print(
        f"Throughput: {measured.output_tokens_per_s:,.1f} output tok/s, "
        f"{measured.input_tokens_per_s:,.1f} input tok/s, {measured.request_per_s:,.3g} requests/s "
        f"({_window(measured)})"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("ms", "mean", "p50", "p90", "p95", "p99"):
        table.add_column(name, justify="left" if name == "ms" else "right")
    for name, row in _latency_rows(measured):
        table.add_row(name, *(_ms(value) for value in (row.mean, row.p50, row.p90, row.p95, row.p99)))
    out.print(table)
    for line in extra_lines(measured):
        out.print(line)
    if measured.goodput is not None:
        out.print(_goodput_line(measured))
    if measured.confidence:
        out.print(_confidence_line(measured))
    out.print(_client_line(measured))
    for warning in measured.warnings:
        out.print(f"[yellow]Note:[/yellow] {warning}")
    if measured.void:
        out.print(f"[red bold]VOID:[/red bold] {measured.void_reason}. Do not use these figures.")


def _headline(measured: Measurements) -> str:
    server, load, workload = measured.server, measured.load, measured.workload
    offered = (
        f"{load.concurrency} in flight"
        if load.kind == "closed"
        else f"{'' if load.rate is None else f'{load.rate:g} requests/s '}{load.arrivals}"
    )
    label = "[magenta]A simulated engine: these are not measurements of hardware.[/magenta]\n"
    return (
        f"[bold]{server.model}[/bold] at {server.url}, {server.name} {server.version or ''}\n"
        f"{label if server.simulated else ''}"
        f"Load: {offered}, {workload.mean_input_tokens:,.0f} tokens in, "
        f"{workload.mean_output_tokens:,.0f} out, /{workload.endpoint}"
    )


def _requests_line(measured: Measurements) -> str:
    counts = measured.requests
    failed = ", ".join(f"{kind} {count}" for kind, count in counts.by_error.items())
    return (
        f"Requests: {counts.completed:,} of {counts.sent:,} completed in "
        f"{format_seconds(measured.load.duration_s)}" + (f"; failed: {failed}" if failed else "")
    )


def _window(measured: Measurements) -> str:
    window = measured.load.rate_window_s
    if window is None or measured.load.rate_window == "whole":
        return "over the whole run"
    return f"steady part, {window[0]:.1f} to {window[1]:.1f} s"


def _latency_rows(measured: Measurements) -> list[tuple[str, Percentiles]]:
    rows = [("Time to first token", measured.ttft_ms)]
    visible = measured.first_visible_ms
    if visible is not None and visible.p50 != measured.ttft_ms.p50:
        rows.append(("Time to first visible token", visible))
    chunks = measured.tokens_per_chunk or 1.0
    gap = "Between chunks" if chunks > 1.02 else "Between tokens"
    rows += [
        ("Time per output token", measured.tpot_ms),
        (gap if chunks <= 1.02 else f"{gap} of {chunks:.1f} tokens", measured.itl_ms),
        ("End to end", measured.e2e_ms),
    ]
    return rows


def _goodput_line(measured: Measurements) -> str:
    goodput = measured.goodput
    assert goodput is not None  # noqa: S101 - asked for only where there is one
    limits = [
        f"{name} {limit:g} ms"
        for name, limit in (
            ("TTFT", goodput.slo.ttft_ms),
            ("TPOT", goodput.slo.tpot_ms),
            ("end to end", goodput.slo.e2e_ms),
        )
        if limit is not None
    ]
    if not limits:
        return "Goodput: no limit given"
    return (
        f"Goodput within {', '.join(limits)}: {goodput.fraction:.1%} of requests, "
        f"{goodput.output_tokens_per_s:,.1f} output tok/s"
    )


def _confidence_line(measured: Measurements) -> str:
    """Of the figures that decide, where the run was long enough to tell."""
    told = measured.confidence
    parts = [
        f"{label} {_ms(told[name][0])} to {_ms(told[name][1])} ms"
        for name, label in (("ttft_ms_p50", "TTFT p50"), ("ttft_ms_p99", "p99"), ("tpot_ms_p50", "TPOT p50"))
        if name in told
    ]
    if "goodput_fraction" in told:
        low, high = told["goodput_fraction"]
        parts.append(f"goodput {low:.1%} to {high:.1%}")
    return f"95 % sure: {', '.join(parts)}"


def _client_line(measured: Measurements) -> str:
    lag, client = measured.send_lag_ms, measured.client
    return (
        f"Client: send lag p99 {lag.p99:.2f} ms, loop lag p99 {client.get('loop_lag_p99_ms', 0):.2f} ms, "
        f"busy {client.get('loop_busy_share', 0):.0%}"
    )


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"

"""A fleet's run, its search and a replica's highest rate, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from qwenhost.cli.output import console
from qwenhost.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.facts import Slo
    from qwenhost.simulate.fleet_rate import RateSearch
    from qwenhost.simulate.fleet_result import FleetRun, Window
    from qwenhost.simulate.fleet_search import FleetSearch

SHOWN_WINDOWS = 12
NARROW = 78
RATE_NARROW = 100


def show_run(run: FleetRun) -> None:
    """What it did, what it cost, how it went over time."""
    out = console()
    days = run.duration_s / 86_400
    out.print(
        f"[bold]SIMULATED[/bold] {escape(run.workload)} for {format_seconds(run.duration_s)}: "
        f"{run.requests.sent:,} requests, {run.request_per_s:,.3g}/s, {run.routing}"
    )
    narrow = out.width < NARROW
    out.print(_pools(run, narrow=narrow))
    out.print(_latency(run))
    errors = ", ".join(f"{count:,} {kind}" for kind, count in run.requests.by_error.items())
    out.print(
        f"{run.requests.completed:,} answered" + (f", {errors}" if errors else "")
        + (f"; {run.resent:,} sent again" if run.resent else "")
        + f"; {run.preemptions:,} preemptions; {run.prefix_cache_hit:.0%} of prompt tokens cached"
    )  # fmt: skip
    if run.failures or run.interruptions:
        out.print(f"{run.failures} failures, {run.interruptions} spot interruptions")
    if run.slo is not None:
        verdict = "[green]keeps[/green]" if run.meets_slo else "[red]misses[/red]"
        out.print(f"{verdict} the SLO ({_slo(run.slo)}): {run.kept_slo:.2%} of requests kept it")
    if run.worst_window is not None and (run.worst_window.kept_slo or 0.0) < 1:
        worst = run.worst_window
        stretch = format_seconds(run.window_s)
        out.print(f"worst stretch of {stretch}: {worst.kept_slo or 0:.1%}, at {_clock(worst.start_s)}")
    if run.usd is not None:
        out.print(
            f"[bold]{run.usd_per_day:,.0f} USD a day[/bold] ({run.usd:,.2f} in {days:.3g} days, "
            f"{run.gpu_hours:,.0f} GPU hours): {run.usd_per_request:.6f} a request, "
            f"{run.usd_per_mtok_output or 0:.3f} per Mtok out"
        )
    for bill in [*run.api[:1], *sorted(run.api[1:], key=lambda b: b.usd)[:1]]:
        times = f", {bill.usd / run.usd:.1f} times the fleet" if run.usd else ""
        out.print(f"{escape(bill.name)}: {bill.usd_per_day:,.0f} USD a day for the same requests{times}")
    out.print(_over_time(run, narrow=narrow))
    for assumption in run.assumptions:
        out.print(f"[dim]assumed: {escape(assumption)}[/dim]")


def show_search(search: FleetSearch) -> None:
    """All that was tried, cheapest first, and why."""
    out = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("fleet", overflow="fold")
    for name in ("USD/day", "SLO kept", ""):
        table.add_column(name, justify="right")
    for row in sorted(search.tried, key=lambda t: (t.usd_per_day is None, t.usd_per_day or 0.0)):
        mark = "[bold]" if row.verdict == "cheapest" else ""
        table.add_row(
            mark + escape(row.label),
            "-" if row.usd_per_day is None else f"{row.usd_per_day:,.0f}",
            "-" if row.kept_slo is None else f"{row.kept_slo:.1%}",
            row.verdict,
        )
    out.print(table)
    for line in search.why:
        out.print(escape(line))


def show_rate(found: RateSearch, head: Mapping[str, object]) -> None:
    """The rate found, and the curve."""
    out = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = ("requests/s", "output tok/s", "TTFT p50", "p90 ms", "TPOT p50", "p90 ms", "in engine", "KV",
             "SLO kept")  # fmt: skip
    shown = (0, 3, 5, 8) if out.width < RATE_NARROW else range(len(names))
    titles = {3: "TTFT p90 ms", 5: "TPOT p90 ms"} if out.width < RATE_NARROW else {}
    for i in shown:
        table.add_column(titles.get(i, names[i]), justify="right")
    for point in found.points:
        latency = (point.ttft_ms.p50, point.ttft_ms.p90, point.tpot_ms.p50, point.tpot_ms.p90)
        kept = f"{point.kept_slo:.1%}" if point.meets else f"[red]{point.kept_slo:.1%}[/red]"
        cells = (
            f"{point.rate:.4g}", f"{point.output_tokens_per_s:,.0f}",
            *("-" if value is None else f"{value:,.1f}" for value in latency),
            f"{point.running_mean:,.1f}", f"{point.kv_cache_usage:.0%}", kept,
        )  # fmt: skip
        table.add_row(*(cells[i] for i in shown))
    out.print(f"[bold]SIMULATED[/bold] {head['engine']} on {head['gpus']}, {head['workload']}")
    out.print(table)
    if found.found_rate is None:
        out.print(f"[bold]no rate tried keeps the SLO[/bold] ({_slo(found.slo)})")
        return
    missed = "" if found.missed_rate is None else f", {found.missed_rate:.4g} does not"
    out.print(f"[bold]{found.found_rate:.4g} requests/s[/bold] keep the SLO ({_slo(found.slo)}){missed}")


def _pools(run: FleetRun, *, narrow: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("pool", overflow="fold")
    table.add_column("engine", overflow="fold")
    columns = ("replicas", "GPU h", "USD", "mean", "started", "USD/h each")[: 3 if narrow else 6]
    for name in columns:
        table.add_column(name, justify="right")
    for pool in run.pools:
        low, high = pool.replicas_min, pool.replicas_max
        usd, each = (
            "-" if value is None else f"{value:,.2f}" for value in (pool.usd, pool.usd_per_replica_hour)
        )
        cells = (
            f"{low}" if low == high else f"{low}..{high}", f"{pool.gpu_hours:,.1f}", usd,
            f"{pool.replicas_mean:.2f}", str(pool.started), each,
        )  # fmt: skip
        table.add_row(escape(pool.name), escape(pool.engine), *cells[: len(columns)])
    return table


def _latency(run: FleetRun) -> Table:
    table = Table("ms", "mean", "p50", "p90", "p99", box=None)
    for name in ("ttft", "tpot", "e2e", "queue"):
        row = getattr(run, f"{name}_ms")
        values = (row.mean, row.p50, row.p90, row.p99)
        label = name.upper() if name != "queue" else "queueing"
        table.add_row(label, *("-" if value is None else f"{value:,.1f}" for value in values))
    return table


def _over_time(run: FleetRun, *, narrow: bool) -> Table:
    """A dozen stretches; --json and --html have all."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ("time", "requests/s", "ready", "TTFT p90 ms", "SLO kept", "replicas", "USD")[
        : 5 if narrow else 7
    ]
    for name in columns:
        table.add_column(name, justify="right")
    step = max(1, -(-len(run.windows) // SHOWN_WINDOWS))
    for window in run.windows[::step]:
        table.add_row(*_window(window)[: len(columns)])
    return table


def _window(window: Window) -> tuple[str, ...]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        _clock(window.start_s), f"{window.request_per_s:.3g}", f"{sum(window.ready.values()):.3g}",
        shown(window.ttft_ms_p90, ",.0f"), shown(window.kept_slo, ".1%"),
        f"{sum(window.replicas.values()):.3g}", shown(window.usd, ",.2f"),
    )  # fmt: skip


def _slo(slo: Slo) -> str:
    limits = (("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms), ("E2E", slo.e2e_ms))
    said = ", ".join(f"{name} {limit:g} ms" for name, limit in limits if limit is not None)
    return f"{said or 'no limits'} for {slo.percentile:g} %"


def _clock(at_s: float) -> str:
    day, second = divmod(at_s, 86_400)
    minutes = int(second // 60)
    return f"day {int(day) + 1} {minutes // 60:02d}:{minutes % 60:02d}"

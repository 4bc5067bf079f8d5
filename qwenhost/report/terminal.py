"""A comparison for the terminal, from the same values as the HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qwenhost.report import words
from qwenhost.report.plots import brief_name, moving_rows, short_name, without_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from qwenhost.cost import ApiLine, Comparison, Quote
    from qwenhost.cost.figures import Figure
    from qwenhost.cost.quality import QualityRow

SHOWN_LEVERS = 6
SHOWN_HOSTS = 3
SHOWN_SCORES = 4
NARROW = 90


def terminal(comparison: Comparison, *, width: int = 100) -> list[RenderableType]:
    """What to print, top to bottom: verdict, both bills, what it rests on; fewer columns when narrow."""
    bills = _bills(comparison, narrow=width < NARROW)
    parts: list[RenderableType] = [_verdict(comparison), bills, _self_host(comparison)]
    if moving_rows(comparison):
        parts.append(_levers(comparison, narrow=width < NARROW))
    if any(_scored(row) for row in comparison.quality):
        parts.append(_solved(comparison, narrow=width < NARROW))
    parts.append(_assumptions(comparison))
    return parts


def side_by_side(comparisons: Mapping[str, Comparison]) -> Table:
    """One column for each saved comparison."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in comparisons:
        table.add_column(escape(name), justify="right", overflow="fold")
    rows = [(_row_values(comparison)) for comparison in comparisons.values()]
    for label in rows[0]:
        table.add_row(label, *(escape(values[label]) for values in rows))
    return table


def quote_table(quote: Quote, *, width: int = 100) -> Table:
    """API bills of a workload or a usage file; the parts of each bill where there is room."""
    title = f"{quote.subject}, requests: {quote.requests:,}, prices of {quote.as_of}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=escape(title), title_justify="left")
    for name in ("API", "cache"):
        table.add_column(name, overflow="fold")
    columns = ("input", "write", "read", "output", "fees", "USD/request", "total")
    shown = slice(-2 if width < NARROW else 0, None)
    for name in columns[shown]:
        table.add_column(name, justify="right", no_wrap=True)
    for line in quote.api:
        bill = line.breakdown
        parts = (bill.uncached_input, bill.cache_write, bill.cache_read, bill.output, bill.fees)
        cells = [words.usd(value) for value in (*parts, line.usd_per_request, line.usd_total)]
        table.add_row(escape(without_model(line.name)), line.cache_policy, *cells[shown])
    return table


def figure_words(figure: Figure, unit: str = "") -> str:
    """``28.2 requests/s (21.2 to 38.1, modelled)``."""
    value = words.quantity(figure.value, unit)
    if figure.low == figure.high:
        return f"{value} ({figure.basis})"
    return f"{value} ({words.span(figure.low, figure.high, unit)}, {figure.basis})"


def _verdict(comparison: Comparison) -> Panel:
    verdict = comparison.verdict
    body = Text()
    body.append(verdict.headline + "\n\n", style="bold")
    if comparison.simulated:
        body.append("SIMULATED: no hardware was measured.\n\n", style="bold yellow")
    elif comparison.predicted:
        body.append("PREDICTED: no hardware was measured.\n\n", style="bold yellow")
    body.append(verdict.sentence + "\n")
    body.append(f"\nConfidence: {verdict.confidence} ({verdict.confidence_reason}).\n", style="dim")
    for caution in verdict.cautions:
        body.append(f"\n! {caution}")
    style = "green" if verdict.choice == "self_host" else "blue"
    return Panel(body, border_style=style)


def _bills(comparison: Comparison, *, narrow: bool) -> Table:
    volume = f"{words.count(comparison.requests_per_day)} requests a day of {comparison.workload.id}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=escape(volume), title_justify="left")
    table.add_column("offer", overflow="fold")
    columns = ["USD/month", "USD/request", "USD/Mtok in", "USD/Mtok out", "self-host pays from"]
    shown = [0, 1, 4] if narrow else [0, 1, 2, 3, 4]
    for i in shown:
        table.add_column(columns[i], justify="right")
    side = comparison.self_host
    own = (side.usd_per_month, side.usd_per_request, side.usd_per_mtok_input, side.usd_per_mtok_output)
    cells = [*(f"[bold]{words.usd(value)}[/]" for value in own), ""]
    name = "Self-hosted" if narrow else escape(side.name)
    table.add_row(f"[bold]{name}[/]", *(cells[i] for i in shown))
    hosted = [line for line in comparison.api if line.kind == "hosted_qwen" and not line.is_baseline]
    for line in comparison.api:
        if line not in hosted[SHOWN_HOSTS:]:
            cells = _api_cells(line)
            table.add_row(_api_name(line), *(cells[i] for i in shown))
    if len(hosted) > SHOWN_HOSTS:
        table.caption = f"{len(hosted) - SHOWN_HOSTS} more hosts in --json and --html"
        table.caption_justify = "left"
    return table


def _api_name(line: ApiLine) -> str:
    cached = "" if line.cache_policy == "none" else f", {line.cache_policy} cache"
    return escape(brief_name(line) + cached)


def _api_cells(line: ApiLine) -> list[str]:
    pays_from = line.break_even_requests_per_day
    figures = (line.usd_per_month, line.usd_per_request, line.usd_per_mtok_input, line.usd_per_mtok_output)
    return [*map(words.usd, figures), "never" if pays_from is None else f"{words.count(pays_from)}/day"]


def _self_host(comparison: Comparison) -> Table:
    side, plan = comparison.self_host, comparison.plan
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    rows = (
        ("self-hosted", f"{plan.label} on {plan.gpus}"),
        ("nodes", f"{side.nodes} ({side.serving_nodes} serving, {side.spare_nodes} spare)"),
        ("GPU hour", figure_words(side.usd_per_gpu_hour, "USD")),
        ("node carries", figure_words(side.requests_per_s_per_node, "requests/s")),
        ("service level", side.slo + (" (missed)" if side.meets_slo is False else "")),
        (
            "month",
            (
                f"nodes {words.usd(side.monthly.nodes)}, storage {words.usd(side.monthly.storage)}, "
                f"staff {words.usd(side.monthly.staff)}, start-ups {words.usd(side.monthly.start_ups)}"
                + (f", egress {words.usd(side.monthly.egress)}" if side.monthly.egress else "")
            ),
        ),
    )
    for label, value in rows:
        table.add_row(label, escape(value))
    return table


def _levers(comparison: Comparison, *, narrow: bool) -> Table:
    """Break-even at both ends of each input, or the saving where there is no break-even."""
    by_volume = comparison.break_even.requests_per_day is not None
    what = "break-even" if by_volume else "saving a month"
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title=f"What moves the {what} most", title_justify="left"
    )
    table.add_column("input", overflow="fold")
    for name in ("range", f"{what} at low", "at high", "basis")[: 3 if narrow else 4]:
        table.add_column(name, justify="right", overflow="fold")
    for row in moving_rows(comparison)[:SHOWN_LEVERS]:
        ends = (
            "none" if end is None else words.count(end)
            for end in (row.break_even_at_low, row.break_even_at_high)
        )
        saved = (words.usd(row.saving_at_low), words.usd(row.saving_at_high))
        shown = tuple(ends) if by_volume else saved
        basis = () if narrow else (row.basis,)
        table.add_row(row.name, words.span(row.low, row.high, row.unit), *shown, *basis)
    return table


def _scored(row: QualityRow) -> bool:
    return row.unit == "%" and row.qwen is not None and row.baseline is not None


def _solved(comparison: Comparison, *, narrow: bool) -> Table:
    """The user's own rates where given, else the published pairs."""
    attempt = "session" if comparison.workload.requests_per_session > 1 else "request"
    title = f"What a solved task costs, an attempt being one {attempt}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("score", overflow="fold")
    theirs = escape(short_name(comparison.baseline))
    rates = () if narrow else ("Qwen3.5", theirs)
    for name in (*rates, "USD/solved, self-hosted", theirs):
        table.add_column(name, justify="right")
    shown = [row for row in comparison.quality if _scored(row)][:SHOWN_SCORES]
    for row in shown:
        unlike = "" if row.like_for_like else " *"
        table.add_row(
            escape(row.benchmark + unlike),
            *(() if narrow else (f"{row.qwen:g}%", f"{row.baseline:g}%")),
            words.solved(row.qwen_usd_per_solved, row.qwen_solved),
            words.solved(row.baseline_usd_per_solved, row.baseline_solved),
        )
    if not all(row.like_for_like for row in shown):
        table.caption = "* not like for like"
        table.caption_justify = "left"
    return table


def _assumptions(comparison: Comparison) -> Text:
    rests = len(comparison.assumptions)
    text = Text(f"Rests on {rests} assumptions; each with source and date in --json and --html.", style="dim")
    text.append(f"\nPrices of {comparison.as_of}, catalog {comparison.catalog_digest[:12]}.")
    return text


def _row_values(comparison: Comparison) -> dict[str, str]:
    side, baseline, crossing = comparison.self_host, comparison.baseline, comparison.break_even
    pays_from = crossing.requests_per_day
    speed = "simulated" if comparison.simulated else "predicted" if comparison.predicted else "measured"
    return {
        "hardware": side.hardware,
        "plan": comparison.plan.label,
        "workload": comparison.workload.id,
        "requests a day": words.count(comparison.requests_per_day),
        "nodes": f"{side.nodes}",
        "node carries": f"{words.count(side.requests_per_s_per_node.value)} requests/s ({speed})",
        "self-host, month": words.usd(side.usd_per_month),
        "self-host, request": words.usd(side.usd_per_request),
        "baseline": baseline.name,
        "baseline, month": words.usd(baseline.usd_per_month),
        "break-even": "none" if pays_from is None else f"{words.count(pays_from)} requests/day",
        "90 % band": words.band(crossing.low, crossing.high) if pays_from else "none",
        "cheaper": "self-host" if comparison.verdict.choice == "self_host" else baseline.name,
        "confidence": comparison.verdict.confidence,
    }

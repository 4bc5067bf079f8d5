"""The tables of the page as plain cells: what a plot shows, again in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.report import plots, words
from qwenhost.report import tables_facts as facts
from qwenhost.report import tables_node as node
from qwenhost.report.cells import Cell, TableView

if TYPE_CHECKING:
    from qwenhost.cost import Comparison
    from qwenhost.report.sources import Sources

CURVE_ROWS = 12


def all_tables(comparison: Comparison, sources: Sources) -> dict[str, TableView]:
    """Every table of the page, by name."""
    return {
        "offers": _offers(comparison, sources),
        "curve": _curve(comparison),
        "bars": _bars(comparison),
        "node": node.node_table(comparison, sources),
        "memory": node.memory_table(comparison),
        "latency": node.latency_table(comparison),
        "hardware": node.hardware_table(comparison, sources),
        "tornado": _tornado(comparison, sources),
        "scores": facts.scores_table(comparison, sources),
        "tasks": facts.tasks_table(comparison, sources),
        "thinking": facts.thinking_table(comparison, sources),
        "timeline": facts.timeline_table(comparison, sources),
        "load": facts.load_table(comparison),
        "checks": facts.checks_table(comparison),
        "assumptions": facts.assumptions_table(comparison, sources),
    }


def _offers(comparison: Comparison, sources: Sources) -> TableView:
    side = comparison.self_host
    speed = side.requests_per_s_per_node
    own_tag = "simulated" if speed.basis == "simulated" else "modelled"
    rows = [
        [
            Cell(side.name, css="self"),
            Cell(words.usd(side.usd_per_month), own_tag, sources.ref(speed.source, speed.as_of)),
            Cell(words.usd(side.usd_per_request)),
            Cell(words.usd(side.usd_per_mtok_input)),
            Cell(words.usd(side.usd_per_mtok_output)),
            Cell(words.DASH),
        ]
    ]
    for line in comparison.api:
        cached = "" if line.cache_policy == "none" else f", {line.cache_policy} cache"
        pays_from = line.break_even_requests_per_day
        rows.append(
            [
                Cell(plots.without_model(line.name) + cached, css=plots.css_of(line)),
                Cell(words.usd(line.usd_per_month), "published", sources.ref(line.source, line.as_of)),
                Cell(words.usd(line.usd_per_request)),
                Cell(words.usd(line.usd_per_mtok_input)),
                Cell(words.usd(line.usd_per_mtok_output)),
                Cell("never" if pays_from is None else words.count(pays_from)),
            ]
        )
    return TableView(
        f"At {words.count(comparison.requests_per_day)} requests a day",
        (
            "Offer",
            "USD a month",
            "a request",
            "a Mtok in",
            "a Mtok out",
            "Self-hosting pays from, requests a day",
        ),
        rows,
    )


def _curve(comparison: Comparison) -> TableView:
    lines = plots.curve_lines(comparison)
    every = max(1, len(comparison.curve) // CURVE_ROWS)
    rows = [
        [
            Cell(words.count(point.requests_per_day)),
            Cell(words.usd(point.self_host)),
            Cell(f"{words.usd(point.self_host_low)} to {words.usd(point.self_host_high)}"),
            *(Cell(words.usd(point.api[line.id])) for line in lines),
        ]
        for point in comparison.curve[::every]
    ]
    head = ("Requests a day", "Self-hosted", "its band", *(line.name for line in lines))
    return TableView("USD a month against volume", head, rows)


def _bars(comparison: Comparison) -> TableView:
    rows = [
        [Cell(name, css=css), Cell(label), Cell(words.usd(value))]
        for name, css, parts in plots.bar_rows(comparison)
        for label, value, _ in parts
        if value > 0
    ]
    return TableView("USD a request by what it pays for", ("Offer", "Part", "USD a request"), rows, (1,))


def _tornado(comparison: Comparison, sources: Sources) -> TableView:
    rows = [
        [
            Cell(row.name, row.basis, sources.ref(row.source)),
            Cell(words.quantity(row.low, row.unit)),
            Cell(words.quantity(row.value, row.unit)),
            Cell(words.quantity(row.high, row.unit)),
            Cell("none" if row.break_even_at_low is None else words.count(row.break_even_at_low)),
            Cell("none" if row.break_even_at_high is None else words.count(row.break_even_at_high)),
        ]
        for row in comparison.sensitivity
    ]
    head = ("Input", "Low", "Used", "High", "Break-even at low", "at high")
    return TableView("Each input alone at the ends of its range", head, rows)

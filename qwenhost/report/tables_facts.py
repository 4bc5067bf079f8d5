"""Tables of what the verdict rests on: scores, prices over time, runs, checks, assumptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.report import plots, words
from qwenhost.report.cells import Cell, TableView

if TYPE_CHECKING:
    from qwenhost.cost import Comparison
    from qwenhost.report.sources import Sources


def scores_table(comparison: Comparison, sources: Sources) -> TableView:
    """Published scores, and what a success costs."""
    rows = []
    for row in comparison.quality:
        shown = "" if row.unit == "%" else f" {row.unit}"
        rows.append(
            [
                Cell(row.benchmark, ref=sources.ref(row.source, row.as_of)),
                Cell(words.DASH if row.qwen is None else f"{row.qwen:g}{shown or '%'}"),
                Cell(words.DASH if row.baseline is None else f"{row.baseline:g}{shown or '%'}"),
                Cell(words.solved(row.qwen_usd_per_solved, row.qwen_solved)),
                Cell(words.solved(row.baseline_usd_per_solved, row.baseline_solved)),
                Cell(("" if row.like_for_like else "Not like for like. ") + row.remark),
            ]
        )
    name = comparison.baseline.name
    head = (
        "Benchmark",
        "Qwen3.5-122B",
        name,
        "USD per success, self-hosted",
        f"USD per success, {name}",
        "Remark",
    )
    return TableView("Published scores, and what a success costs at this workload's size", head, rows, (5,))


def tasks_table(comparison: Comparison, sources: Sources) -> TableView:
    """Published costs of a task."""
    rows = [
        [
            Cell(row.model, "published", sources.ref(row.source, row.as_of)),
            Cell(row.benchmark),
            Cell(f"{row.score:g}"),
            Cell(words.usd(row.usd_per_task)),
            Cell(words.usd(row.usd_per_point)),
            Cell(row.remark),
        ]
        for row in comparison.costs_per_task
    ]
    head = ("Model", "Benchmark", "Score", "USD a task", "USD a task over score", "Remark")
    return TableView("Published cost of a task at list prices", head, rows, (1, 5))


def thinking_table(comparison: Comparison, sources: Sources) -> TableView:
    """With thinking and without."""
    rows = [
        [
            Cell(plots.without_model(row.name)),
            Cell("on" if row.thinking else "off"),
            Cell(words.count(row.output_tokens), "", sources.ref(row.source)),
            Cell(words.usd(row.usd_per_request)),
        ]
        for row in comparison.thinking
    ]
    head = ("Offer", "Thinking", "Output tokens", "USD a request")
    return TableView("With thinking and without", head, rows, (1,))


def timeline_table(comparison: Comparison, sources: Sources) -> TableView:
    """Prices by date."""
    rows = [
        [
            Cell(row.name),
            Cell(row.since),
            Cell(row.until or "today"),
            Cell(words.usd(row.usd_per_mtok_input), "published", sources.ref(row.source, row.as_of)),
            Cell(words.usd(row.usd_per_mtok_output)),
            Cell(words.usd(row.usd_per_request)),
        ]
        for row in comparison.price_history
    ]
    head = ("Model", "From", "To", "USD a Mtok in", "a Mtok out", "USD for this request")
    return TableView("Prices over time", head, rows, (1, 2))


def load_table(comparison: Comparison) -> TableView:
    """Latency against load."""
    rows = [
        [
            Cell(point.load),
            Cell(words.count(point.request_per_s), "simulated" if point.simulated else "measured"),
            Cell(words.count(point.goodput_requests_per_s)),
            *(Cell(words.milliseconds(at)) for at in (point.ttft_ms.p50, point.ttft_ms.p90)),
            *(Cell(words.milliseconds(at)) for at in (point.tpot_ms.p50, point.tpot_ms.p90)),
        ]
        for point in comparison.load_curve
    ]
    head = ("Load", "requests/s", "within the service level", "TTFT p50", "p90", "TPOT p50", "p90")
    return TableView("Latency against load", head, rows)


def checks_table(comparison: Comparison) -> TableView:
    """The cache, simulated beside published."""
    rows = [
        [
            Cell(f"{check.policy} cache"),
            Cell(words.percent(check.published_hit, 1), "published"),
            Cell(words.percent(check.simulated_hit, 1), "simulated"),
            Cell(words.usd(check.usd_per_request_published)),
            Cell(words.usd(check.usd_per_request_simulated)),
        ]
        for check in comparison.cache_checks
    ]
    head = ("Lifetime", "Input read, published", "simulated", "USD a request", "as simulated")
    return TableView("The cache over the gaps of sessions", head, rows)


def assumptions_table(comparison: Comparison, sources: Sources) -> TableView:
    """What nobody measured."""
    rows = []
    for line in comparison.assumptions:
        value = words.DASH if line.value is None else words.quantity(line.value, line.unit)
        span = words.DASH
        if line.low is not None and line.high is not None and line.low != line.high:
            span = words.span(line.low, line.high, line.unit)
        rows.append([Cell(line.statement, ref=sources.ref(line.source, line.as_of)), Cell(value), Cell(span)])
    return TableView("Assumptions", ("What is assumed", "Used", "Range"), rows)

"""The tables of the page as plain cells: what a plot shows, again in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwenhost.report import charts, plots, words
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost import Comparison
    from qwenhost.cost.figures import Figure
    from qwenhost.report.sources import Sources

CURVE_ROWS = 12


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its words, the basis of a figure, the footnote."""

    text: str
    tag: str = ""
    ref: int | None = None
    css: str = ""


@dataclass(frozen=True, slots=True)
class TableView:
    """Header, rows, caption; the first cell of a row is its header, numbers stand right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: Sequence[int] = ()
    """Columns beside the first that hold words."""


def all_tables(comparison: Comparison, sources: Sources) -> dict[str, TableView]:
    """Every table of the page, by name."""
    return {
        "offers": _offers(comparison, sources),
        "curve": _curve(comparison),
        "bars": _bars(comparison),
        "node": _node(comparison, sources),
        "memory": _memory(comparison),
        "latency": _latency(comparison),
        "hardware": _hardware(comparison, sources),
        "tornado": _tornado(comparison, sources),
        "scores": _scores(comparison, sources),
        "tasks": _tasks(comparison, sources),
        "thinking": _thinking(comparison, sources),
        "timeline": _timeline(comparison, sources),
        "load": _load(comparison),
        "checks": _checks(comparison),
        "assumptions": _assumptions(comparison, sources),
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


def _node(comparison: Comparison, sources: Sources) -> TableView:
    side, plan = comparison.self_host, comparison.plan
    month = side.monthly
    made = [
        ("Weights", Cell(f"{plan.repo_id}, {plan.quantization}")),
        ("Layout", Cell(f"{plan.parallelism} on {plan.gpus}")),
        ("Context, sequences", Cell(f"{plan.max_model_len:,} tokens, {plan.max_num_seqs:,}")),
        ("KV cache", Cell(f"{plan.kv_cache_tokens:,} tokens")),
        ("Node carries", _figure(side.requests_per_s_per_node, "requests/s", sources)),
        ("Service level", Cell(side.slo + ("" if side.meets_slo is not False else ", missed"))),
        ("Mean over peak demand", _figure(side.mean_over_peak, "share", sources)),
        ("Nodes", Cell(f"{side.nodes} ({side.serving_nodes} serving, {side.spare_nodes} spare)")),
        ("Mean use of capacity", Cell(words.percent(side.utilisation))),
        ("GPU hour", _figure(side.usd_per_gpu_hour, "USD", sources)),
        ("Rent a month", Cell(words.usd(month.nodes))),
        ("Storage a month", Cell(words.usd(month.storage), "assumed")),
        ("Staff a month", Cell(words.usd(month.staff), "assumed")),
        (
            "Floor: a node full day and night",
            Cell(f"{words.usd(side.usd_per_request_full)} a request", "modelled"),
        ),
    ]
    rows = [[Cell(name), cell] for name, cell in made]
    return TableView("The self-hosted service", ("", "Value"), rows, (1,))


def _memory(comparison: Comparison) -> TableView:
    memory = comparison.plan.memory_per_gpu
    rows = [
        [Cell(name), Cell(format_gib(size)), Cell(words.percent(size / memory.total_bytes, 1))]
        for name, size, _ in charts.memory_rows(memory)
    ]
    return TableView("Memory of one GPU", ("Part", "Size", "Share"), rows)


def _latency(comparison: Comparison) -> TableView:
    found = charts.latency_rows(comparison)
    labels = list(dict.fromkeys(label for _, marks, _ in found for label, _ in marks))
    rows = []
    for name, marks, limit in found:
        at = dict(marks)
        rows.append(
            [
                Cell(name),
                *(Cell(words.milliseconds(at.get(label))) for label in labels),
                Cell(words.milliseconds(limit)),
            ]
        )
    percentile = comparison.workload.slo.percentile
    return TableView("Latency", ("", *labels, f"Limit at p{percentile:g}"), rows)


def _hardware(comparison: Comparison, sources: Sources) -> TableView:
    rows = [
        [
            Cell(option.label),
            Cell(option.tier.replace("_1y", ", 1 year").replace("_", " ")),
            Cell(words.usd(option.usd_per_gpu_hour), option.basis, sources.ref(option.source, option.as_of)),
            Cell(words.usd(option.usd_per_month)),
            Cell(
                "never"
                if option.break_even_requests_per_day is None
                else words.count(option.break_even_requests_per_day)
            ),
            Cell(option.as_of),
        ]
        for option in comparison.hardware_options
    ]
    head = (
        "Provider",
        "Tier",
        "USD a GPU hour",
        "USD a month, all told",
        "Break-even, requests a day",
        "Seen on",
    )
    return TableView("The same node at other prices", head, rows, (1,))


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


def _scores(comparison: Comparison, sources: Sources) -> TableView:
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


def _tasks(comparison: Comparison, sources: Sources) -> TableView:
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


def _thinking(comparison: Comparison, sources: Sources) -> TableView:
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


def _timeline(comparison: Comparison, sources: Sources) -> TableView:
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


def _load(comparison: Comparison) -> TableView:
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


def _checks(comparison: Comparison) -> TableView:
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


def _assumptions(comparison: Comparison, sources: Sources) -> TableView:
    rows = []
    for line in comparison.assumptions:
        value = words.DASH if line.value is None else words.quantity(line.value, line.unit)
        span = words.DASH
        if line.low is not None and line.high is not None and line.low != line.high:
            span = words.span(line.low, line.high, line.unit)
        rows.append([Cell(line.statement, ref=sources.ref(line.source, line.as_of)), Cell(value), Cell(span)])
    return TableView("Assumptions", ("What is assumed", "Used", "Range"), rows)


def _figure(figure: Figure, unit: str, sources: Sources) -> Cell:
    span = ""
    if figure.low != figure.high:
        span = f" ({words.span(figure.low, figure.high, unit)})"
    text = words.quantity(figure.value, unit) + span
    return Cell(text, figure.basis, sources.ref(figure.source, figure.as_of))

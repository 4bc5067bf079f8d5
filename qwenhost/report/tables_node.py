"""Tables of the self-hosted node: what it is, what it costs, how fast it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.report import charts, words
from qwenhost.report.cells import Cell, TableView, figure_cell
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from qwenhost.cost import Comparison
    from qwenhost.cost.self_host_cost import SelfHost
    from qwenhost.report.sources import Sources


def node_table(comparison: Comparison, sources: Sources) -> TableView:
    """The self-hosted service."""
    side, plan = comparison.self_host, comparison.plan
    month = side.monthly
    made = [
        ("Weights", Cell(f"{plan.repo_id}, {plan.quantization}")),
        ("Layout", Cell(f"{plan.parallelism} on {plan.gpus}")),
        ("Context, sequences", Cell(f"{plan.max_model_len:,} tokens, {plan.max_num_seqs:,}")),
        ("KV cache", Cell(f"{plan.kv_cache_tokens:,} tokens")),
        ("Node carries", figure_cell(side.requests_per_s_per_node, "requests/s", sources)),
        ("Service level", Cell(side.slo + ("" if side.meets_slo is not False else ", missed"))),
        ("Mean over peak demand", figure_cell(side.mean_over_peak, "share", sources)),
        ("Nodes", Cell(f"{side.nodes} ({side.serving_nodes} serving, {side.spare_nodes} spare)")),
        ("Mean use of capacity", Cell(words.percent(side.utilisation))),
        ("GPU hour", figure_cell(side.usd_per_gpu_hour, "USD", sources)),
        ("Rent a month", Cell(words.usd(month.nodes))),
        ("Storage a month", Cell(words.usd(month.storage), "assumed")),
        ("Start-ups and upgrades a month", _starts(side, sources)),
        ("Egress a month", Cell(words.usd(month.egress), "assumed")),
        ("Staff a month", Cell(words.usd(month.staff), "assumed")),
        (
            "Floor: a node full day and night",
            Cell(f"{words.usd(side.usd_per_request_full)} a request", "modelled"),
        ),
    ]
    rows = [[Cell(name), cell] for name, cell in made]
    return TableView("The self-hosted service", ("", "Value"), rows, (1,))


def _starts(side: SelfHost, sources: Sources) -> Cell:
    hours = side.start_hours
    if hours is None:  # a comparison saved before they were priced
        return Cell(words.DASH)
    usd = words.usd(side.monthly.start_ups)
    return Cell(f"{usd} ({hours.note})", hours.basis, sources.ref(hours.source, hours.as_of))


def memory_table(comparison: Comparison) -> TableView:
    """One GPU by what fills it."""
    memory = comparison.plan.memory_per_gpu
    rows = [
        [Cell(name), Cell(format_gib(size)), Cell(words.percent(size / memory.total_bytes, 1))]
        for name, size, _ in charts.memory_rows(memory)
    ]
    return TableView("Memory of one GPU", ("Part", "Size", "Share"), rows)


def latency_table(comparison: Comparison) -> TableView:
    """Percentiles beside limits."""
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


def hardware_table(comparison: Comparison, sources: Sources) -> TableView:
    """The node at every listed price."""
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

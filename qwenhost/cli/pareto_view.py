"""``qwenhost plan --pareto``: the front on a terminal, as a plot and a table; the same as an HTML file."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.cli.output import console, say, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.table import Table

    from qwenhost.facts import Catalog
    from qwenhost.plan import Plan, PlanRequest
    from qwenhost.planner.pareto import ParetoPoint

PLOT_WIDTH: Final = 64
PLOT_HEIGHT: Final = 14
PLOT_MARGIN: Final = 8
_NAMES: Final = string.ascii_lowercase + string.ascii_uppercase


def show_front(request: PlanRequest, known: Catalog, plan: Plan, *, as_json: bool, html: Path | None) -> None:
    """The front; as JSON the whole plan with the key ``pareto``; the page holds the beaten ones too."""
    from qwenhost.planner import pareto_front, pareto_points

    points = pareto_points(request, known, plan)
    front = pareto_front(points)
    if html is not None:
        from qwenhost.files import write_atomically
        from qwenhost.report.pareto_page import pareto_html

        write_atomically(html, pareto_html(plan, points))
        say(f"Wrote {html}")
    if as_json:
        write_json(msgspec.to_builtins(plan) | {"pareto": msgspec.to_builtins(front)})
        return
    screen = console()
    stretches = configurations(front)
    for line in plot(stretches, width=min(PLOT_WIDTH, screen.width - PLOT_MARGIN)):
        screen.print(line, markup=False, soft_wrap=True)
    screen.print(_table(stretches), markup=False)
    screen.print("* the plan's choice. Quality is stated and not weighed.", style="dim", markup=False)


def configurations(front: Sequence[ParetoPoint]) -> dict[str, list[ParetoPoint]]:
    """The front's points by combination, in the order of the slowest user."""
    found: dict[str, list[ParetoPoint]] = {}
    for point in front:
        found.setdefault(point.label, []).append(point)
    return found


def plot(
    stretches: Mapping[str, Sequence[ParetoPoint]], *, width: int = PLOT_WIDTH, height: int = PLOT_HEIGHT
) -> list[str]:
    """Rate per GPU against rate per user; each combination has a letter, ``+`` is where several meet."""
    points = [point for stretch in stretches.values() for point in stretch]
    xs = [point.output_tokens_per_s_per_user for point in points]
    ys = [point.output_tokens_per_s_per_gpu for point in points]
    names = [name for name, stretch in zip(_NAMES, stretches.values(), strict=False) for _ in stretch]
    grid = [[" "] * width for _ in range(height)]
    for name, x, y in zip(names, xs, ys, strict=False):
        column, row = _place(x, xs, width), height - 1 - _place(y, ys, height)
        grid[row][column] = name if grid[row][column] in (" ", name) else "+"
    edge = max(len(f"{max(ys):,.0f}"), len(f"{min(ys):,.0f}"))
    lines = ["output tokens/s per GPU"]
    for row, cells in enumerate(grid):
        label = f"{max(ys):,.0f}" if row == 0 else f"{min(ys):,.0f}" if row == height - 1 else ""
        lines.append(f"{label:>{edge}} |{''.join(cells).rstrip()}")
    lines.append(f"{'':>{edge}} +{'-' * width}")
    low, high = f"{min(xs):,.0f}", f"{max(xs):,.0f}"
    title = "output tokens/s per user"
    gap = max(1, (width - len(low) - len(high) - len(title)) // 2)
    lines.append(f"{'':>{edge}}  {low}{' ' * gap}{title}{' ' * gap}{high}")
    return lines


def _place(value: float, values: Sequence[float], cells: int) -> int:
    low, high = min(values), max(values)
    return 0 if high <= low else round((value - low) / (high - low) * (cells - 1))


def _table(stretches: Mapping[str, Sequence[ParetoPoint]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("on the front", overflow="fold")
    for title in ("in flight", "tok/s per user", "per GPU", "USD/Mtok out", "context"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("quality change", overflow="fold")
    for name, stretch in zip(_NAMES, stretches.values(), strict=False):
        first = stretch[0]
        drafts = f" MTP {first.num_speculative_tokens}" if first.num_speculative_tokens else ""
        late = "" if first.meets_slo else " (service level missed)"
        prices = [point.usd_per_mtok_output for point in stretch if point.usd_per_mtok_output is not None]
        table.add_row(
            f"{name}{'*' if any(point.chosen for point in stretch) else ''}",
            f"{first.checkpoint} {first.layout} kv {first.kv_cache_dtype}{drafts}{late}",
            _span([point.concurrency for point in stretch]),
            _span([point.output_tokens_per_s_per_user for point in stretch]),
            _span([point.output_tokens_per_s_per_gpu for point in stretch]),
            _span(prices, digits=2) or "unknown",
            f"{first.max_model_len:,}",
            first.quality.words,
        )
    return table


def _span(values: Sequence[float], digits: int = 0) -> str:
    if not values:
        return ""
    low, high = f"{min(values):,.{digits}f}", f"{max(values):,.{digits}f}"
    return low if low == high else f"{low}-{high}"

"""A plan's Pareto front as one HTML file that loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from qwenhost.report import pareto_plot, words
from qwenhost.report.cells import Cell, TableView
from qwenhost.report.page import PHONE, WIDE, asset, environment
from qwenhost.report.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.plan import Plan
    from qwenhost.planner.pareto import ParetoPoint

_HEAD: Final = (
    "On the front", "in flight", "tok/s per user", "tok/s per GPU", "first token", "USD/Mtok out", "context",
    "quality change, points",
)  # fmt: skip


def pareto_html(plan: Plan, points: Sequence[ParetoPoint]) -> str:
    """The whole page: plot, table and words inline; every text escaped.

    Args:
        plan: whose choice is marked.
        points: from ``planner.pareto_points``, those that are beaten too.
    """
    sources = Sources()
    front = [point for point in points if point.on_front or point.chosen]
    view = {
        "plan": plan,
        "front": front,
        "beaten": len(points) - len(front),
        "slo": _service_level(plan),
        "stats": _stats(plan, front),
        "plots": {
            "users": _both(points, pareto_plot.per_gpu_against_per_user),
            "cost": _both(points, pareto_plot.cost_against_per_user) if _is_priced(front) else "",
        },
        "table": _table(plan, front, sources),
        "price": plan.inputs.gpu_price,
        "legend": pareto_plot.legend(front),
        "style": Markup(asset("report.css")),  # noqa: S704 - our own file
        "script": Markup(asset("theme.js")),  # noqa: S704 - our own file
        "notes": sources,
    }
    return environment().get_template("pareto.html.j2").render(view)


def _both(points: Sequence[ParetoPoint], draw: Any) -> Markup:
    """For a desk and for a phone; the style sheet shows one of the two."""
    wide, narrow = draw(points, WIDE), draw(points, PHONE)
    return Markup(f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>')  # noqa: S704 - by report.svg


def _is_priced(points: Sequence[ParetoPoint]) -> bool:
    return all(point.usd_per_mtok_output is not None for point in points)


def _service_level(plan: Plan) -> str:
    slo = plan.inputs.slo
    limits = (("first token", slo.ttft_ms), ("each further token", slo.tpot_ms), ("whole answer", slo.e2e_ms))
    parts = [f"{name} within {words.milliseconds(limit)}" for name, limit in limits if limit]
    return ", ".join(parts) or "none asked for"


def _stats(plan: Plan, front: Sequence[ParetoPoint]) -> list[dict[str, str]]:
    """The ends of the front and the choice."""
    fastest = max(front, key=lambda point: point.output_tokens_per_s_per_user)
    fullest = max(front, key=lambda point: point.output_tokens_per_s_per_gpu)
    chosen = plan.chosen
    rate = chosen.estimate.output_tokens_per_s
    found = [
        {
            "label": "The plan's choice, output tokens/s",
            "value": f"{rate.value:,.0f}",
            "note": f"{chosen.checkpoint.id} {chosen.parallelism.label}; {rate.low:,.0f} to {rate.high:,.0f}",
            "tag": rate.basis,
        },
        {
            "label": "Most per user, tokens/s",
            "value": f"{fastest.output_tokens_per_s_per_user:,.0f}",
            "note": f"{fastest.label}, {fastest.concurrency:,} in flight",
            "tag": fastest.basis,
        },
        {
            "label": "Most per GPU, tokens/s",
            "value": f"{fullest.output_tokens_per_s_per_gpu:,.0f}",
            "note": f"{fullest.label}, {fullest.concurrency:,} in flight",
            "tag": fullest.basis,
        },
    ]
    if _is_priced(front):
        cheapest = min(front, key=lambda point: point.usd_per_mtok_output or 0.0)
        found.append(
            {
                "label": "Cheapest million output tokens",
                "value": words.usd(cheapest.usd_per_mtok_output),
                "note": f"{cheapest.label}, all rent charged to output",
                "tag": cheapest.basis,
            }
        )
    return found


def _table(plan: Plan, front: Sequence[ParetoPoint], sources: Sources) -> TableView:
    rows = []
    for point in reversed(front):
        quality = point.quality.source
        rows.append(
            [
                Cell(
                    f"{point.label} (the choice)" if point.chosen else point.label,
                    tag=point.basis,
                    css="self" if point.chosen else "",
                ),
                Cell(f"{point.concurrency:,}"),
                Cell(f"{point.output_tokens_per_s_per_user:,.1f}"),
                Cell(f"{point.output_tokens_per_s_per_gpu:,.0f}"),
                Cell(words.milliseconds(point.ttft_ms)),
                Cell(words.usd(point.usd_per_mtok_output)),
                Cell(f"{point.max_model_len:,}"),
                Cell(
                    point.quality.words + ("" if point.meets_slo else "; misses the service level"),
                    ref=sources.ref(quality.where, quality.as_of.isoformat()) if quality else None,
                ),
            ]
        )
    title = f"The front of {plan.inputs.node.description}, {plan.inputs.workload}"
    return TableView(title, _HEAD, rows, text_columns=(7,))

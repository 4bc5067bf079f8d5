"""A comparison as one HTML file that loads nothing."""

from __future__ import annotations

import shlex
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import jinja2
from markupsafe import Markup

from qwenhost.report import charts, over, plots, tables, words
from qwenhost.report.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.cost import Comparison

WIDE, PHONE = 760, 344
_CHOICES: Final = {"self_host": "self-host", "api": "stay with the API"}


def html(comparison: Comparison) -> str:
    """The whole page: styles, plots and words inline; every text escaped."""
    sources = Sources()
    view = {
        "c": comparison,
        "words": words,
        "banner": _banner(comparison),
        "stats": _stats(comparison, sources),
        "plots": _plots(comparison),
        "tables": tables.all_tables(comparison, sources),
        "legend": plots.BUCKETS,
        "memory_rows": charts.memory_rows(comparison.plan.memory_per_gpu),
        "command": shlex.join(comparison.plan.vllm_argv),
        "style": Markup(asset("report.css")),  # noqa: S704 - our own file
        "script": Markup(asset("theme.js")),  # noqa: S704 - our own file
        "notes": sources,
    }
    return environment().get_template("report.html.j2").render(view)


def _banner(comparison: Comparison) -> tuple[str, str] | None:
    if comparison.simulated:
        return (
            "Simulated",
            "Speeds come from a simulated engine over the speed model. No hardware was measured.",
        )
    if comparison.predicted:
        return "Predicted", "Speeds come from the speed model. No hardware was measured."
    if comparison.self_host.warnings:
        return "Measured elsewhere", " ".join(comparison.self_host.warnings)
    return None


def _stats(comparison: Comparison, sources: Sources) -> list[dict[str, Any]]:
    """The four figures beside the verdict."""
    side, line, crossing = comparison.self_host, comparison.baseline, comparison.break_even
    speed = side.requests_per_s_per_node
    pays_from = crossing.requests_per_day
    return [
        {
            "label": "Self-hosted, a month",
            "value": words.usd(side.usd_per_month),
            "css": "self",
            "note": f"{side.nodes} nodes of {side.hardware}, {words.usd(side.usd_per_request)} a request",
            "tag": "simulated" if speed.basis == "simulated" else "modelled",
            "ref": sources.ref(speed.source, speed.as_of),
        },
        {
            "label": f"{line.name}, a month",
            "value": words.usd(line.usd_per_month),
            "css": "base",
            "note": f"{words.usd(line.usd_per_request)} a request, list price",
            "tag": "published",
            "ref": sources.ref(line.source, line.as_of),
        },
        {
            "label": "Break-even, requests a day",
            "value": "none" if pays_from is None else words.count(pays_from),
            "css": "",
            "note": f"90 % band {words.band(crossing.low, crossing.high)}",
            "tag": "modelled",
            "ref": None,
        },
        {
            "label": "Confidence",
            "value": comparison.verdict.confidence,
            "css": "",
            "note": comparison.verdict.confidence_reason,
            "tag": "",
            "ref": None,
        },
    ]


def _plots(comparison: Comparison) -> dict[str, Markup]:
    """Every plot for a desk and for a phone; the style sheet shows one of the two."""

    def both(draw: Callable[[Comparison, int], str]) -> Markup:
        wide, narrow = draw(comparison, WIDE), draw(comparison, PHONE)
        return Markup(  # noqa: S704 - drawn by report.svg, which escapes every text
            f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
        )

    drawings = {
        "curve": plots.cost_curve,
        "bars": plots.request_bars,
        "tornado": plots.tornado,
        "memory": charts.memory_bar,
        "scores": charts.scores,
        "timeline": over.price_timeline,
    }
    if comparison.load_curve:
        drawings["load"] = over.latency_against_load
    latency = Markup(charts.latency(comparison, PHONE))  # noqa: S704 - as above; it stands in half a column
    return {"latency": latency, **{name: both(draw) for name, draw in drawings.items()}}


@cache
def environment() -> jinja2.Environment:
    """The templates; every text is escaped, a missing name is an error."""
    loader = jinja2.FunctionLoader(asset)
    return jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def asset(name: str) -> str:
    """A file beside the templates."""
    return (resources.files("qwenhost.report") / "templates" / name).read_text(encoding="utf-8")

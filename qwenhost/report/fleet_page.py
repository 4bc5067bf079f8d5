"""A fleet's run as one HTML file that loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from qwenhost.report import fleet_charts, words
from qwenhost.report.page import PHONE, WIDE, asset, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qwenhost.simulate.fleet_rate import RateSearch
    from qwenhost.simulate.fleet_result import FleetRun
    from qwenhost.simulate.fleet_search import FleetSearch

HOUR_S = 3600.0


def fleet_html(run: FleetRun, search: FleetSearch | None, curves: Mapping[str, RateSearch]) -> str:
    """The whole page: plots, tables and words inline; every text escaped.

    Args:
        run: the fleet's figures.
        search: what else was tried, where a search found it.
        curves: latency against load of one replica, by pool.
    """
    view = {
        "run": run,
        "words": words,
        "search": search,
        "headline": _headline(run),
        "lead": _lead(run),
        "stats": _stats(run),
        "plots": _plots(run),
        "curves": {name: _both(fleet_charts.latency_against_rate, found) for name, found in curves.items()},
        "found": {name: found.found_rate for name, found in curves.items()},
        "tables": _tables(run, search),
        "style": Markup(asset("report.css")),  # noqa: S704 - our own file
        "script": Markup(asset("theme.js")),  # noqa: S704 - our own file
    }
    return environment().get_template("fleet.html.j2").render(view)


def _headline(run: FleetRun) -> str:
    if run.usd_per_day is None:
        return f"{words.percent(run.kept_slo, 1)} of {run.requests.sent:,} requests kept the service level"
    if not run.api:
        return f"{words.usd(run.usd_per_day)} a day"
    theirs = f"where {run.api[0].name} takes {words.usd(run.api[0].usd_per_day)}"
    return f"{words.usd(run.usd_per_day)} a day, {theirs}"


def _lead(run: FleetRun) -> str:
    replicas = ", ".join(
        f"{_range(p.replicas_min, p.replicas_max)} replicas of {p.engine} on {p.gpus}" for p in run.pools
    )
    verdict = ""
    if run.slo is not None:
        verdict = (
            f" {'Keeps' if run.meets_slo else 'Misses'} its service level: {run.kept_slo:.2%} of requests "
        )
        verdict += f"kept it, {run.slo.percentile:g} % must."
    sent = f"{run.requests.sent:,} requests of {run.workload} in {run.duration_s / HOUR_S:,.3g} hours"
    return f"{sent}, {run.routing}; {replicas}.{verdict}"


def _stats(run: FleetRun) -> list[dict[str, str]]:
    errors = ", ".join(f"{count:,} {kind}" for kind, count in run.requests.by_error.items()) or "none failed"
    worst = run.worst_window
    return [
        {
            "label": "Fleet, a day", "value": words.usd(run.usd_per_day), "css": "self",
            "note": f"{words.count(run.gpu_hours)} GPU hours, {words.usd(run.usd_per_request)} a request",
        },
        {
            "label": f"{run.api[0].name}, a day" if run.api else "API, a day",
            "value": words.usd(run.api[0].usd_per_day) if run.api else words.DASH, "css": "base",
            "note": "the same answered requests, list price",
        },
        {
            "label": "Kept the service level", "value": words.percent(run.kept_slo, 1), "css": "",
            "note": f"worst stretch {words.percent(None if worst is None else worst.kept_slo, 1)}",
        },
        {
            "label": "Answered", "value": f"{run.requests.completed:,}", "css": "",
            "note": f"{errors}; {run.failures} failures, {run.interruptions} interruptions, "
            f"{run.resent} sent again",
        },
    ]  # fmt: skip


def _plots(run: FleetRun) -> dict[str, Markup]:
    drawings: dict[str, Callable[[FleetRun, int], str]] = {
        "replicas": fleet_charts.demand_and_replicas,
        "latency": fleet_charts.latency_over_time,
        "attainment": fleet_charts.attainment_over_time,
    }
    if run.usd is not None:
        drawings |= {"cost": fleet_charts.cost_bars, "hourly": fleet_charts.cost_over_time}
    return {name: _both(draw, run) for name, draw in drawings.items()}


def _both(draw: Callable[[Any, int], str], what: Any) -> Markup:
    """Drawn for a desk and for a phone; the style sheet shows one of the two."""
    wide, narrow = draw(what, WIDE), draw(what, PHONE)
    return Markup(  # noqa: S704 - drawn by report.svg, which escapes every text
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
    )


def _tables(run: FleetRun, search: FleetSearch | None) -> dict[str, Any]:
    tables: dict[str, Any] = {"pools": _pools(run), "windows": _windows(run), "latency": _latency(run)}
    bills = sorted(run.api, key=lambda bill: bill.usd)
    tables["api"] = {
        "caption": "The same requests at each API",
        "head": ["API", "USD a day", "cache", "prices of"],
        "rows": [[b.name, words.usd(b.usd_per_day), b.cache_policy, b.as_of] for b in bills],
    }
    if search is not None:
        tried = sorted(search.tried, key=lambda t: (t.usd_per_day is None, t.usd_per_day or 0.0))
        tables["tried"] = {
            "caption": "Every fleet tried",
            "head": ["fleet", "USD a day", "kept", "verdict"],
            "rows": [
                [t.label, words.usd(t.usd_per_day), words.percent(t.kept_slo, 1), t.verdict] for t in tried
            ],
        }
    return tables


def _pools(run: FleetRun) -> dict[str, Any]:
    return {
        "caption": "Pools",
        "head": ["pool", "replicas", "mean", "started", "GPU hours", "USD/h each", "USD", "cold start",
                 "warm start"],
        "rows": [
            [
                f"{pool.name}: {pool.engine}", _range(pool.replicas_min, pool.replicas_max),
                f"{pool.replicas_mean:.2f}", f"{pool.started}", words.count(pool.gpu_hours),
                words.usd(pool.usd_per_replica_hour), words.usd(pool.usd),
                f"{sum(pool.startup_cold_s.values()):,.0f} s", f"{sum(pool.startup_warm_s.values()):,.0f} s",
            ]
            for pool in run.pools
        ],
    }  # fmt: skip


def _latency(run: FleetRun) -> dict[str, Any]:
    kinds = (("time to first token", run.ttft_ms), ("time per output token", run.tpot_ms),
             ("end to end", run.e2e_ms), ("queueing", run.queue_ms))  # fmt: skip
    return {
        "caption": "Latency over the whole run",
        "head": ["", "mean", "p50", "p90", "p99"],
        "rows": [
            [name, *(words.milliseconds(value) for value in (s.mean, s.p50, s.p90, s.p99))]
            for name, s in kinds
        ],
    }


def _windows(run: FleetRun) -> dict[str, Any]:
    return {
        "caption": f"Every {run.window_s / 60:g} minutes",
        "head": ["hour", "requests/s", "replicas", "ready", "TTFT p90", "TPOT p90", "queueing p90", "kept",
                 "failed", "USD", "API USD"],
        "rows": [
            [
                f"{w.start_s / HOUR_S:.2f}", words.count(w.request_per_s), f"{sum(w.replicas.values()):.2f}",
                f"{sum(w.ready.values()):.2f}", words.milliseconds(w.ttft_ms_p90),
                words.milliseconds(w.tpot_ms_p90), words.milliseconds(w.queue_ms_p90),
                words.percent(w.kept_slo, 1), f"{w.failed:,}", words.usd(w.usd), words.usd(w.api_usd),
            ]
            for w in run.windows
        ],
    }  # fmt: skip


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"

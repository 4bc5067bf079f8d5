"""A probe's run or sweep as one HTML file that loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from qwenhost import __version__
from qwenhost.probe.timeline import timeline
from qwenhost.report import probe_charts, words
from qwenhost.report.page import PHONE, WIDE, asset, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qwenhost.measurements import Measurements, Percentiles, RequestRecord
    from qwenhost.probe.sweep import Sweep


def run_html(measured: Measurements, records: Sequence[RequestRecord]) -> str:
    """One run: its figures, its course in time, its distributions, its failures.

    Args:
        measured: the figures.
        records: that they were drawn from, or an even sample; token times may be missing.
    """
    slo = None if measured.goodput is None else measured.goodput.slo
    sample = measured.sampled
    stretches = timeline(records, slo, each_for=1.0 if sample is None else sample.of / sample.records)
    plots = {}
    if stretches:
        over_time = (stretches, slo)
        plots = {
            "Latency over time": _both(probe_charts.latency_over_time, over_time),
            "Output tokens per second": _both(probe_charts.load_over_time, over_time),
            "Requests in flight, and failures": _both(probe_charts.requests_over_time, over_time),
            "Distributions: the share at or below each latency": _both(
                probe_charts.distributions, (records, slo)
            ),
        }
    tables = [_latency_table(measured), _failures(measured), _client(measured)]
    return _page(measured, plots, [t for t in tables if t["rows"]], _lead(measured))


def sweep_html(swept: Sweep) -> str:
    """Several runs: latency and throughput against load, and every point's figures."""
    sound = [point for point in swept.points if not point.measurements.void]
    last = (swept.found or (sound or swept.points)[-1]).measurements
    plots = {
        "Latency against load": _both(probe_charts.latency_against_load, swept),
        "Output tokens per second against load": _both(probe_charts.tokens_against_load, swept),
    }
    return _page(last, plots, [_points(swept), _latency_table(last)], swept.reason)


def _page(measured: Measurements, plots: dict[str, Markup], tables: list[Any], lead: str) -> str:
    view = {
        "m": measured,
        "lead": lead,
        "stats": _stats(measured),
        "plots": plots,
        "tables": tables,
        "version": __version__,
        "style": Markup(asset("report.css")),  # noqa: S704 - our own file
        "script": Markup(asset("theme.js")),  # noqa: S704 - our own file
    }
    return environment().get_template("probe.html.j2").render(view)


def _both(draw: Callable[[Any, int], str], what: Any) -> Markup:
    wide, narrow = draw(what, WIDE), draw(what, PHONE)
    return Markup(  # noqa: S704 - drawn by report.svg, which escapes every text
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
    )


def _lead(measured: Measurements) -> str:
    load, work = measured.load, measured.workload
    if load.kind == "closed":
        offered = f"{load.concurrency} requests in flight"
    elif load.rate is not None:
        offered = f"{load.rate:g} requests/s, {load.arrivals}"
    else:
        offered = f"an open loop, {load.arrivals}"
    return (
        f"{offered}, for {load.duration_s:,.1f} s; {work.mean_input_tokens:,.0f} tokens in and "
        f"{work.mean_output_tokens:,.0f} out on average, over /{work.endpoint}."
    )


def _stats(measured: Measurements) -> list[dict[str, str]]:
    counts, goodput = measured.requests, measured.goodput
    failed = ", ".join(f"{count:,} {kind}" for kind, count in counts.by_error.items()) or "none failed"
    figures = [
        ("Output tokens per second", words.count(measured.output_tokens_per_s), "self",
         f"{words.count(measured.request_per_s)} requests/s"),
        ("Time to first token, median", words.milliseconds(measured.ttft_ms.p50), "",
         f"p99 {words.milliseconds(measured.ttft_ms.p99)}, from the due time"),
        ("Time per output token, median", words.milliseconds(measured.tpot_ms.p50), "",
         f"p99 {words.milliseconds(measured.tpot_ms.p99)}"),
    ]  # fmt: skip
    answered = f"{counts.completed:,} of {counts.sent:,}"
    if goodput is not None and any((goodput.slo.ttft_ms, goodput.slo.tpot_ms, goodput.slo.e2e_ms)):
        note = f"{goodput.slo.percentile:g} % must; {answered} answered, {failed}"
        figures.append(("Kept the service level", words.percent(goodput.fraction, 1), "", note))
    else:
        figures.append(("Answered", answered, "", failed))
    return [{"label": label, "value": value, "css": css, "note": note} for label, value, css, note in figures]


def _latency_table(measured: Measurements) -> dict[str, Any]:
    def row(name: str, of: Percentiles | None) -> list[str]:
        shown = (None,) * 5 if of is None else (of.mean, of.p50, of.p90, of.p95, of.p99)
        return [name, *(words.milliseconds(value) for value in shown)]

    return {
        "caption": "Latency",
        "head": ["", "mean", "p50", "p90", "p95", "p99"],
        "rows": [
            row("time to first token", measured.ttft_ms),
            row("time to first visible token", measured.first_visible_ms),
            row("time per output token", measured.tpot_ms),
            row("between chunks", measured.itl_ms),
            row("end to end", measured.e2e_ms),
        ],
    }


def _failures(measured: Measurements) -> dict[str, Any]:
    sent = max(measured.requests.sent, 1)
    return {
        "caption": "Failures",
        "head": ["kind", "requests", "share"],
        "rows": [
            [kind, f"{count:,}", words.percent(count / sent, 1)]
            for kind, count in measured.requests.by_error.items()
        ],
    }


def _client(measured: Measurements) -> dict[str, Any]:
    lag, client = measured.send_lag_ms, measured.client
    rows = [["send lag p99", words.milliseconds(lag.p99)], ["send lag, longest", words.milliseconds(lag.max)]]
    rows += [
        [label, words.milliseconds(client[name]) if name.endswith("ms") else words.percent(client[name], 1)]
        for name, label in (
            ("loop_lag_p99_ms", "loop lag p99"),
            ("loop_busy_share", "event loop busy"),
            ("cpu_wait_share", "without a core"),
        )
        if name in client
    ]
    return {"caption": "The client itself", "head": ["", ""], "rows": rows}


def _points(swept: Sweep) -> dict[str, Any]:
    unit = "in flight" if swept.axis == "concurrency" else "requests/s"
    return {
        "caption": "Every load",
        "head": [unit, "tokens/s", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "kept", "verdict"],
        "rows": [
            [
                f"{point.at:.4g}",
                words.count(point.measurements.output_tokens_per_s),
                words.milliseconds(point.measurements.ttft_ms.p50),
                words.milliseconds(point.measurements.ttft_ms.p99),
                words.milliseconds(point.measurements.tpot_ms.p50),
                words.milliseconds(point.measurements.tpot_ms.p99),
                words.percent(point.kept_slo / point.judged, 1) if point.judged else words.DASH,
                "void" if point.measurements.void else point.said,
            ]
            for point in swept.points
        ],
    }

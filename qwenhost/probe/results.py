"""A finished run as measurements."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from qwenhost import __version__
from qwenhost.measurements import Load, MeasuredWorkload, Measurements, RequestRecord, Server
from qwenhost.probe import summary
from qwenhost.probe.breakdown import by_url, of_sessions, spending
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.confidence import intervals
from qwenhost.probe.config import ProbeConfig
from qwenhost.probe.content import TokenFit
from qwenhost.probe.drift import drifts
from qwenhost.probe.store import RecordStore
from qwenhost.probe.verdict import void_reason, warnings


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a run left behind."""

    config: ProbeConfig
    store: RecordStore
    server: Server
    fit: TokenFit | None
    """None where the user's own prompts were sent."""
    seed: int
    exact: bool
    """Whether answers of exactly the wanted length were asked for."""
    counters: Mapping[str, float]
    lag: LoopLag
    started_at: dt.datetime
    interrupted: bool
    about: str = ""
    """How the prompts were made."""
    notes: tuple[str, ...] = ()
    """What preparing the run found worth saying."""
    image_tokens: float | None = None
    worst_request_usd: float | None = None
    """What one request may cost, where they are billed."""
    stopped_by_cap: bool = False
    resumed: int = 0
    """How often it was taken up again."""

    @property
    def open_loop(self) -> bool:
        """Whether requests were due whatever the server did."""
        return self.config.concurrency is None

    @property
    def wanted_output(self) -> float | None:
        """Output tokens that every answer should have; None where lengths vary."""
        config = self.config
        own = config.prompts is not None or config.trace is not None
        fixed = self.exact and not own and config.distribution == "fixed" and not config.tools
        return config.output_tokens.mean if fixed else None


def measurements_of(run: Run) -> Measurements:
    """The run's figures; requests dropped at an interruption are left out of all of them."""
    config = run.config
    kept = [record for record in run.store.records if record.error != "interrupted"]
    totals = run.store.totals
    scale = summary.Scale.of(kept, totals)
    window = summary.rate_window(totals, not_before_s=0.0 if run.open_loop else config.ramp_up_s)
    rates = summary.rates(kept, window, scale)
    times = summary.latencies(kept, totals, run.store.dropped)
    reason = void_reason(kept, totals, open_loop=run.open_loop, lag=run.lag, counters=run.counters)
    return Measurements(
        workload=_workload(run),
        load=_load(run, window),
        requests=summary.request_counts(totals),
        output_tokens_per_s=rates.output_tokens,
        input_tokens_per_s=rates.input_tokens,
        total_tokens_per_s=rates.input_tokens + rates.output_tokens,
        request_per_s=rates.requests,
        ttft_ms=times.ttft_ms,
        first_visible_ms=times.first_visible_ms,
        tpot_ms=times.tpot_ms,
        itl_ms=times.itl_ms,
        e2e_ms=times.e2e_ms,
        tokens_per_chunk=times.tokens_per_chunk,
        goodput=None if config.slo is None else summary.goodput_in(kept, config.slo, window, scale),
        send_lag_ms=times.send_lag_ms,
        void=reason is not None,
        void_reason=reason,
        sessions=of_sessions(kept, totals.sessions, config, run.counters),
        by_url=by_url(kept, run.store.by_replica, config.urls, window),
        spending=spending(totals, config, run.worst_request_usd),
        warnings=tuple(
            _said(run, kept, since_s=window.start_s if window.kind == "steady" else 0.0)
            + warnings(
                totals,
                lag=run.lag,
                counters=run.counters,
                wanted_output=run.wanted_output,
                interrupted=totals.interrupted if run.interrupted else None,
            )
        ),
        interrupted=run.interrupted,
        server=run.server,
        engine_counters=run.counters,
        started_at=run.started_at,
        machine=machine(),
        client=run.lag.as_mapping(),
        gpus=config.gpus,
        confidence=intervals(kept, config.slo, run.seed),
        sampled=summary.sampled(kept, totals),
    )


def _said(run: Run, records: Sequence[RequestRecord], *, since_s: float) -> list[str]:
    """What a reader should know of how the run came about."""
    found = list(run.notes)
    if run.resumed:
        found.append(
            f"resumed {run.resumed} time{'s' * (run.resumed > 1)}: the server filled up anew each time, "
            "which the rates include"
        )
    if run.config.ramp_to is None and not run.config.timed_by_trace:
        found += drifts(records, since_s=since_s, seed=run.seed)
    if run.stopped_by_cap:
        found.append(f"stopped: a further request might have cost more than the cap of {_cap(run)}")
    sample = summary.sampled(records, run.store.totals)
    if sample is not None:
        found.append(
            f"percentiles (but those between chunks) and goodput are of {sample.records:,} of {sample.of:,} "
            f"requests, drawn evenly: at most {sample.rank_error * 100:.2g} points of rank off (95 %); "
            "--records writes all"
        )
    limited = run.store.totals.rate_limited
    if limited:
        found.append(f"{limited} requests were refused by a rate limit (429): the figures are of that limit")
    return found


def _cap(run: Run) -> str:
    budget = run.config.budget
    return "nothing" if budget is None else f"{budget.max_usd:g} USD"


def _load(run: Run, window: summary.Window) -> Load:
    config = run.config
    return Load(
        kind="open" if run.open_loop else "closed",
        concurrency=config.concurrency,
        rate=config.rate,
        arrivals=_arrivals(config),
        duration_s=run.store.totals.duration_s,
        warmup_requests=config.warmup_requests,
        rate_window_s=(window.start_s, window.end_s),
        rate_window=window.kind,
    )


def _workload(run: Run) -> MeasuredWorkload:
    config, totals = run.config, run.store.totals
    answered = max(totals.completed, 1)
    return MeasuredWorkload(
        id=config.workload,
        endpoint=config.endpoint,
        mean_input_tokens=totals.input_tokens / answered,
        mean_output_tokens=totals.output_tokens / answered,
        mean_cached_tokens=totals.cached_tokens / answered,
        thinking=config.thinking,
        prompts=run.about or None,
        image_tokens=run.image_tokens,
        tools=len(config.tools),
        tool_calls=totals.tool_calls,
        seed=run.seed,
    )


def _arrivals(config: ProbeConfig) -> str | None:
    if config.concurrency is not None:
        return None
    return f"trace x {config.trace_scale:g}" if config.timed_by_trace else config.arrivals


def machine() -> dict[str, Any]:
    """The client's machine."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "qwenhost": __version__,
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

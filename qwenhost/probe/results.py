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
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.confidence import intervals
from qwenhost.probe.config import ProbeConfig
from qwenhost.probe.content import TokenFit
from qwenhost.probe.gaps import GapHistogram
from qwenhost.probe.verdict import void_reason, warnings


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a run left behind."""

    config: ProbeConfig
    records: Sequence[RequestRecord]
    dropped: GapHistogram | None = None
    """Gaps of records whose token times were not kept."""
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

    @property
    def open_loop(self) -> bool:
        """Whether a rate was offered."""
        return self.config.rate is not None

    @property
    def wanted_output(self) -> float | None:
        """Output tokens that every answer should have; None where lengths vary."""
        config = self.config
        fixed = self.exact and config.prompts is None and config.distribution == "fixed"
        return config.output_tokens.mean if fixed else None


def measurements_of(run: Run) -> Measurements:
    """The run's figures; requests dropped at an interruption are left out of all of them."""
    config = run.config
    kept = [record for record in run.records if record.error != "interrupted"]
    window = summary.rate_window(kept, not_before_s=0.0 if run.open_loop else config.ramp_up_s)
    rates = summary.rates(kept, window)
    times = summary.latencies(kept, run.dropped)
    reason = void_reason(kept, open_loop=run.open_loop, lag=run.lag, counters=run.counters)
    return Measurements(
        workload=_workload(run, kept),
        load=_load(run, kept, window),
        requests=summary.request_counts(kept),
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
        goodput=None if config.slo is None else summary.goodput_in(kept, config.slo, window),
        send_lag_ms=times.send_lag_ms,
        void=reason is not None,
        void_reason=reason,
        warnings=tuple(
            warnings(
                kept,
                lag=run.lag,
                counters=run.counters,
                wanted_output=run.wanted_output,
                interrupted=len(run.records) - len(kept) if run.interrupted else None,
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
    )


def _load(run: Run, records: Sequence[RequestRecord], window: summary.Window) -> Load:
    config = run.config
    return Load(
        kind="open" if run.open_loop else "closed",
        concurrency=config.concurrency,
        rate=config.rate,
        arrivals=config.arrivals if run.open_loop else None,
        duration_s=summary.run_duration_s(records),
        warmup_requests=config.warmup_requests,
        rate_window_s=(window.start_s, window.end_s),
        rate_window=window.kind,
    )


def _workload(run: Run, records: Sequence[RequestRecord]) -> MeasuredWorkload:
    config, fit = run.config, run.fit
    ok = [record for record in records if record.ok]
    synthetic = fit and f"synthetic, {config.distribution} length; tokens per word {fit.basis}: {fit.source}"
    return MeasuredWorkload(
        id=config.workload,
        endpoint=config.endpoint,
        mean_input_tokens=summary.mean_of([record.input_tokens for record in ok]),
        mean_output_tokens=summary.mean_of([record.output_tokens for record in ok]),
        mean_cached_tokens=summary.mean_of([record.cached_tokens for record in ok]),
        thinking=config.thinking,
        prompts=synthetic or f"lines of {config.prompts}",
        seed=run.seed,
    )


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

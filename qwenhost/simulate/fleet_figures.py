"""A fleet's figures, drawn from the log of its run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from math import isnan
from typing import TYPE_CHECKING, Final

from qwenhost.facts import Slo, Value
from qwenhost.measurements import Percentiles, RequestCounts, percentile, percentiles
from qwenhost.simulate.fleet_config import DAY_S
from qwenhost.simulate.fleet_log import DONE, ERRORS
from qwenhost.simulate.fleet_result import FleetRun, PoolUse, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.simulate.fleet_config import FleetConfig, Pool
    from qwenhost.simulate.fleet_log import FleetLog

WINDOWS_S: Final = (10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21600.0)
MOST_WINDOWS: Final = 100
FEW: Final = 10
"""Requests below which a window's share says nothing and is not called the worst."""


class FleetLabels(Value, frozen=True, kw_only=True):
    """What the caller knows of a run."""

    workload: str
    engines: Mapping[str, str]
    """Planned configuration by pool."""
    gpus: Mapping[str, str]
    seed: int
    assumptions: tuple[str, ...] = ()


def fleet_run(config: FleetConfig, log: FleetLog, labels: FleetLabels, started: float) -> FleetRun:
    """The run's figures.

    Args:
        config: what was run.
        log: after :meth:`qwenhost.simulate.fleet.Fleet.run`.
        labels: of load and engines.
        started: ``time.perf_counter()`` before it.
    """
    span = max(log.end_s, 1e-9)
    answered = sum(outcome == DONE for outcome in log.outcome)
    output, prompt = sum(log.output_tokens), _answered_sum(log, log.input_tokens)
    window_s = next((w for w in WINDOWS_S if span / w <= MOST_WINDOWS), math.ceil(span / MOST_WINDOWS))
    windows = _windows(config, log, window_s)
    pools = tuple(_pool_use(index, pool, log, labels) for index, pool in enumerate(config.pools))
    usd = _total([pool.usd for pool in pools])
    kept = sum(log.kept) / len(log) if len(log) else 1.0
    return FleetRun(
        workload=labels.workload,
        routing=config.routing,
        seed=labels.seed,
        duration_s=span,
        requests=RequestCounts(
            sent=len(log), completed=answered, failed=len(log) - answered, by_error=_errors(log)
        ),
        resent=log.resent,
        request_per_s=answered / span,
        output_tokens_per_s=output / span,
        mean_input_tokens=prompt / max(1, answered),
        mean_output_tokens=output / max(1, answered),
        prefix_cache_hit=sum(log.cached_tokens) / max(1, prompt),
        ttft_ms=_milliseconds(log, log.ttft_s),
        tpot_ms=_milliseconds(log, log.tpot_s),
        e2e_ms=_milliseconds(log, log.e2e_s),
        queue_ms=_milliseconds(log, log.wait_s),
        slo=log.slo,
        kept_slo=kept,
        meets_slo=None if log.slo is None else keeps(log, log.slo),
        worst_window=min(
            (w for w in windows if w.requests >= FEW), key=lambda w: w.kept_slo or 0.0, default=None
        ),
        preemptions=log.preemptions,
        failures=log.failures,
        interruptions=log.interruptions,
        gpu_hours=sum(pool.gpu_hours for pool in pools),
        usd=usd,
        usd_per_day=None if usd is None else usd * DAY_S / span,
        usd_per_request=None if usd is None else usd / max(1, answered),
        usd_per_mtok_output=None if usd is None or not output else usd / output * 1e6,
        pools=pools,
        window_s=window_s,
        windows=windows,
        wall_s=time.perf_counter() - started,
        assumptions=labels.assumptions,
    )


def keeps(log: FleetLog, slo: Slo) -> bool:
    """Whether the share that the service level asks for kept it, of all that were sent."""
    return not log.abandoned and log.missed <= (1 - slo.percentile / 100) * len(log)


def _windows(config: FleetConfig, log: FleetLog, window_s: float) -> tuple[Window, ...]:
    count = max(1, math.ceil(log.end_s / window_s - 1e-9))
    members: list[list[int]] = [[] for _ in range(count)]
    for row, at in enumerate(log.at_s):
        members[min(count - 1, int(at // window_s))].append(row)
    names = [pool.name for pool in config.pools]
    rented = [[0.0] * count for _ in names]
    ready = [[0.0] * count for _ in names]
    for pool, since, until in log.billed():
        _spread(rented[pool], since, until, window_s)
    for replica in log.replicas:
        open_span = [(replica.ready_s, log.end_s)] if replica.state == "ready" else []
        for since, until in [*replica.ready_spans, *open_span]:
            _spread(ready[replica.pool_index], since, until, window_s)
    windows = []
    for number, rows in enumerate(members):
        length = min(window_s, log.end_s - number * window_s) or window_s
        costs = [
            None if pool.usd_per_hour is None else rented[index][number] / 3600 * pool.usd_per_hour
            for index, pool in enumerate(config.pools)
        ]
        windows.append(
            Window(
                start_s=number * window_s,
                requests=len(rows),
                request_per_s=len(rows) / length,
                failed=sum(log.outcome[row] != DONE for row in rows),
                input_tokens=sum(log.input_tokens[row] for row in rows if log.outcome[row] == DONE),
                output_tokens=sum(log.output_tokens[row] for row in rows),
                kept_slo=sum(log.kept[row] for row in rows) / len(rows) if rows else None,
                ttft_ms_p50=_at(log.ttft_s, rows, 50),
                ttft_ms_p90=_at(log.ttft_s, rows, 90),
                tpot_ms_p90=_at(log.tpot_s, rows, 90),
                queue_ms_p90=_at(log.wait_s, rows, 90),
                replicas={name: rented[i][number] / length for i, name in enumerate(names)},
                ready={name: ready[i][number] / length for i, name in enumerate(names)},
                usd=_total(costs),
            )
        )
    return tuple(windows)


def _spread(seconds: list[float], since: float, until: float, window_s: float) -> None:
    """Add a span's seconds to the windows it lies in."""
    number = int(since // window_s)
    while since < until and number < len(seconds):
        end = min(until, (number + 1) * window_s)
        seconds[number] += end - since
        since, number = end, number + 1


def _pool_use(index: int, pool: Pool, log: FleetLog, labels: FleetLabels) -> PoolUse:
    hours = math.fsum(until - since for own, since, until in log.billed() if own == index) / 3600
    counts = [replicas for _, own, replicas, _ in _settled_counts(log) if own == index] or [0]
    price = pool.usd_per_hour
    return PoolUse(
        name=pool.name,
        engine=labels.engines[pool.name],
        gpus=labels.gpus[pool.name],
        replicas_min=min(counts),
        replicas_max=max(counts),
        replicas_mean=hours * 3600 / max(log.end_s, 1e-9),
        started=sum(replica.pool_index == index and replica.started_s > 0 for replica in log.replicas),
        gpu_hours=hours * pool.gpus_per_replica,
        usd_per_replica_hour=price,
        usd=None if price is None else hours * price,
        startup_cold_s=pool.start.cold,
        startup_warm_s=pool.start.warm,
    )


def _settled_counts(log: FleetLog) -> list[tuple[float, int, int, int]]:
    """The counts that lasted: several changes at one instant are one."""
    last = {(at, pool): (at, pool, replicas, ready) for at, pool, replicas, ready in log.counts}
    return list(last.values())


def _errors(log: FleetLog) -> dict[str, int]:
    found: dict[str, int] = {}
    for outcome in log.outcome:
        if outcome != DONE:
            found[ERRORS[outcome]] = found.get(ERRORS[outcome], 0) + 1
    return found


def _answered_sum(log: FleetLog, column: Sequence[int]) -> int:
    return sum(value for value, outcome in zip(column, log.outcome, strict=True) if outcome == DONE)


def _milliseconds(log: FleetLog, column: Sequence[float]) -> Percentiles:
    kept = zip(column, log.outcome, strict=True)
    return percentiles([value * 1000 for value, outcome in kept if outcome == DONE and not isnan(value)])


def _at(column: Sequence[float], rows: Sequence[int], q: float) -> float | None:
    values = sorted(value for row in rows if not isnan(value := column[row]))
    return percentile(values, q) * 1000 if values else None


def _total(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return math.fsum(known) if len(known) == len(parts) else None

"""A fleet's run as values: latency, service level, replicas and money over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.facts import Basis, Slo, Value
from qwenhost.files import encode_document, read_document
from qwenhost.measurements import Percentiles, RequestCounts
from qwenhost.simulate.fleet_config import Routing

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = "qwenhost.fleet/1"


class Window(Value, frozen=True, kw_only=True):
    """A stretch of time; requests belong to the one in which they were first sent."""

    start_s: float
    requests: int
    request_per_s: float
    failed: int
    input_tokens: int
    """Of the answered requests, as the next."""
    output_tokens: int
    kept_slo: float | None
    """Share of the requests; None without any."""
    ttft_ms_p50: float | None
    ttft_ms_p90: float | None
    tpot_ms_p90: float | None
    queue_ms_p90: float | None
    """First sending to the scheduler's first look, gateway included."""
    replicas: Mapping[str, float]
    """By pool, mean over the time: rented ones, starting and draining included."""
    ready: Mapping[str, float]
    """By pool, mean over the time: those that take requests."""
    usd: float | None
    api_usd: float | None = None
    """The main API's bill for the window's requests."""


class PoolUse(Value, frozen=True, kw_only=True):
    """What a pool was used for and cost."""

    name: str
    engine: str
    gpus: str
    replicas_min: int
    """Fewest that were starting or ready, spare ones included."""
    replicas_max: int
    replicas_mean: float
    started: int
    """Ordered during the run."""
    gpu_hours: float
    usd_per_replica_hour: float | None
    usd: float | None
    startup_cold_s: Mapping[str, float]
    startup_warm_s: Mapping[str, float]


class ApiBill(Value, frozen=True, kw_only=True):
    """What an API charges for the requests that were answered."""

    id: str
    name: str
    usd: float
    usd_per_day: float
    cache_policy: str
    as_of: str
    source: str


class FleetRun(Value, frozen=True, kw_only=True):
    """One fleet against one load."""

    schema: str = SCHEMA
    simulated: Literal[True] = True
    basis: Basis = "modelled"
    workload: str
    routing: Routing
    seed: int
    duration_s: float
    """Rent and windows cover it; at least to the last answer."""
    requests: RequestCounts
    resent: int
    """Sendings after a replica was lost."""
    request_per_s: float
    output_tokens_per_s: float
    mean_input_tokens: float
    mean_output_tokens: float
    prefix_cache_hit: float
    """Share of the answered requests' prompt tokens."""
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    e2e_ms: Percentiles
    queue_ms: Percentiles
    slo: Slo | None
    kept_slo: float
    """Share of all requests sent, failed ones included."""
    meets_slo: bool | None
    worst_window: Window | None
    preemptions: int
    failures: int
    interruptions: int
    gpu_hours: float
    usd: float | None
    usd_per_day: float | None
    usd_per_request: float | None
    usd_per_mtok_output: float | None
    api: tuple[ApiBill, ...] = ()
    """The main one first."""
    pools: tuple[PoolUse, ...]
    window_s: float
    windows: tuple[Window, ...]
    wall_s: float
    assumptions: tuple[str, ...] = ()


def fleet_to_json(run: FleetRun) -> bytes:
    """Indented JSON."""
    return encode_document(run)


def load_fleet(path: Path) -> FleetRun:
    """Read a saved run.

    Raises:
        BadInputError: missing, unreadable, or not a fleet's run.
    """
    remedy = "Simulate with: qwenhost simulate --replicas 2 --days 1 --rate 5 --save fleet.json"
    return read_document(path, FleetRun, schema=SCHEMA, what="a fleet's run", remedy=remedy)

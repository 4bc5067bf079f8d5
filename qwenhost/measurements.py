"""What was observed: one record per request and the summary drawn from them.

The second waist (probe, simulate -> cost, report, calibration). JSON keys follow the
``qwenhost.measurements/1`` contract. All instants are seconds on one monotonic clock, relative to
the start of the run.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from qwenhost.facts import Slo, Value
from qwenhost.files import encode_document, read_document

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "qwenhost.measurements/1"


Instant = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""Seconds of a run; held where records are read, so that no figure drawn from them ends in infinity."""


class RequestRecord(Value, frozen=True, kw_only=True):
    """One request's life, in seconds since the run began."""

    index: Annotated[int, msgspec.Meta(ge=0, lt=10**9)]
    scheduled_s: Instant
    """When it was due; latency counts from here, so queueing in the client is not hidden."""
    sent_s: Instant
    first_byte_s: Instant | None = None
    first_token_s: Instant | None = None
    """First streamed token, thinking included."""
    first_visible_s: Instant | None = None
    """First token after thinking."""
    last_s: Instant | None = None
    """Last token."""
    token_times_s: tuple[Instant, ...] = ()
    """Arrival of every streamed chunk that carried tokens."""
    input_tokens: int = 0
    """The server's own count."""
    cached_tokens: int = 0
    output_tokens: int = 0
    """The server's own count, thinking included."""
    error: str | None = None
    """Kind of failure: ``refused``, ``timeout``, ``http_503``, ``cut_stream``, ``malformed_event``,
    ``zero_tokens``..."""
    http_status: int | None = None
    error_detail: str | None = None
    """What the server or the system said, shortened."""
    reasoning_tokens: int | None = None
    """The server's own count of thinking tokens, where it gives one."""
    session: int | None = None
    """Which session it belongs to, and which turn of it, from 0."""
    turn: int | None = None
    replica: int | None = None
    """Which of several URLs it was sent to, from 0."""
    tool_calls: int = 0
    """Calls of tools in the answer."""
    cache_written_tokens: int = 0
    """What Claude's API wrote into its prompt cache, and bills apart."""

    @property
    def ok(self) -> bool:
        """Whether it ended as it should."""
        return self.error is None

    @property
    def ttft_ms(self) -> float | None:
        """Due time to first token."""
        return None if self.first_token_s is None else (self.first_token_s - self.scheduled_s) * 1000

    @property
    def e2e_ms(self) -> float | None:
        """Due time to last token."""
        return None if self.last_s is None else (self.last_s - self.scheduled_s) * 1000

    @property
    def tpot_ms(self) -> float | None:
        """(last - first token) / (output tokens - 1); None below two tokens."""
        if self.last_s is None or self.first_token_s is None or self.output_tokens < 2:
            return None
        return (self.last_s - self.first_token_s) / (self.output_tokens - 1) * 1000

    @property
    def send_lag_ms(self) -> float:
        """How late the client sent it."""
        return (self.sent_s - self.scheduled_s) * 1000

    def meets(self, slo: Slo) -> bool:
        """Whether this request kept every limit of the service level."""
        limits = ((self.ttft_ms, slo.ttft_ms), (self.tpot_ms, slo.tpot_ms), (self.e2e_ms, slo.e2e_ms))
        return self.ok and all(limit is None or got is None or got <= limit for got, limit in limits)


class Percentiles(Value, frozen=True, kw_only=True):
    """A distribution; empty samples give None."""

    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


def percentile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between closest ranks (NumPy's default); ``ordered`` ascending, q in 0..100.

    Raises:
        ValueError: empty sample.
    """
    if not ordered:
        raise ValueError("percentile of an empty sample")
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def percentiles(sample: Sequence[float]) -> Percentiles:
    """Mean and the contract's percentiles of a sample."""
    if not sample:
        return Percentiles(mean=None, p50=None, p90=None, p95=None, p99=None)
    ordered = sorted(sample)
    return Percentiles(
        mean=math.fsum(ordered) / len(ordered),
        p50=percentile(ordered, 50),
        p90=percentile(ordered, 90),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
    )


class Load(Value, frozen=True, kw_only=True):
    """How load was offered."""

    kind: Literal["closed", "open"]
    concurrency: int | None = None
    rate: float | None = None
    """Requests per second."""
    arrivals: str | None = None
    """``poisson`` or ``constant`` for an open loop."""
    duration_s: float
    """First due time to last token."""
    warmup_requests: int = 0
    """Sent before the clock starts and discarded."""
    rate_window_s: tuple[float, float] | None = None
    """The part of the run over which rates are taken, in seconds since its start."""
    rate_window: Literal["steady", "whole"] | None = None
    """``steady``: first completion to last send; ``whole``: where that covers too little of the run."""


class RequestCounts(Value, frozen=True, kw_only=True):
    """How many, and what went wrong."""

    sent: int
    completed: int
    failed: int
    by_error: Mapping[str, int] = {}


class Lag(Value, frozen=True, kw_only=True):
    """How late the client was, in ms."""

    p50: float
    p99: float
    max: float


class Server(Value, frozen=True, kw_only=True):
    """Who answered."""

    name: str
    """``vllm``, ``simulated``, or what the endpoint says of itself."""
    version: str | None
    model: str
    url: str
    simulated: bool = False
    """A simulated engine's numbers are never measurements of hardware."""


class Goodput(Value, frozen=True, kw_only=True):
    """Requests and tokens that kept the service level."""

    slo: Slo
    requests_per_s: float
    output_tokens_per_s: float
    fraction: float
    """Of all requests sent, failed ones included."""


class MeasuredWorkload(Value, frozen=True, kw_only=True):
    """What was actually sent."""

    id: str
    endpoint: str
    mean_input_tokens: float
    mean_output_tokens: float
    mean_cached_tokens: float = 0.0
    thinking: bool | None = None
    prompts: str | None = None
    """How prompts were made and how their length was fitted."""
    seed: int | None = None
    image_tokens: float | None = None
    """Prompt tokens that the pictures of a request make, by the server's own count; None without any."""
    tools: int = 0
    """Definitions of tools in each request."""
    tool_calls: int = 0
    """In all answers."""


class SessionFigures(Value, frozen=True, kw_only=True):
    """What requests of sessions add to a run's figures."""

    sessions: int
    requests_per_session: float
    think_time_s: float
    """Mean that was asked for."""
    repeated_share: float
    """Of prompt tokens those that stood in the prompt of the turn before: what a cache should serve."""
    cached_share: float | None
    """Of prompt tokens those that the server's usage called cached; None where it does not say."""
    prefix_cache_hit_rate: float | None
    """By vLLM's own counters, in whole blocks; None where it has none."""
    ttft_first_turn_ms: Percentiles
    ttft_later_turns_ms: Percentiles


class UrlFigures(Value, frozen=True, kw_only=True):
    """One of several replicas."""

    url: str
    requests: RequestCounts
    output_tokens_per_s: float
    request_per_s: float
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    e2e_ms: Percentiles


class Spending(Value, frozen=True, kw_only=True):
    """What a run against a paid API cost; measured from the usage in its answers, warm-up not included."""

    usd: float
    max_usd: float
    """The cap given beforehand."""
    source: str
    """Of the prices."""


class Sampled(Value, frozen=True, kw_only=True):
    """Of a run with more requests than are held in memory: what was drawn from a sample of them."""

    records: int
    """In the sample; each request had the same chance to be there."""
    of: int
    """Requests."""
    rank_error: float
    """At 95 %, the p-th percentile of the sample is one of all requests' between p - x and p + x, as a
    share: 0.004 puts p50 between p49.6 and p50.4."""
    figures: tuple[str, ...]
    """Drawn from it; all others are of every request."""


class Measurements(Value, frozen=True, kw_only=True):
    """One run."""

    schema: str = SCHEMA
    workload: MeasuredWorkload
    load: Load
    requests: RequestCounts
    output_tokens_per_s: float
    input_tokens_per_s: float
    total_tokens_per_s: float
    request_per_s: float
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    itl_ms: Percentiles
    e2e_ms: Percentiles
    goodput: Goodput | None
    send_lag_ms: Lag
    void: bool = False
    void_reason: str | None = None
    server: Server
    engine_counters: Mapping[str, float] = {}
    """Deltas of the server's own counters over the run, where it has /metrics."""
    started_at: dt.datetime
    machine: Mapping[str, Any]
    """The client's machine: cpu, cores, python, qwenhost version."""
    first_visible_ms: Percentiles | None = None
    """Due time to the first token after thinking."""
    tokens_per_chunk: float | None = None
    """ITL counts chunks; above 1 where the server sends several tokens in one."""
    client: Mapping[str, float] = {}
    """The client's own fitness: ``loop_lag_p99_ms``, ``loop_lag_max_ms``, ``loop_busy_share``..."""
    warnings: tuple[str, ...] = ()
    """What a reader should know before using the numbers."""
    interrupted: bool = False
    gpus: str | None = None
    """Hardware of the server, e.g. ``2x NVIDIA H200``, where the caller knows it."""
    sessions: SessionFigures | None = None
    by_url: tuple[UrlFigures, ...] = ()
    """Where there are several."""
    spending: Spending | None = None
    confidence: Mapping[str, tuple[float, float]] = {}
    """95 % intervals of single figures, e.g. ``ttft_ms_p50: [212.0, 240.5]``; ``goodput_fraction`` too."""
    sampled: Sampled | None = None
    """None where every figure is of all requests."""


def goodput(records: Sequence[RequestRecord], slo: Slo, duration_s: float) -> Goodput:
    """Requests per second that met every limit, over the run's duration."""
    good = [record for record in records if record.meets(slo)]
    span = max(duration_s, 1e-9)
    return Goodput(
        slo=slo,
        requests_per_s=len(good) / span,
        output_tokens_per_s=sum(record.output_tokens for record in good) / span,
        fraction=len(good) / len(records) if records else 0.0,
    )


def measurements_to_json(measurements: Measurements) -> bytes:
    """Indented JSON."""
    return encode_document(measurements)


def load_measurements(path: Path) -> Measurements:
    """Read a saved run.

    Raises:
        BadInputError: missing, unreadable, or not a measurements file.
    """
    remedy = "Measure with: qwenhost probe URL --save measurements.json"
    return read_document(path, Measurements, schema=SCHEMA, what="a measurements file", remedy=remedy)

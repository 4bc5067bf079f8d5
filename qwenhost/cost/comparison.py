"""The verdict as data: both sides' bills, where they cross, how sure that is, and what it rests on.

JSON keys follow the ``qwenhost.comparison/1`` contract; more keys may come, these stay. A saved
comparison holds everything a report shows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from qwenhost.cost.api_cost import Breakdown
from qwenhost.cost.break_even import BreakEven
from qwenhost.cost.freshness import StaleFact
from qwenhost.cost.prompt_cache import CacheCheck, IdleSessions
from qwenhost.cost.quality import CostPerTaskRow, QualityRow
from qwenhost.cost.scenario import Scenario
from qwenhost.cost.self_host_cost import SelfHost
from qwenhost.cost.sensitivity import SensitivityRow
from qwenhost.cost.usage import CachePolicy, Usage
from qwenhost.errors import BadInputError
from qwenhost.facts import Positive, Value, Workload
from qwenhost.files import encode_document, read_document
from qwenhost.measurements import Measurements, Percentiles
from qwenhost.plan import MemoryBreakdown, SpeedEstimate

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "qwenhost.comparison/1"

Choice = Literal["self_host", "api"]
Confidence = Literal["high", "moderate", "low"]


class ApiLine(Value, frozen=True, kw_only=True):
    """One API's bill for the workload."""

    id: str
    name: str
    kind: Literal["claude", "hosted_qwen", "other"]
    provider: str
    is_baseline: bool
    cache_policy: CachePolicy
    usage: Usage
    """The mean request as billed."""
    usd_per_request: float
    usd_per_mtok_input: float
    """Effective: all input buckets over all input tokens."""
    usd_per_mtok_output: float
    usd_per_month: float
    breakdown: Breakdown
    """USD per request."""
    rate_limit_tier: str | None = None
    """Lowest tier that carries the peak; None = none published does, or none is published."""
    break_even_requests_per_day: float | None
    """Self-hosting against this line."""
    as_of: str
    source: str
    remarks: tuple[str, ...] = ()


class AssumptionLine(Value, frozen=True, kw_only=True):
    """Something the result rests on that nobody measured for you."""

    id: str
    statement: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    source: str = ""
    as_of: str = ""


class CurvePoint(Value, frozen=True, kw_only=True):
    """Both bills at one volume, USD per month."""

    requests_per_day: Positive
    self_host: float
    self_host_low: float
    """Cheapest GPU price, highest capacity."""
    self_host_high: float
    """Dearest GPU price, lowest capacity."""
    api: Mapping[str, float]
    """By API id."""


class HardwareOption(Value, frozen=True, kw_only=True):
    """The same node at another price of its GPUs."""

    label: str
    tier: str
    usd_per_gpu_hour: float
    usd_per_month: float
    """Everything, at the volume asked for."""
    break_even_requests_per_day: Positive | None
    min_gpus: int = 1
    basis: Literal["published", "modelled", "assumed"]
    source: str
    as_of: str


class DatedPrice(Value, frozen=True, kw_only=True):
    """What this workload's mean request cost from a day on."""

    id: str
    name: str
    since: str
    until: str | None
    usd_per_request: float
    usd_per_mtok_input: float
    """List rate of uncached input."""
    usd_per_mtok_output: float
    source: str
    as_of: str


class ThinkingRow(Value, frozen=True, kw_only=True):
    """The mean request with thinking on or off."""

    name: str
    thinking: bool
    output_tokens: float
    """Of the workload, before the API's own tokenizer."""
    usd_per_request: float
    source: str
    """Of the share spent thinking."""


class LoadPoint(Value, frozen=True, kw_only=True):
    """One run at one load."""

    load: str
    request_per_s: float
    output_tokens_per_s: float
    goodput_requests_per_s: float | None
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    started_at: str
    simulated: bool


class PlanSummary(Value, frozen=True, kw_only=True):
    """What is self-hosted, from the plan."""

    label: str
    repo_id: str
    revision: str | None
    quantization: str
    parallelism: str
    gpus: str
    gpu_count: int
    max_model_len: int
    max_num_seqs: int
    kv_cache_tokens: int
    memory_per_gpu: MemoryBreakdown
    estimate: SpeedEstimate
    objective: str
    vllm_version: str
    vllm_argv: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Verdict(Value, frozen=True, kw_only=True):
    """What a manager can quote."""

    choice: Choice
    """Between self-hosting and the baseline API, by cost alone."""
    headline: str
    sentence: str
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    confidence: Confidence
    confidence_reason: str


class Comparison(Value, frozen=True, kw_only=True):
    """The whole answer."""

    schema: str = SCHEMA
    generated_at: dt.datetime
    qwenhost_version: str
    catalog_digest: str
    as_of: str
    """Day of the API prices."""
    workload: Workload
    requests_per_day: float
    requests_per_day_given: bool
    """False: the volume one node carries."""
    simulated: bool
    """The rates come from a simulated engine."""
    predicted: bool
    """The rates come from the plan's speed model; nothing was measured."""
    verdict: Verdict
    self_host: SelfHost
    api: tuple[ApiLine, ...]
    """The baseline first."""
    break_even: BreakEven
    """Against the baseline."""
    sensitivity: tuple[SensitivityRow, ...]
    quality: tuple[QualityRow, ...]
    costs_per_task: tuple[CostPerTaskRow, ...]
    assumptions: tuple[AssumptionLine, ...]
    curve: tuple[CurvePoint, ...]
    hardware_options: tuple[HardwareOption, ...]
    plan: PlanSummary
    measured: Measurements | None
    cache_checks: tuple[CacheCheck, ...] = ()
    """The baseline's cache under simulated session gaps, beside the published share."""
    scenario: Scenario | None = None
    """What both bills are made of; prices any other volume."""
    price_history: tuple[DatedPrice, ...] = ()
    """What the workload's mean request cost at each dated Claude price, oldest first."""
    thinking: tuple[ThinkingRow, ...] = ()
    """Self-hosting, the baselines and the cheapest host, with thinking on and off."""
    load_curve: tuple[LoadPoint, ...] = ()
    """Runs at several loads, where there are."""
    stale: tuple[StaleFact, ...] = ()
    """Facts older than their stated age."""
    idle_sessions: IdleSessions | None = None
    """What the published share asks of one node's own cache."""

    @property
    def baseline(self) -> ApiLine:
        """The API the question is about."""
        return self.api[0]

    @property
    def cheapest_hosted(self) -> ApiLine | None:
        """The cheapest offer of the same open model, if any is priced."""
        hosted = [line for line in self.api if line.kind == "hosted_qwen"]
        return min(hosted, key=lambda line: line.usd_per_request, default=None)


def comparison_to_json(comparison: Comparison) -> bytes:
    """Indented JSON."""
    return encode_document(comparison)


def load_comparison(path: Path) -> Comparison:
    """Read a saved comparison.

    Raises:
        BadInputError: missing, unreadable or not a comparison.
    """
    remedy = "Make one with: qwenhost compare --gpus 2xH200 --save comparison.json"
    found = read_document(path, Comparison, schema=SCHEMA, what="a comparison", remedy=remedy)
    days = [found.as_of, *(day for row in found.price_history for day in (row.since, row.until) if day)]
    for day in days:
        try:
            dt.date.fromisoformat(day)
        except ValueError as error:
            raise BadInputError(f"{path}: not a comparison: {day!r} is no date", remedy=remedy) from error
    if not found.api:
        raise BadInputError(f"{path}: not a comparison: `$.api` names no price", remedy=remedy)
    for at, point in enumerate(found.curve):
        for line in found.api:
            if line.id not in point.api:
                where = f"`$.curve[{at}].api` has no {line.id!r}"
                raise BadInputError(f"{path}: not a comparison: {where}", remedy=remedy)
    return found

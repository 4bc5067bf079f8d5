"""What to do, from what matters to the user and what a comparison found: reasons, scores, costs, mixes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from qwenhost.cost.fine_tuning import FineTuning, fine_tuning
from qwenhost.cost.quality import QualityRow
from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.units import DAYS_PER_MONTH, format_usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.cost.comparison import Comparison
    from qwenhost.cost.scenario import Scenario
    from qwenhost.facts import Catalog, GpuSpec

SCHEMA = "qwenhost.advice/1"
Way = Literal["self_host", "hosted_qwen", "api"]
SHARES: Final = (0.25, 0.5, 0.75)
BENCHMARKS: Final[dict[str, tuple[str, ...]]] = {
    "multimodal": ("MMMU-Pro", "MMMU"),
    "coding": ("SWE-bench Verified", "Terminal-Bench 2"),
    "agentic": ("TAU2-bench", "Terminal-Bench 2", "OSWorld-Verified"),
    "science": ("GPQA Diamond",),
    "languages": ("MMMLU",),
}
"""Scores that speak for a need."""


class Needs(Value, frozen=True, kw_only=True):
    """What matters."""

    multimodal: bool = False
    open_weights: bool = False
    privacy: bool = False
    coding: bool = False
    agentic: bool = False
    science: bool = False
    languages: bool = False
    long_context: bool = False
    no_operations: bool = False


class Reason(Value, frozen=True, kw_only=True):
    """What one need says."""

    need: str
    speaks_for: Literal["self_host", "qwen", "api", "either"]
    text: str
    source: str = ""


class Option(Value, frozen=True, kw_only=True):
    """One way to serve the volume."""

    way: str
    name: str
    usd_per_month: float
    solved: float | None
    """Share of tasks one attempt solves, mean of the scores in question; None without scores."""
    usd_per_solved: float | None
    excluded_by: tuple[str, ...] = ()
    remark: str = ""


class Advice(Value, frozen=True, kw_only=True):
    """The answer."""

    schema: str = SCHEMA
    choice: str
    """``way`` of the option advised; ``none`` where the needs exclude every one."""
    headline: str
    reasons: tuple[Reason, ...]
    options: tuple[Option, ...]
    scores: tuple[QualityRow, ...]
    fine_tuning: FineTuning
    cautions: tuple[str, ...]
    requests_per_day: float
    workload: str
    hardware: str


def advise(catalog: Catalog, comparison: Comparison, needs: Needs, *, gpu: GpuSpec) -> Advice:
    """The cheapest way per solved task among those that the needs allow.

    Raises:
        BadInputError: a comparison saved before it kept its scenario.
    """
    scenario = comparison.scenario
    if scenario is None:
        raise BadInputError("the comparison holds no scenario", remedy="Make it anew with qwenhost compare.")
    scores = _scores(comparison, needs)
    options = _options(comparison, scenario, needs, scores)
    allowed = [option for option in options if not option.excluded_by]
    best = min(allowed, key=lambda o: o.usd_per_solved or o.usd_per_month, default=None)
    qwen, _ = _rates(scores)
    return Advice(
        choice="none" if best is None else best.way,
        headline=_headline(best, comparison),
        reasons=tuple(
            _reasons(comparison, needs, scores, catalog.api_prices[comparison.baseline.id].context_tokens)
        ),
        options=tuple(options),
        scores=tuple(scores),
        fine_tuning=fine_tuning(catalog, comparison, gpu, qwen_rate=qwen),
        cautions=comparison.verdict.cautions,
        requests_per_day=comparison.requests_per_day,
        workload=comparison.workload.id,
        hardware=comparison.self_host.hardware,
    )


def _headline(best: Option | None, comparison: Comparison) -> str:
    if best is None:
        return "No way satisfies all of these needs: privacy asks to run it yourself, no operations not to."
    each = "" if best.usd_per_solved is None else f", {format_usd(best.usd_per_solved)} a solved task"
    return (
        f"{best.name}: {format_usd(best.usd_per_month)} a month at "
        f"{comparison.requests_per_day:,.0f} requests a day{each}."
    )


def _scores(comparison: Comparison, needs: Needs) -> list[QualityRow]:
    """The user's own rates where given, else the pairs that speak for the needs, else all pairs."""
    pairs = [row for row in comparison.quality if row.unit == "%" and None not in (row.qwen, row.baseline)]
    if pairs and pairs[0].benchmark == "Your tasks":
        return pairs[:1]
    wanted = {name for need, names in BENCHMARKS.items() if getattr(needs, need) for name in names}
    return [row for row in pairs if row.benchmark in wanted] or pairs


def _rates(scores: Sequence[QualityRow]) -> tuple[float | None, float | None]:
    """Mean success rates of both models over the scores in question."""
    if not scores:
        return None, None
    qwen = sum(row.qwen or 0.0 for row in scores) / len(scores) / 100
    baseline = sum(row.baseline or 0.0 for row in scores) / len(scores) / 100
    return qwen, baseline


def _options(
    comparison: Comparison, scenario: Scenario, needs: Needs, scores: Sequence[QualityRow]
) -> list[Option]:
    offer = _Offers(comparison, needs, _rates(scores))
    return [*_single(offer, scenario), *_mixed(offer, scenario)]


class _Offers:
    """Makes options: cost of a solved task, and which need excludes them."""

    def __init__(
        self, comparison: Comparison, needs: Needs, rates: tuple[float | None, float | None]
    ) -> None:
        self.comparison = comparison
        self.qwen, self.baseline = rates
        self.volume = comparison.requests_per_day
        self._tasks = self.volume * DAYS_PER_MONTH / comparison.workload.requests_per_session
        closed = (("privacy", needs.privacy), ("open weights", needs.open_weights))
        self._bars: dict[Way, tuple[str, ...]] = {
            "self_host": ("no operations",) if needs.no_operations else (),
            "hosted_qwen": ("privacy",) if needs.privacy else (),
            "api": tuple(name for name, matters in closed if matters),
        }

    def option(
        self, way: str, name: str, usd: float, rate: float | None, *, uses: Sequence[Way], remark: str = ""
    ) -> Option:
        return Option(
            way=way,
            name=name,
            usd_per_month=usd,
            solved=rate,
            usd_per_solved=usd / (self._tasks * rate) if rate else None,
            excluded_by=tuple(dict.fromkeys(bar for use in uses for bar in self._bars[use])),
            remark=remark,
        )


def _single(offer: _Offers, scenario: Scenario) -> list[Option]:
    """All requests one way."""
    api, hosted = offer.comparison.baseline, offer.comparison.cheapest_hosted
    own, own_usd = offer.comparison.self_host, scenario.self_host_usd_per_month(offer.volume)
    found = [
        offer.option("self_host", own.name, own_usd, offer.qwen, uses=("self_host",)),
        offer.option("api", api.name, api.usd_per_month, offer.baseline, uses=("api",)),
    ]
    if hosted is not None:
        usd = hosted.usd_per_month
        found.append(offer.option("hosted_qwen", hosted.name, usd, offer.qwen, uses=("hosted_qwen",)))
    return found


def _mixed(offer: _Offers, scenario: Scenario) -> list[Option]:
    """Shares of the requests to either side, and the cascade that asks Qwen first."""
    api, qwen, baseline = offer.comparison.baseline, offer.qwen, offer.baseline
    known = qwen is not None and baseline is not None
    found = [
        offer.option(
            f"mixed_{share:.0%}".rstrip("%"),
            f"{share:.0%} self-hosted, {1 - share:.0%} to {api.name}",
            scenario.self_host_usd_per_month(offer.volume * share) + api.usd_per_month * (1 - share),
            share * (qwen or 0) + (1 - share) * (baseline or 0) if known else None,
            uses=("self_host", "api"),
            remark="share solved if sent at random; a router that picks the easy ones does better",
        )
        for share in SHARES
    ]
    if qwen is not None and baseline is not None:
        usd = scenario.self_host_usd_per_month(offer.volume) + api.usd_per_month * (1 - qwen)
        found.append(
            offer.option(
                "cascade",
                f"Self-hosted first, the {1 - qwen:.0%} it fails passed on to {api.name}",
                usd,
                qwen + (1 - qwen) * baseline,
                uses=("self_host", "api"),
                remark="failures must be noticed (tests, a checker); independent failures, so an upper bound",
            )
        )
    return found


def _reasons(
    comparison: Comparison, needs: Needs, scores: Sequence[QualityRow], context_tokens: int
) -> list[Reason]:
    side, api = comparison.self_host, comparison.baseline
    cheaper = side.usd_per_month < api.usd_per_month
    found = [
        Reason(
            need="volume",
            speaks_for="self_host" if cheaper else "api",
            text=(
                f"{comparison.requests_per_day:,.0f} requests a day cost {format_usd(side.usd_per_month)} a "
                f"month self-hosted and {format_usd(api.usd_per_month)} at {api.name}."
            ),
        )
    ]
    if needs.privacy:
        found.append(_said("privacy", "self_host", "Prompts and answers stay on machines you control."))
    if needs.open_weights:
        found.append(_said("open_weights", "qwen", "Apache-2.0 weights can be kept, audited and fine-tuned."))
    if needs.no_operations:
        text = f"Self-hosting takes people: {format_usd(side.monthly.staff)} a month are in its bill."
        found.append(_said("no_operations", "api", text))
    if needs.long_context:
        found.append(
            _said(
                "long_context", "api",
                f"{api.name} takes {context_tokens:,} tokens; this plan takes "
                f"{comparison.plan.max_model_len:,} (YaRN reaches further, at some loss on short prompts).",
            )
        )  # fmt: skip
    return found + [_score_reason(row, api.name) for row in scores]


def _score_reason(row: QualityRow, baseline: str) -> Reason:
    qwen, theirs = row.qwen or 0.0, row.baseline or 0.0
    unlike = "" if row.like_for_like else " (not like for like)"
    even = not row.like_for_like or qwen == theirs
    return Reason(
        need=row.benchmark,
        speaks_for="either" if even else "qwen" if qwen > theirs else "api",
        text=f"{row.benchmark}: Qwen3.5-122B-A10B {qwen:g} %, {baseline} {theirs:g} %{unlike}.",
        source=row.source,
    )


def _said(need: str, speaks_for: Literal["self_host", "qwen", "api"], text: str) -> Reason:
    return Reason(need=need, speaks_for=speaks_for, text=text)

"""What a solved task costs: published scores beside the bill, with what is not like for like said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwenhost.facts import Value

if TYPE_CHECKING:
    from qwenhost.facts import BenchmarkScore, Catalog

QWEN = "qwen3.5-122b-a10b"
SONNET = "claude-sonnet-4.6"


class Success(Value, frozen=True, kw_only=True):
    """Success rates of one attempt on the user's own tasks, and when to give up."""

    qwen: float | None = None
    baseline: float | None = None
    max_attempts: int | None = None
    """None = until success."""

    def solved(self, rate: float) -> float:
        """Share of tasks solved within the cap: 1 - (1 - rate)^attempts."""
        return 1.0 if self.max_attempts is None else 1 - (1 - rate) ** self.max_attempts

    def attempts(self, rate: float) -> float:
        """Mean attempts a task, solved or given up: share solved / rate."""
        return self.solved(rate) / rate


class QualityRow(Value, frozen=True, kw_only=True):
    """One benchmark, both models."""

    benchmark: str
    unit: str
    qwen: float | None
    baseline: float | None
    baseline_model: str
    like_for_like: bool
    remark: str
    qwen_usd_per_solved: float | None
    """USD per attempt over the score: attempts are repeated until one succeeds, each independent."""
    baseline_usd_per_solved: float | None
    source: str
    as_of: str
    qwen_attempts: float | None = None
    """Mean attempts a task until success or the cap."""
    baseline_attempts: float | None = None
    qwen_solved: float | None = None
    """Share of tasks solved within the cap."""
    baseline_solved: float | None = None


class CostPerTaskRow(Value, frozen=True, kw_only=True):
    """A published cost of one benchmark task at list prices."""

    benchmark: str
    model: str
    usd_per_task: float
    score: float
    usd_per_point: float
    """USD per task over the score, times 100."""
    remark: str
    source: str
    as_of: str


def quality_rows(
    catalog: Catalog,
    *,
    qwen_usd_per_attempt: float,
    baseline_usd_per_attempt: float,
    baseline_model: str,
    success: Success | None = None,
) -> tuple[QualityRow, ...]:
    """Every benchmark with a score of either model, the pairs first.

    An attempt is priced at the workload's cost (a whole session where sessions have several requests):
    usd_per_solved = usd_per_attempt / success rate, with or without a cap on attempts: a cap leaves tasks
    unsolved and saves their attempts in the same measure. Scores that are not success rates get none. The
    user's own rates come first.
    """
    cap = success or Success()
    names = dict.fromkeys(score.benchmark for score in catalog.benchmarks)
    rows = []
    for name in names:
        ours = _score(catalog, name, QWEN)
        theirs = _score(catalog, name, baseline_model)
        known = [score for score in (ours, theirs) if score is not None]
        if not known:
            continue
        rows.append(
            QualityRow(
                benchmark=name,
                unit=known[0].unit,
                qwen=ours.score if ours else None,
                baseline=theirs.score if theirs else None,
                baseline_model=baseline_model,
                like_for_like=all(score.like_for_like for score in known),
                remark=" ".join(dict.fromkeys(score.remark for score in known if score.remark)),
                qwen_usd_per_solved=_over(qwen_usd_per_attempt, _rate(ours)),
                baseline_usd_per_solved=_over(baseline_usd_per_attempt, _rate(theirs)),
                **_tries(cap, _rate(ours), _rate(theirs)),
                source="; ".join(dict.fromkeys(score.source.where for score in known)),
                as_of=max(score.source.as_of for score in known).isoformat(),
            )
        )
    rows.sort(key=lambda row: row.qwen is None or row.baseline is None)
    if success is None or (success.qwen is None and success.baseline is None):
        return tuple(rows)
    return (_own_row(success, qwen_usd_per_attempt, baseline_usd_per_attempt, baseline_model), *rows)


def cost_per_task_rows(catalog: Catalog) -> tuple[CostPerTaskRow, ...]:
    """Published costs per task, as they are."""
    return tuple(
        CostPerTaskRow(
            benchmark=row.benchmark,
            model=row.model,
            usd_per_task=row.usd_per_task,
            score=row.score,
            usd_per_point=row.usd_per_task / row.score * 100,
            remark=row.remark,
            source=row.source.where,
            as_of=row.source.as_of.isoformat(),
        )
        for row in catalog.costs_per_task
    )


def baseline_score_id(api_model: str) -> str:
    """The score list's name of an API model: ``claude-sonnet-4-6`` is listed as ``claude-sonnet-4.6``."""
    head, _, tail = api_model.rpartition("-")
    before = head.rpartition("-")[2]
    return f"{head}.{tail}" if tail.isdigit() and before.isdigit() else api_model


def _score(catalog: Catalog, benchmark: str, model: str) -> BenchmarkScore | None:
    return next((s for s in catalog.benchmarks if s.benchmark == benchmark and s.model == model), None)


def _own_row(
    success: Success, qwen_usd_per_attempt: float, baseline_usd_per_attempt: float, baseline_model: str
) -> QualityRow:
    qwen, baseline = success.qwen, success.baseline
    return QualityRow(
        benchmark="Your tasks",
        unit="%",
        qwen=None if qwen is None else round(qwen * 100, 6),
        baseline=None if baseline is None else round(baseline * 100, 6),
        baseline_model=baseline_model,
        like_for_like=True,
        remark="success rates as given",
        qwen_usd_per_solved=_over(qwen_usd_per_attempt, qwen),
        baseline_usd_per_solved=_over(baseline_usd_per_attempt, baseline),
        source="--success",
        as_of="",
        **_tries(success, qwen, baseline),
    )


def _tries(cap: Success, qwen: float | None, baseline: float | None) -> dict[str, Any]:
    return {
        "qwen_attempts": None if qwen is None else cap.attempts(qwen),
        "baseline_attempts": None if baseline is None else cap.attempts(baseline),
        "qwen_solved": None if qwen is None else cap.solved(qwen),
        "baseline_solved": None if baseline is None else cap.solved(baseline),
    }


def _rate(score: BenchmarkScore | None) -> float | None:
    return None if score is None or score.unit != "%" or score.score <= 0 else score.score / 100


def _over(usd_per_attempt: float, rate: float | None) -> float | None:
    return None if rate is None else usd_per_attempt / rate

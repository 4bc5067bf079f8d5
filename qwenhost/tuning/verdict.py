"""What a trial was worth, and which was best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qwenhost.measurements import Measurements
    from qwenhost.plan import Objective
    from qwenhost.tuning.state import Trial

SAME: Final = 1.01
"""Trials closer than this are equal: the earlier one, which the plan ranks higher, stays."""


class Score(NamedTuple):
    """Figures of a run."""

    output_tokens_per_s: float
    goodput_tokens_per_s: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    answer_s: float | None


def score_of(run: Measurements) -> Score:
    """The figures that trials are compared by."""
    answer_ms = run.e2e_ms.mean
    return Score(
        output_tokens_per_s=run.output_tokens_per_s,
        goodput_tokens_per_s=run.goodput.output_tokens_per_s if run.goodput else None,
        ttft_ms=run.ttft_ms.mean,
        tpot_ms=run.tpot_ms.mean,
        answer_s=None if answer_ms is None else answer_ms / 1000,
    )


def winner(trials: Iterable[Trial], objective: Objective) -> Trial | None:
    """The best measured one; None where none was measured.

    For cost, throughput and context: the most output tokens a second within the service level, the plain
    rate where there is none or no trial kept it. For latency: the quickest mean answer.
    """
    measured = [trial for trial in trials if trial.status == "measured"]
    by_goodput = any(trial.goodput_tokens_per_s for trial in measured)
    best: Trial | None = None
    for trial in measured:
        if best is None or _worth(trial, objective, by_goodput) > SAME * _worth(best, objective, by_goodput):
            best = trial
    return best


def _worth(trial: Trial, objective: Objective, by_goodput: bool) -> float:
    if objective == "latency":
        return 1 / trial.answer_s if trial.answer_s else 0.0
    rate = trial.goodput_tokens_per_s if by_goodput else trial.output_tokens_per_s
    return rate or 0.0

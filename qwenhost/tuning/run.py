"""One trial after another; what happens to each is written down before the next begins."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec

from qwenhost.errors import BadInputError, QwenhostError
from qwenhost.tuning.verdict import score_of, winner

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.measurements import Measurements
    from qwenhost.tuning.state import Trial, TuneState


def run_trials(
    state: TuneState,
    measure: Callable[[Trial], tuple[Measurements, str]],
    *,
    save: Callable[[TuneState], None],
    tell: Callable[[str], None],
) -> TuneState:
    """The state with every trial done and the winner named.

    Args:
        state: where an earlier run stopped, or the start; a trial found ``running`` was cut off.
        measure: runs a trial; gives what it measured and the name of the file it kept.
        save: keeps a state; called before and after each trial.
        tell: of progress, for people.

    Raises:
        BadInputError: what was asked cannot be run by any trial.
    """
    count = len(state.trials)
    for index, trial in enumerate(state.trials):
        if trial.is_done:
            tell(f"{index + 1}/{count} {trial.label}: {trial.status} before")
            continue
        again = " again, it was cut off" if trial.status == "running" else ""
        tell(f"{index + 1}/{count} {trial.label}{again}")
        state = _with(state, index, msgspec.structs.replace(trial, status="running"))
        save(state)
        done = _tried(trial, measure)
        tell(f"    {_outcome(done)}")
        state = _with(state, index, done)
        save(state)
    best = winner(state.trials, state.objective)
    state = msgspec.structs.replace(state, winner=best.id if best else None, updated_at=now())
    save(state)
    return state


def now() -> str:
    """ISO 8601, UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _tried(trial: Trial, measure: Callable[[Trial], tuple[Measurements, str]]) -> Trial:
    """A trial that cannot start or run is a result; a wrong option is the user's to mend."""
    try:
        run, file = measure(trial)
    except BadInputError:
        raise
    except QwenhostError as error:
        return msgspec.structs.replace(trial, status="failed", error=error.message)
    if not run.requests.completed:
        kinds = ", ".join(f"{kind} x{count}" for kind, count in run.requests.by_error.items())
        return msgspec.structs.replace(
            trial,
            status="failed",
            measurements=file,
            error=f"no request was answered ({kinds or 'none sent'})",
        )
    score = score_of(run)
    return msgspec.structs.replace(
        trial,
        status="void" if run.void else "measured",
        error=(run.void_reason or "void") if run.void else "",
        measurements=file,
        **score._asdict(),
    )


def _outcome(trial: Trial) -> str:
    if trial.status == "failed":
        return f"failed: {trial.error}"
    figures = f"{trial.output_tokens_per_s or 0:,.1f} output tokens/s"
    if trial.ttft_ms is not None and trial.tpot_ms is not None:
        figures += f", {trial.ttft_ms:,.0f} ms to the first token, {trial.tpot_ms:,.1f} ms per token"
    return f"void ({trial.error}): {figures}" if trial.status == "void" else figures


def _with(state: TuneState, index: int, trial: Trial) -> TuneState:
    trials = (*state.trials[:index], trial, *state.trials[index + 1 :])
    return msgspec.structs.replace(state, trials=trials, updated_at=now())

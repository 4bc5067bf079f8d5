"""Which of the plan's near-equals is best on this machine: trials, one after another, that can be resumed."""

from __future__ import annotations

from qwenhost.tuning.contenders import contenders
from qwenhost.tuning.run import run_trials
from qwenhost.tuning.state import Handover, Trial, TuneState, load_state, state_to_json
from qwenhost.tuning.verdict import Score, score_of, winner

__all__ = [
    "Handover",
    "Score",
    "Trial",
    "TuneState",
    "contenders",
    "load_state",
    "run_trials",
    "score_of",
    "state_to_json",
    "winner",
]

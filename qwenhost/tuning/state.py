"""Where a tuning stands: a file that is written after every step, so that a killed one goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.files import encode_document, read_document
from qwenhost.plan import Estimate, Objective

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = "qwenhost.tune/1"
STATE_FILE: Final = "state.json"

Status = Literal["waiting", "running", "measured", "void", "failed"]


class Trial(Value, frozen=True, kw_only=True):
    """One configuration, run once for a bounded time."""

    id: str
    """``trial-1``...: the name of its files."""
    label: str
    status: Status = "waiting"
    predicted_output_tokens_per_s: Estimate | None = None
    """None where nothing was predicted (a trial on the CPU)."""
    extra_args: tuple[str, ...] = ()
    """Flags of a trial without a plan."""
    measurements: str | None = None
    """File in the same folder."""
    output_tokens_per_s: float | None = None
    goodput_tokens_per_s: float | None = None
    """Of requests that kept the service level; None without one."""
    ttft_ms: float | None = None
    """Mean."""
    tpot_ms: float | None = None
    """Mean."""
    answer_s: float | None = None
    """Mean, from due to the last token."""
    error: str = ""
    """Why it is void or failed."""

    @property
    def is_done(self) -> bool:
        """Whether it needs no further run."""
        return self.status in ("measured", "void", "failed")


class Handover(Value, frozen=True, kw_only=True):
    """A service that was stopped for the trials and is to be started again."""

    name: str
    argv: tuple[str, ...]
    """Command line that started it; secrets never stand in it."""
    cwd: str
    needs_key: bool = False
    """Whether its key came by the environment, which is not stored."""


class TuneState(Value, frozen=True, kw_only=True):
    """A tuning at one moment; ``state.json``."""

    schema: str = SCHEMA
    question: str
    """Digest of what was asked: only the same question may be resumed."""
    asked: str
    """The question in words."""
    objective: Objective
    machine: str
    simulated: bool = False
    trials: tuple[Trial, ...]
    winner: str | None = None
    """Id of the best trial once all are done."""
    calibration: str | None = None
    """File of the user's profiles that the trials' lesson went to."""
    stopped: tuple[Handover, ...] = ()
    """Services that are still to be started again."""
    started_at: str
    updated_at: str


def state_to_json(state: TuneState) -> bytes:
    """Indented JSON."""
    return encode_document(state)


def load_state(folder: Path, question: str) -> TuneState | None:
    """The state of an earlier run in this folder; None where there is none.

    Raises:
        BadInputError: it is of another question, or damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    remedy = "Start over with --fresh, or name another --output-dir."
    state = read_document(path, TuneState, schema=SCHEMA, what="the state of a tuning", remedy=remedy)
    if state.question != question:
        raise BadInputError(
            f"{path} is of another question ({state.asked})",
            remedy=f"Give the same options to go on with it. {remedy}",
        )
    return state

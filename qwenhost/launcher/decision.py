"""What follows a failure: another start, one of the plan's fallbacks, or giving up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.launcher.failures import Failure
    from qwenhost.launcher.launch import FallbackCommand
    from qwenhost.launcher.restart import RestartHistory

MAX_FALLBACKS: Final = 3


@dataclass(frozen=True)
class Decision:
    """Exactly one of the two, or neither: give up."""

    fallback: FallbackCommand | None = None
    restart_after_s: float | None = None


def decide(
    failure: Failure,
    *,
    was_ready: bool,
    restarts: int,
    used: int,
    unused: Sequence[FallbackCommand],
    history: RestartHistory,
    now: float,
) -> Decision:
    """What to do about a failure.

    A start that once worked is not changed; one that never did is repeated only where the failure may pass.

    Args:
        failure: what went wrong.
        was_ready: whether the service ever was.
        restarts: so far.
        used: fallbacks so far.
        unused: the plan's fallbacks that are left, in its order.
        history: of restarts; counts this one if it is granted.
        now: seconds of the history's clock.
    """
    if not was_ready:
        if failure.trigger is not None and used < MAX_FALLBACKS:
            fallback = next((f for f in unused if f.trigger == failure.trigger), None)
            if fallback is not None:
                return Decision(fallback=fallback)
        if not failure.transient or restarts + 1 >= history.policy.max_first_starts:
            return Decision()
    return Decision(restart_after_s=history.next_delay_s(now))

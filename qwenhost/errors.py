"""What can go wrong, each with an exit code and the next step for the user.

Exit codes are a contract: 0 ok, 1 failed at run time, 2 usage or bad input, 3 no feasible plan,
4 endpoint or engine unavailable, 5 result void or SLO missed, 130 interrupted.
"""

from __future__ import annotations

from typing import Any


class QwenhostError(Exception):
    """Base of every error a user may see; caught once, in ``qwenhost.cli.main``.

    Args:
        message: what happened, naming the file, key or flag.
        remedy: what to do next, as an instruction.
    """

    exit_code = 1
    kind = "failed"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class BadInputError(QwenhostError):
    """A flag, file or key is not what was expected."""

    exit_code = 2
    kind = "bad_input"


class InfeasibleError(QwenhostError):
    """No plan fits the hardware, or a pinned choice is impossible.

    Args:
        message: what does not fit.
        remedy: what to do next.
        rejections: ``qwenhost.plan.Rejection`` values, each with its rule and figures.
    """

    exit_code = 3
    kind = "infeasible"

    def __init__(self, message: str, *, remedy: str = "", rejections: tuple[Any, ...] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.rejections = rejections


class UnavailableError(QwenhostError):
    """An endpoint, engine, driver or hub does not answer."""

    exit_code = 4
    kind = "unavailable"

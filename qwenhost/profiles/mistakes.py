"""A mistake in a profile file, where it stands and what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.errors import BadInputError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 20


class Mistake(Value, frozen=True, kw_only=True):
    """One mistake."""

    file: str
    line: int
    """From 1; 0 where the file as a whole is meant."""
    key: str
    """Path to the value, e.g. ``gpus[3].power_w``; empty for the file as a whole."""
    message: str
    """What is wrong and what was expected."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ProfileError(BadInputError):
    """One or more mistakes in profile files; all of them are kept in ``mistakes``."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        lines = [str(mistake) for mistake in mistakes[:SHOWN]]
        if len(mistakes) > SHOWN:
            lines.append(f"... and {len(mistakes) - SHOWN} more")
        super().__init__(
            "\n".join(lines),
            remedy="Correct the file; the keys of a kind are listed by: qwenhost profiles schema KIND",
        )
        self.mistakes = tuple(mistakes)

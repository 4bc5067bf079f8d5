"""A busy hub is asked again: a few times, as late as it says, never without end."""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from huggingface_hub.errors import HfHubHTTPError

from qwenhost.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How often and how late."""

    attempts: int = 4
    initial_s: float = 1.0
    """Doubles from one attempt to the next, where the hub names no time itself."""
    ceiling_s: float = 60.0
    """A hub that asks for a longer wait is taken at its word: the error is reported at once."""
    sleep: Callable[[float], object] = time.sleep

    def call(self, what: Callable[[], _T], say: Callable[[str], object]) -> _T:
        """The result of ``what``; raises its last error once the attempts are used up."""
        for attempt in range(1, self.attempts):
            try:
                return what()
            except HfHubHTTPError as error:
                wait_s = self._wait_s(error, attempt)
                if wait_s is None:
                    raise
                say(
                    f"the hub answered {error.response.status_code}, asking again in {format_seconds(wait_s)}"
                )
                self.sleep(wait_s)
        return what()

    def _wait_s(self, error: HfHubHTTPError, attempt: int) -> float | None:
        if error.response is None or error.response.status_code not in _BUSY:
            return None
        asked = retry_after_s(error.response.headers.get("retry-after", ""), now=time.time())
        wait_s = self.initial_s * 2 ** (attempt - 1) if asked is None else asked
        return wait_s if wait_s <= self.ceiling_s else None


def retry_after_s(header: str, *, now: float) -> float | None:
    """Seconds of a ``Retry-After`` header (RFC 9110, 10.2.3): a number or a date; None if neither.

    Args:
        header: its value.
        now: seconds since the epoch.
    """
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except ValueError:
        return None

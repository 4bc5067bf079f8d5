"""Which of several URLs a request goes to."""

from __future__ import annotations

from typing import Literal

import msgspec

SpreadOver = Literal["round-robin", "session"]


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Which URL a request goes to; a pure function, so that a resumed run spreads alike."""

    urls: int = 1
    sticky: bool = False
    """All requests of a session go where its first went."""

    def replica(self, index: int, session: int | None = None) -> int | None:
        """Its number from 0; None where there is one URL only."""
        if self.urls == 1:
            return None
        return (session if self.sticky and session is not None else index) % self.urls

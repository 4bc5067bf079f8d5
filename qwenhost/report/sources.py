"""Footnotes: every source once, numbered in the order of first use."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_URL = re.compile(r"https://[^\s;,<>\"']+")


@dataclass(slots=True)
class Sources:
    """Collects (where, date) pairs while the page is laid out."""

    seen: dict[tuple[str, str], int] = field(default_factory=dict)

    def ref(self, where: str, as_of: str = "") -> int | None:
        """Number of this source; None where none is given."""
        if not where:
            return None
        return self.seen.setdefault((where, as_of), len(self.seen) + 1)

    @property
    def notes(self) -> list[tuple[int, list[tuple[str, str]], str]]:
        """(number, [(text, link or nothing)], date), in order."""
        return [(number, linked(where), as_of) for (where, as_of), number in self.seen.items()]


def linked(text: str) -> list[tuple[str, str]]:
    """Text cut at its https addresses: (words, link); a link is followed only when clicked."""
    parts: list[tuple[str, str]] = []
    at = 0
    for match in _URL.finditer(text):
        if match.start() > at:
            parts.append((text[at : match.start()], ""))
        parts.append((match.group(), match.group()))
        at = match.end()
    if at < len(text):
        parts.append((text[at:], ""))
    return parts

"""A file of a repository, as the hub describes it."""

from __future__ import annotations

from qwenhost.facts import Value


class HubFile(Value, frozen=True, kw_only=True):
    """A file as the hub describes it."""

    name: str
    size_bytes: int | None
    sha256: str | None
    """None for small files, which git and not LFS stores."""

"""The parsed catalog beside the digest of its sources: YAML is slow, and most runs read the same files.

A convenience only: whatever goes wrong, the profiles are parsed again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from qwenhost import __version__
from qwenhost.errors import BadInputError
from qwenhost.facts import Catalog
from qwenhost.files import write_atomically

KEPT = 8


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/qwenhost/catalog``; ``~/.cache`` stands in for an unset variable."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()
    return root / "qwenhost" / "catalog"


def load(digest: str) -> Catalog | None:
    """The catalog of these sources, or None."""
    try:
        catalog = msgspec.json.decode(_path(digest).read_bytes(), type=Catalog)
    except (OSError, RuntimeError, msgspec.MsgspecError):
        return None
    return catalog if catalog.digest == digest else None


def save(catalog: Catalog) -> None:
    """Keep a catalog for the next run and drop the oldest ones."""
    with contextlib.suppress(OSError, RuntimeError, BadInputError):
        path = _path(catalog.digest)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, msgspec.json.encode(catalog), mode=0o600)
        kept = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in kept[KEPT:]:
            old.unlink(missing_ok=True)


def _path(digest: str) -> Path:
    return cache_dir() / f"{__version__}-{digest}.json"

"""Profile folders to a :class:`Catalog`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qwenhost
from qwenhost.errors import BadInputError
from qwenhost.facts import Catalog
from qwenhost.profiles import cache, rules
from qwenhost.profiles.mistakes import Mistake, ProfileError
from qwenhost.profiles.parse import Parsed, parse_file
from qwenhost.profiles.sheet import KINDS, by_id
from qwenhost.profiles.sources import sources_in

if TYPE_CHECKING:
    from collections.abc import Sequence

Folder = list[tuple[str, bytes]]
"""(path to show, content) of a folder's files, in order."""
_LISTS = ("gpu_prices", "benchmarks", "costs_per_task")


def builtin_dir() -> Path:
    """The profiles that come with qwenhost: inside an installed package, beside it in a checkout."""
    package = Path(qwenhost.__file__).parent
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "profiles"


def load_catalog(extra_dirs: Sequence[Path] = (), *, use_cache: bool = True) -> Catalog:
    """The built-in profiles with the given folders merged over them by id, later ones winning.

    Raises:
        ProfileError: with every mistake, each with file, line and key.
        BadInputError: a folder cannot be read.
    """
    folders = [_read(builtin_dir()), *(_read(path) for path in extra_dirs)]
    digest = _digest(folders)
    catalog = cache.load(digest) if use_cache else None
    if catalog is None:
        catalog = _build(folders, digest)
        if use_cache:
            cache.save(catalog)
    return catalog


def _read(path: Path) -> Folder:
    if not os.path.isdir(path):  # noqa: PTH112 - pathlib's fails on a name that is too long
        raise BadInputError(
            f"{path}: no such folder of profiles",
            remedy="Name a folder of YAML files with --profiles or QWENHOST_PROFILES.",
        )
    # Hidden names are left out: editors' locks, and the ..data folder behind a mounted ConfigMap.
    files = [
        file
        for file in sorted(path.rglob("*.y*ml"))
        if file.suffix in {".yaml", ".yml"}
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    try:
        return [(str(file), file.read_bytes()) for file in files]
    except OSError as error:
        raise BadInputError(
            f"{error.filename}: cannot be read: {error.strerror}", remedy="Check the file's rights."
        ) from error


def _digest(folders: Sequence[Folder]) -> str:
    """SHA-256 over the content of every file, in order; where the files lie does not matter."""
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(b"folder")
        for _, content in folder:
            digest.update(len(content).to_bytes(8, "big"))
            digest.update(content)
    return digest.hexdigest()


def _build(folders: Sequence[Folder], digest: str) -> Catalog:
    parsed: list[list[Parsed]] = []
    mistakes: list[Mistake] = []
    for folder in folders:
        files: list[Parsed] = []
        for file, content in folder:
            try:
                files.append(parse_file(file, content))
            except ProfileError as error:
                mistakes += error.mistakes
        mistakes += rules.duplicates(files)
        parsed.append(files)
    known = _merge(parsed)
    # References cannot be judged while a file that may hold the other end is unreadable.
    mistakes = mistakes or list(rules.broken(parsed, known))
    if mistakes:
        raise ProfileError(mistakes)
    return _catalog(known, digest)


def _merge(folders: Sequence[Sequence[Parsed]]) -> rules.Known:
    known: rules.Known = {kind: {} for kind in KINDS}
    for folder in folders:
        for file in folder:
            for kind in KINDS:
                known[kind].update(by_id(kind, getattr(file.sheet, kind)))
    return known


def _catalog(known: rules.Known, digest: str) -> Catalog:
    rows: dict[str, Any] = {
        kind: tuple(found.values()) if kind in _LISTS else found for kind, found in known.items()
    }
    dates = [s.as_of for found in known.values() for row in found.values() for s in sources_in(row)]
    return Catalog(**rows, digest=digest, newest_fact=max(dates))

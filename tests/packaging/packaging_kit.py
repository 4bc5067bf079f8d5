"""The tree copied and built, as a release is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NOT_OF_THE_TREE = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "demo-out", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis",
    ".coverage*",
)  # fmt: skip
EPOCH = "1700000000"
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)


class Built(NamedTuple):
    """A wheel and a source archive."""

    wheel: Path
    sdist: Path

    @property
    def wheel_files(self) -> dict[str, bytes]:
        """Name -> bytes of all in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    @property
    def sdist_names(self) -> set[str]:
        """Paths in the archive, without the folder that holds them all."""
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}


def copy_of_the_tree(target: Path) -> Path:
    """What a clone would hold."""
    return Path(shutil.copytree(ROOT, target, ignore=NOT_OF_THE_TREE))


def build(tree: Path, out: Path, **surroundings: str) -> Built:
    """Both archives, without a network."""
    built(tree, out, "--sdist", "--wheel", **surroundings)
    return Built(wheel=next(out.glob("*.whl")), sdist=next(out.glob("*.tar.gz")))


def built(tree: Path, out: Path, *what: str, **surroundings: str) -> None:
    """``python -m build``."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", out, tree],
        check=False, capture_output=True, text=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **surroundings},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def plain(name: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: Path) -> dict[str, set[str]]:
    """Name -> the versions that a lock has of it, over all Pythons and platforms."""
    found: dict[str, set[str]] = {}
    for match in PIN.finditer(lock.read_text()):
        found.setdefault(plain(match["name"]), set()).add(match["version"])
    return found

"""Put the bundle's pieces together; standard library only, for it runs before anything is installed.

    python assemble.py PIECES STORE SITE

Copies the pieces found in the folder PIECES (some or all) to STORE, checks each, and once STORE holds all
of them unpacks them to SITE, which then goes onto ``PYTHONPATH``. Ends with 0 when SITE stands, 75 while
pieces are missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import IO

MORE_TO_COME = 75
"""EX_TEMPFAIL of sysexits.h."""


class Joined:
    """The pieces read as one stream."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = list(paths)
        self._open: IO[bytes] | None = None

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        while True:
            if self._open is None:
                if not self._paths:
                    return b""
                self._open = self._paths.pop(0).open("rb")
            if data := self._open.read(size):
                return data
            self.close()

    def close(self) -> None:
        """Close the piece being read."""
        if self._open is not None:
            self._open.close()
        self._open = None


def main(pieces: Path, store: Path, site: Path) -> int:
    """Take what came, unpack when all is there."""
    if (site / ".complete").is_file():
        print(f"{site} stands already")
        return 0
    store.mkdir(parents=True, exist_ok=True)
    listing = pieces / "bundle.json"
    if listing.is_file():
        shutil.copy(listing, store / "bundle.json")
    bundle = json.loads((store / "bundle.json").read_text())
    lacking = [piece["name"] for piece in bundle["pieces"] if not have(piece, pieces, store)]
    if lacking:
        print(f"still to come: {', '.join(lacking)}")
        return MORE_TO_COME
    shutil.rmtree(site, ignore_errors=True)
    stream = Joined([store / piece["name"] for piece in bundle["pieces"]])
    with contextlib.closing(stream), tarfile.open(fileobj=stream, mode="r|xz") as archive:
        archive.extractall(site, filter="data")
    (site / ".complete").write_text(bundle["sha256"] + "\n")
    print(f"{site}: vLLM {bundle['vllm']} and {len(bundle['packages']) - 1} more packages")
    return 0


def have(piece: dict[str, str], pieces: Path, store: Path) -> bool:
    """Whether a piece is in the store, whole; one that just came is moved there first."""
    kept = store / piece["name"]
    if not kept.is_file() and (pieces / piece["name"]).is_file():
        shutil.copy(pieces / piece["name"], kept)
    if not kept.is_file():
        return False
    if hashlib.sha256(kept.read_bytes()).hexdigest() != piece["sha256"]:
        kept.unlink()
        print(f"{piece['name']} is damaged: bring it again")
        return False
    return True


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*map(Path, sys.argv[1:])))

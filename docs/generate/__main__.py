"""Write every generated file of the tree, or check them: ``python docs/generate [--check] [NAME ...]``.

Each module here named in ``MODULES`` says with ``made()`` which files it keeps and what belongs into them.
Later ones may read what earlier ones wrote.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent.parent
MODULES = {
    "chart_plans": "the plans and the ladder that the chart carries",
    "dashboard": "Grafana's dashboard",
    "chart_pages": "the chart's README, the reports of its examples, the Kustomize base",
    "figures": "the figures of the pages",
    "reference": "commands, profile fields and JSON Schemas",
    "readme": "outputs and tables in README.md and in two pages",
}


def main(argv: list[str]) -> int:
    """Write what is not current; with ``--check`` name it and return 1."""
    listed = "\n".join(f"  {name:12} {what}" for name, what in MODULES.items())
    parser = argparse.ArgumentParser(
        prog="docs/generate", description=f"Keep generated files current.\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="all, unless named")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is old")
    asked = parser.parse_args(argv)
    if unknown := set(asked.names) - set(MODULES):
        parser.error(f"no such NAME: {', '.join(sorted(unknown))}")
    stale = 0
    for name in MODULES:
        if not asked.names or name in asked.names:
            files = importlib.import_module(name).made()
            stale += len(check(files) if asked.check else write(files))
    return int(asked.check and stale > 0)


def old(files: Mapping[Path, str]) -> list[Path]:
    """Files that are missing or hold something else."""
    return [path for path, text in files.items() if not path.exists() or path.read_text() != text]


def check(files: Mapping[Path, str]) -> list[Path]:
    """Name the old ones."""
    found = old(files)
    for path in found:
        print(f"{path.relative_to(ROOT)} is not current: run make docs", file=sys.stderr)
    return found


def write(files: Mapping[Path, str]) -> list[Path]:
    """Write the old ones and leave the others' time stamps alone."""
    found = old(files)
    for path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
        print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

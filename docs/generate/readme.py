"""The generated parts of README.md and of two pages.

``<!-- run: COMMAND -->`` is followed by a fenced block with what the command prints;
``<!-- table: FILE [rows N] -->`` by the first table of a Markdown file, or by its first rows.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "README.md", *(ROOT / "docs" / name for name in ("speed.md", "simulate.md")))
RUN = re.compile(r"(<!-- run: (?P<command>.+?) -->\n)```[a-z]*\n(?:(?!```).*\n)*```")
TABLE = re.compile(r"(<!-- table: (?P<file>\S+)(?: rows (?P<rows>\d+))? -->\n)(?:\|.*\n?)*")


def output_of(command: str) -> str:
    """What a command of ours prints on a terminal of 100 columns, without colour."""
    words = shlex.split(command)
    program = Path(sys.executable).with_name(words[0])
    done = subprocess.run(
        [str(program), *words[1:]],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "COLUMNS": "100", "NO_COLOR": "1"},
    )
    return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


def first_table(file: str, rows: str | None) -> str:
    """The first table of a Markdown file, or its head and some rows."""
    lines = (ROOT / file).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    end = end if rows is None else min(end, start + 2 + int(rows))
    return "\n".join(lines[start:end]) + "\n"


def filled(text: str) -> str:
    """A page with every generated part made anew."""
    text = RUN.sub(lambda m: f"{m[1]}```text\n$ {m['command']}\n{output_of(m['command'])}\n```", text)
    return TABLE.sub(lambda m: m[1] + first_table(m["file"], m["rows"]), text)


def made() -> dict[Path, str]:
    """The pages, filled."""
    return {page: filled(page.read_text()) for page in PAGES}

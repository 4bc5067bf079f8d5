"""Files and functions stay small enough to be read at once."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
MOST_LINES_OF_A_FILE = 350
MOST_LINES_OF_A_FUNCTION = 60
FILES = sorted(path for folder in ("qwenhost", "docs", "k8s") for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """Its place in the tree, for the test's name."""
    return path.relative_to(ROOT).as_posix()


def long_functions(source: str, most: int) -> Iterator[tuple[str, int]]:
    """(name, lines) of functions beyond ``most``, from ``def`` to the last line; decorators do not count."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > most:
                yield node.name, lines


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_small(path: Path) -> None:
    """What grows beyond is divided by reason, not by length."""
    text = path.read_text()
    count = len(text.splitlines())
    assert count <= MOST_LINES_OF_A_FILE, f"{name_of(path)} has {count} lines"
    too_long = dict(long_functions(text, MOST_LINES_OF_A_FUNCTION))
    assert not too_long, f"{name_of(path)}: {too_long}"


def test_the_ruler_is_right() -> None:
    """Counted from ``def``: the decorator is left out, an inner function counts for both."""
    source = "@decorated\ndef outer():\n    async def inner():\n        pass\n    return inner\n"
    assert dict(long_functions(source, 0)) == {"outer": 4, "inner": 2}
    assert dict(long_functions(source, 3)) == {"outer": 4}
    assert not dict(long_functions(source, 4))

"""The engine arguments of a start, from vLLM's line ``non-default args: {...}``."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from qwenhost.launcher.phases import split_line

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE = re.compile(r"non-default args: (\{.*\})")
# A log may be cut or garbled anywhere: sets of sets, digits and nesting beyond reason included.
_NO_LITERAL = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)
# Where a value is no literal (``CompilationConfig(...)``), the plain ones beside it can still be read.
_PAIR = re.compile(
    r"'(\w+)': ('[^']*'|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|True|False|None|\{[^{}]*\}|\[[^\[\]]*\])"
)


def logged_arguments(text: str) -> dict[str, Any]:
    """By vLLM's names; empty where the log has no such line."""
    for raw in text.splitlines():
        match = _LINE.search(split_line(raw).text)
        if match:
            return _literal(match[1])
    return {}


def _literal(text: str) -> dict[str, Any]:
    try:
        found = ast.literal_eval(text)
    except _NO_LITERAL:
        return dict(_pairs(text))
    return found if isinstance(found, dict) else {}


def _pairs(text: str) -> Iterator[tuple[str, Any]]:
    for name, value in _PAIR.findall(text):
        try:
            yield name, ast.literal_eval(value)
        except _NO_LITERAL:
            continue

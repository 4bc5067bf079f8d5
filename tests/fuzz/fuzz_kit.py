"""What the fuzz tests share: a decorator that bounds them, and documents damaged in many ways.

In a normal run every test takes the same few examples. With QWENHOST_FUZZ_S=3600 each test goes on with new
ones until its share of that time is over:

    QWENHOST_FUZZ_S=3600 pytest tests/fuzz -p no:cacheprovider
"""

from __future__ import annotations

import copy
import functools
import io
import os
import time
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwenhost.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FUZZ_S: Final = float(os.environ.get("QWENHOST_FUZZ_S", "0"))
TESTS: Final = 32
"""About so many tests share the time."""
DOCUMENTED: Final = frozenset({0, 1, 2, 3, 4, 5})

LONG_NUMBER: Final = "9" * 5000
"""More digits than Python turns into a number by default."""
DEEP: Final = b"[" * 5000
"""Nested deeper than any reader's stack."""

ODD_TEXTS: Final = (
    "", " ", "²", "٣", "0", "-1", "1e999", "nan", "inf", "-inf", ",", "1,5", ".", "\x1b[31m", "\u2028", "é",
    "2026-13-45", "9999-12-31T23:59:59", "0001-01-01", "!!bool x", "{}", "[]", "null", "../..", LONG_NUMBER,
)  # fmt: skip
texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=20))
whole_numbers = st.one_of(
    st.sampled_from((0, 1, -1, 2, 2**31, 2**63 - 1, -(2**63), 2**64 - 1)), st.integers(-1000, 10**9)
)
numbers = st.one_of(
    whole_numbers,
    st.sampled_from((0.0, -0.0, 0.5, 5e-324, 1e-9, 1e9, 1e300, -1e300)),
    st.floats(allow_nan=False, allow_infinity=False),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
junk: st.SearchStrategy[Any] = st.one_of(
    leaves, st.lists(leaves, max_size=3), st.dictionaries(texts, leaves, max_size=3), st.builds(lambda: [[]])
)


def fuzzed(examples: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """So many examples, the same ones each time; in a long run new ones until the test's time is over."""

    def decorate(test: Callable[..., None]) -> Callable[[], None]:
        drawn = settings(
            max_examples=examples, deadline=None, derandomize=not FUZZ_S, database=None,
            suppress_health_check=list(HealthCheck),
        )(given(**strategies)(test))  # fmt: skip

        @functools.wraps(test)
        def bounded() -> None:
            until = time.monotonic() + FUZZ_S / TESTS
            drawn()
            while time.monotonic() < until:
                drawn()

        del bounded.__wrapped__  # pytest would ask for the drawn arguments
        return bounded

    return decorate


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document, itself included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in _places(one, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn, documents: Sequence[Any], most: int = 3) -> Any:
    """One of the documents with a few values replaced, left out, doubled, or joined by keys of no meaning."""
    document = {"": copy.deepcopy(draw(st.sampled_from(documents)))}
    for _ in range(draw(st.integers(0, most))):
        *path, last = draw(st.sampled_from(_places(document)[1:]))
        parent: Any = document
        for step in path:
            parent = parent[step]
        how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "add", "nudge")))
        if how == "remove" and path:
            del parent[last]
        elif how == "add" and isinstance(parent, dict) and path:
            parent[draw(texts)] = draw(junk)
        elif how == "nudge" and isinstance(parent[last], int | float):
            parent[last] = draw(whole_numbers if isinstance(parent[last], int) else numbers)
        elif how == "nudge" and isinstance(parent[last], str):
            parent[last] = draw(texts)
        else:
            parent[last] = draw(junk)
    return document.get("")


@st.composite
def damaged_bytes(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """One of the originals with pieces cut out, doubled, overwritten, or replaced by bytes of no meaning."""
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(0, 4))):
        begin, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        piece = draw(
            st.one_of(
                st.binary(max_size=8), texts.map(lambda text: text.encode("utf-8", "replace")),
                st.sampled_from((b"", data[begin:end] * 2, b"\n", b"\r", b"\x00", b'"', b"{", b"]", DEEP)),
            )
        )  # fmt: skip
        data = data[:begin] + piece + data[draw(st.sampled_from((begin, end))) :]
    return data


def command(*argv: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(list(argv))
    assert code in DOCUMENTED, (code, argv, err.getvalue())
    assert (code == 0) or out.getvalue() or err.getvalue(), f"exit {code} without a word: {argv}"
    return code, out.getvalue(), err.getvalue()

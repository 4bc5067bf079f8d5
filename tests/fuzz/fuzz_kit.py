"""What the fuzz tests share: a decorator that bounds them, and documents damaged in many ways.

In a normal run every test takes the same few examples. With QWENHOST_FUZZ_S=3600 each test goes on with new
ones until its share of that time is over:

    QWENHOST_FUZZ_S=3600 pytest tests/fuzz -p no:cacheprovider
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FUZZ_S: Final = float(os.environ.get("QWENHOST_FUZZ_S", "0"))
DOCUMENTED: Final = frozenset({0, 1, 2, 3, 4, 5, 130})

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


class Finding(msgspec.Struct):
    """Something that no input may bring about, with the shortest of those that did."""

    test: str
    what: str
    where: str
    example: str
    times: int = 1


class Tally:
    """What a long run did."""

    def __init__(self) -> None:
        self.tests = 1
        """Among which the time is shared; pytest counts them."""
        self.examples: Counter[str] = Counter()
        self.findings: dict[tuple[str, ...], Finding] = {}

    def add(self, test: str, drawn: Mapping[str, Any], error: BaseException) -> None:
        """One failure; those of one kind at one place count as one finding."""
        frames = [one for one in traceback.extract_tb(error.__traceback__) if "/qwenhost/" in one.filename]
        where = f"{frames[-1].filename.split('/qwenhost/')[-1]}:{frames[-1].lineno}" if frames else ""
        what = f"{type(error).__name__}: {error}"
        example = str(getattr(error, "__notes__", "") or drawn)[:LONGEST_EXAMPLE]
        key = (test, type(error).__name__, where or what[:60])
        known = self.findings.setdefault(key, Finding(test, what[:LONGEST_EXAMPLE], where, example, 0))
        known.times += 1
        if len(example) < len(known.example):
            known.example, known.what = example, what[:LONGEST_EXAMPLE]


TALLY: Final = Tally()
LONGEST_EXAMPLE: Final = 2000


def fuzzed(examples: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """So many examples, the same ones each time; in a long run new ones until the test's time is over.

    In a long run a failure does not end the test: all are tallied, and told of at the end.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        def tallied(**drawn: Any) -> None:
            name = test.__name__ + "".join(f"[{drawn[key]}]" for key in drawn if key not in strategies)
            TALLY.examples[name] += 1
            try:
                test(**drawn)
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                TALLY.add(name, {key: drawn[key] for key in strategies}, error)

        body = functools.wraps(test)(tallied) if FUZZ_S else test
        drawn = settings(
            max_examples=examples, deadline=None, derandomize=not FUZZ_S, database=None,
            suppress_health_check=list(HealthCheck),
        )(given(**strategies)(body))  # fmt: skip

        @functools.wraps(test)
        def bounded(**fixed: Any) -> None:
            until, before = time.monotonic() + FUZZ_S / TALLY.tests, len(TALLY.findings)
            drawn(**fixed)
            while time.monotonic() < until:
                drawn(**fixed)
            new = list(TALLY.findings.values())[before:]
            assert not new, "\n".join(f"{one.what} at {one.where}: {one.example}" for one in new)

        # pytest would ask for the drawn arguments.
        del bounded.__wrapped__
        ours = inspect.signature(test)
        left = [one for name, one in ours.parameters.items() if name not in strategies]
        vars(bounded)["__signature__"] = ours.replace(parameters=left)
        vars(bounded)["is_fuzzed"] = True
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

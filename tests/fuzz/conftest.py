"""A long run is not cut off by the time limit of a normal one, and keeps what it found."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from pathlib import Path

import msgspec
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / name) for name in ("probe", "kubernetes", "tensors")]

from fuzz_kit import FUZZ_S, TALLY  # noqa: E402 - the others' helpers first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No limit of pytest's: fuzz_run has one of its own for each example, and a user may ask for hours."""
    drawn = [item for item in items if hasattr(getattr(item, "function", None), "is_fuzzed")]
    for item in drawn:
        item.add_marker(pytest.mark.timeout(0))
    TALLY.tests = len(drawn) or 1


def pytest_sessionfinish() -> None:
    """The tally as JSON, where QWENHOST_FUZZ_REPORT names a file."""
    report = os.environ.get("QWENHOST_FUZZ_REPORT")
    if FUZZ_S and report:
        found = {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "seconds": FUZZ_S,
            "examples": sum(TALLY.examples.values()),
            "examples_by_target": dict(sorted(TALLY.examples.items())),
            "findings": msgspec.to_builtins(list(TALLY.findings.values())),
        }
        Path(report).write_text(json.dumps(found, indent=1) + "\n")

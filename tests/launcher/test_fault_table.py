"""The table of faults and the tests agree, both ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TABLE: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "fault_table.yaml").read_text())
ROWS: list[dict[str, str]] = TABLE["faults"]


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """Every test that pytest finds in the modules of the table, with and without its parameters."""
    modules = sorted({row["test"].partition("::")[0] for row in ROWS} | set(TABLE["modules"]))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *modules],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    ids = {line for line in done.stdout.splitlines() if "::" in line}
    assert ids, done.stdout + done.stderr
    return ids | {name.partition("[")[0] for name in ids}


def test_there_are_enough_rows_and_each_says_all_four_things() -> None:
    """Forty at least; no fault twice with the same words."""
    assert len(ROWS) >= 40
    assert all(set(row) == {"fault", "provoked", "asserted", "test"} and all(row.values()) for row in ROWS)
    assert len({row["fault"] for row in ROWS}) == len(ROWS)


def test_each_row_has_its_test(collected: set[str]) -> None:
    """By the name that pytest itself gives it."""
    assert [row["test"] for row in ROWS if row["test"] not in collected] == []
    assert [name for name in TABLE["ordinary"] if name not in collected] == []


def test_each_test_of_a_fault_has_its_row(collected: set[str]) -> None:
    """A row without parameters stands for all of its test's."""
    rows = {row["test"] for row in ROWS} | set(TABLE["ordinary"])
    missing = [
        name
        for name in sorted(collected)
        if name.partition("::")[0] in TABLE["modules"]
        and name not in rows
        and name.partition("[")[0] not in rows
        and not any(row.startswith(f"{name}[") for row in rows)
    ]
    assert missing == []

"""The tables as CSV, raw numbers that a program can add up; several runs at several loads."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import msgspec
from report_samples import SAMPLES, sweep

from qwenhost.cli.main import run as command
from qwenhost.cost import best_run
from qwenhost.measurements import measurements_to_json
from qwenhost.report import csv_tables, html

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def rows(text: str) -> list[dict[str, str]]:
    """A file's rows."""
    return list(csv.DictReader(io.StringIO(text)))


def test_every_table_has_a_file_with_the_values_of_the_comparison() -> None:
    """Offers, curve and tornado to the last digit."""
    found = SAMPLES["sweep"]
    tables = csv_tables(found)
    offers = rows(tables["offers.csv"])
    assert [row["id"] for row in offers] == [line.id for line in found.api]
    assert float(offers[0]["breakdown.output"]) == found.baseline.breakdown.output
    curve = rows(tables["curve.csv"])
    assert len(curve) == len(found.curve)
    assert float(curve[7]["api.claude-sonnet-4-6"]) == found.curve[7].api["claude-sonnet-4-6"]
    assert len(rows(tables["sensitivity.csv"])) == len(found.sensitivity)
    assert len(rows(tables["load_curve.csv"])) == 4


def test_a_table_without_rows_has_no_file() -> None:
    """One run has no load curve."""
    assert "load_curve.csv" not in csv_tables(SAMPLES["measured"])


def test_text_that_a_spreadsheet_would_run_is_quoted() -> None:
    """A leading equals sign."""
    found = SAMPLES["predicted"]
    line = msgspec.structs.replace(found.baseline, name="=1+1")
    offers = csv_tables(msgspec.structs.replace(found, api=(line,)))["offers.csv"]
    assert rows(offers)[0]["name"] == "'=1+1"


def test_of_several_runs_the_one_with_most_goodput_is_priced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four files on the command line; the curve has all four."""
    files = []
    for i, run in enumerate(sweep()):
        files.append(tmp_path / f"run{i}.json")
        files[-1].write_bytes(measurements_to_json(run))
    named = [word for file in files for word in ("--measurements", str(file))]
    argv = [
        "compare",
        "--gpus",
        "2xH200",
        "--csv",
        str(tmp_path / "tables"),
        "--as-of",
        "2026-11-23",
        "--json",
    ]
    assert command([*argv, *named]) == 0
    found = json.loads(capsys.readouterr().out)
    assert best_run(sweep()).request_per_s == 10.0
    assert found["measured"]["request_per_s"] == 10.0
    assert [point["request_per_s"] for point in found["load_curve"]] == [2.0, 5.0, 8.0, 10.0]
    assert (tmp_path / "tables" / "load_curve.csv").exists()
    assert command(["compare", "--gpus", "2xH200", "--csv", "/proc/nowhere/x"]) == 2


def test_the_page_draws_load_and_time() -> None:
    """Both plots with their tables."""
    page = html(SAMPLES["sweep"])
    assert 'id="load-760-t"' in page
    assert "Latency against load: the figures" in page
    assert "Prices over time: the figures" in page
    assert 'id="load-760-t"' not in html(SAMPLES["measured"])


def test_an_early_price_shows_in_the_timeline() -> None:
    """Sonnet 4.6 in two periods, the second from 2026-03-13."""
    assert [row.since for row in SAMPLES["predicted"].price_history] == ["2026-02-17", "2026-03-13"]

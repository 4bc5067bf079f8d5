"""Every table and plot of every sample: whole, within its frame, and the same figures as the comparison."""

from __future__ import annotations

import csv
import io
import math
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from report_samples import SAMPLES

from qwenhost.report import charts, over, plots, words
from qwenhost.report.cells import Cell, figure_cell
from qwenhost.report.csv_files import csv_tables
from qwenhost.report.sources import Sources
from qwenhost.report.tables import all_tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.cost import Comparison
    from qwenhost.report.cells import TableView

NAMES = sorted(SAMPLES)
TAGS = {"", "measured", "modelled", "assumed", "published", "simulated"}
DRAWINGS: dict[str, Callable[[Comparison, int], str]] = {
    "curve": plots.cost_curve,
    "bars": plots.request_bars,
    "tornado": plots.tornado,
    "memory": charts.memory_bar,
    "scores": charts.scores,
    "timeline": over.price_timeline,
    "latency": charts.latency,
}


@pytest.fixture(params=NAMES)
def comparison(request: pytest.FixtureRequest) -> Comparison:
    return SAMPLES[request.param]


@pytest.fixture
def tables(comparison: Comparison) -> dict[str, TableView]:
    return all_tables(comparison, Sources())


def test_every_row_is_as_wide_as_its_head(tables: dict[str, TableView]) -> None:
    for name, table in tables.items():
        assert table.caption, name
        for row in table.rows:
            assert len(row) == len(table.head), name
        assert all(0 < column < len(table.head) for column in table.text_columns), name


def test_no_cell_shows_what_is_no_figure(tables: dict[str, TableView]) -> None:
    """None, nan and inf are words of the program, not of the reader."""
    for name, table in tables.items():
        for row in table.rows:
            for cell in row:
                assert not re.search(r"\b(None|nan|inf|True|False)\b", cell.text), (name, cell.text)
                assert cell.tag in TAGS, (name, cell.tag)


def test_footnotes_are_numbered_without_a_gap_and_used(comparison: Comparison) -> None:
    sources = Sources()
    found = all_tables(comparison, sources)
    used = {cell.ref for table in found.values() for row in table.rows for cell in row if cell.ref}
    assert used == set(range(1, len(sources.seen) + 1))
    assert all(where for where, _ in sources.seen)


def test_a_source_is_noted_once() -> None:
    sources = Sources()
    assert [sources.ref("a", "1"), sources.ref("b"), sources.ref("a", "1"), sources.ref("a", "2")] == [
        1,
        2,
        1,
        3,
    ]
    assert sources.ref("") is None
    assert sources.ref("", "2026-11-23") is None


def test_offers_are_the_comparisons(comparison: Comparison, tables: dict[str, TableView]) -> None:
    """Self-hosting first, then every API, each with its month and its request."""
    rows = tables["offers"].rows
    assert len(rows) == 1 + len(comparison.api)
    assert rows[0][1].text == words.usd(comparison.self_host.usd_per_month)
    for row, line in zip(rows[1:], comparison.api, strict=True):
        assert row[1].text == words.usd(line.usd_per_month)
        assert row[2].text == words.usd(line.usd_per_request)
        assert row[1].tag == "published"
        assert (row[5].text == "never") == (line.break_even_requests_per_day is None)


def test_the_nodes_bill_adds_up_to_the_month(comparison: Comparison) -> None:
    month = comparison.self_host.monthly
    assert month.total == pytest.approx(comparison.self_host.usd_per_month)
    assert month.total == pytest.approx(
        month.nodes + month.storage + month.staff + month.start_ups + month.egress
    )


def test_memory_shares_are_of_one_whole(comparison: Comparison, tables: dict[str, TableView]) -> None:
    shares = [float(row[2].text.rstrip("%")) for row in tables["memory"].rows]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    sizes = [size for _, size, _ in charts.memory_rows(comparison.plan.memory_per_gpu)]
    assert sum(sizes) == comparison.plan.memory_per_gpu.total_bytes
    assert all(size >= 0 for size in sizes)


def test_sensitivity_ends_hold_what_is_used(comparison: Comparison) -> None:
    for row in comparison.sensitivity:
        assert row.low <= row.value <= row.high, row.name
        assert row.break_even_spread >= 1 or math.isinf(row.break_even_spread)


def test_bars_are_the_request_by_its_parts(comparison: Comparison) -> None:
    """The parts of a bar sum to what a request costs, egress and all."""
    totals = [sum(value for _, value, _ in parts) for _, _, parts in plots.bar_rows(comparison)]
    others = [line for line in comparison.api if line.kind != "hosted_qwen"]
    expected = [comparison.self_host.usd_per_request, *(line.usd_per_request for line in others)]
    assert totals[: len(expected)] == pytest.approx(expected)


def test_a_figure_with_a_band_shows_it_and_one_without_does_not(comparison: Comparison) -> None:
    rent = comparison.self_host.usd_per_gpu_hour
    cell = figure_cell(rent, "USD", Sources())
    assert cell.text.startswith(words.usd(rent.value))
    assert ("(" in cell.text) == (rent.low != rent.high)
    assert isinstance(cell, Cell)
    assert cell.ref == 1


def root_of(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own drawing


@pytest.mark.parametrize("width", [344, 760])
@pytest.mark.parametrize("name", DRAWINGS)
def test_every_drawing_is_well_formed_and_within_its_frame(
    comparison: Comparison, name: str, width: int
) -> None:
    """No coordinate is lost to a nan or drawn outside; texts may not leave the page."""
    root = root_of(DRAWINGS[name](comparison, width))
    _, _, wide, high = map(float, root.attrib["viewBox"].split())
    assert wide <= width
    for shape in root.iter():
        kind = shape.tag.rpartition("}")[2]
        if kind == "rect":
            x, y, w, h = (float(shape.attrib[key]) for key in ("x", "y", "width", "height"))
            assert -1 <= x <= x + w <= wide + 1, shape.attrib
            assert -1 <= y <= y + h <= high + 1, shape.attrib
        elif kind == "line":
            assert all(-1 <= float(shape.attrib[key]) <= wide + 1 for key in ("x1", "x2")), shape.attrib
            assert all(-1 <= float(shape.attrib[key]) <= high + 1 for key in ("y1", "y2")), shape.attrib
        elif kind == "text":
            assert -1 <= float(shape.attrib["x"]) <= wide + 1, shape.text
            assert 0 <= float(shape.attrib["y"]) <= high + 1, shape.text
        elif kind == "path":
            numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", shape.attrib["d"])]
            assert len(numbers) % 2 == 0
            assert all(-1 <= x <= wide + 1 for x in numbers[::2]), name
        assert "nan" not in str(shape.attrib)
        assert "inf" not in str(shape.attrib.get("d", ""))


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_drawing_says_what_it_shows(comparison: Comparison, name: str) -> None:
    root = root_of(DRAWINGS[name](comparison, 760))
    title, description = (root.find(f"{{*}}{tag}") for tag in ("title", "desc"))
    if title is None or description is None:  # without a namespace
        title, description = root.find("title"), root.find("desc")
    assert title is not None
    assert description is not None
    assert title.text
    assert len(description.text or "") > 15


def test_the_marked_break_even_is_where_the_bills_meet(comparison: Comparison) -> None:
    crossing = comparison.break_even
    svg = plots.cost_curve(comparison, 760)
    assert ("break-even" in svg) == (crossing.requests_per_day is not None)
    if crossing.requests_per_day is not None:
        assert words.count(crossing.requests_per_day) in svg


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_files_hold_the_raw_figures(comparison: Comparison) -> None:
    """Unrounded, one row for each line, and no empty file."""
    files = csv_tables(comparison)
    offers = read(files["offers.csv"])
    assert [float(row["usd_per_request"]) for row in offers] == [
        line.usd_per_request for line in comparison.api
    ]
    assert len(read(files["sensitivity.csv"])) == len(comparison.sensitivity)
    assert float(read(files["self_host.csv"])[0]["usd_per_month"]) == comparison.self_host.usd_per_month
    assert all(read(text) for text in files.values())
    assert ("load_curve.csv" in files) == bool(comparison.load_curve)


def test_csv_columns_are_the_same_in_every_row(comparison: Comparison) -> None:
    for name, text in csv_tables(comparison).items():
        rows = list(csv.reader(io.StringIO(text)))
        assert {len(row) for row in rows} == {len(rows[0])}, name
        assert len(set(rows[0])) == len(rows[0]), name


def test_no_csv_cell_is_a_formula(comparison: Comparison) -> None:
    """A spreadsheet runs what begins with =, +, - or @; figures may be negative."""
    for name, text in csv_tables(comparison).items():
        for row in csv.reader(io.StringIO(text)):
            for cell in row:
                formula = cell[:1] in ("=", "+", "-", "@")
                assert not formula or re.fullmatch(r"-\d[\d.e+-]*", cell), (name, cell)

"""The check that holds the lower layers to their branch coverage, on data counted by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from coverage import Coverage
from layer_coverage import Tally, main, reader, tallies, verdict
from test_layers import FILES, PACKAGE

if TYPE_CHECKING:
    from pathlib import Path

# Two branches with four ways out, of which two are taken; of eight statements "less" and "none" are not run.
SCRIPT = """\
def sign(number):
    if number < 0:
        return "less"
    if number > 0:
        return "more"
    return "none"

sign(1)
sign(2)
"""


@pytest.mark.parametrize(
    ("branches", "taken", "statements", "run", "percent"),
    [
        (0, 0, 0, 0, 100.0),  # an empty file lacks nothing
        (0, 0, 4, 3, 75.0),
        (20, 19, 100, 100, 95.0),
        (20, 20, 100, 94, 94.0),  # neither makes up for the other
        (20, 10, 100, 100, 50.0),
    ],
)
def test_the_lower_of_branches_and_statements_counts(
    branches: int, taken: int, statements: int, run: int, percent: float
) -> None:
    assert Tally("x", branches, taken, statements, run).percent == pytest.approx(percent)


def test_only_what_is_below_the_bar_fails_and_says_where() -> None:
    """95 % is enough; the missing lines stand under those that fall short and nowhere else."""
    lines, code = verdict(
        [Tally("units", 20, 19, 10, 10, ("units.py: 7",)), Tally("plan", 20, 18, 10, 10, ("plan/a.py: 3-4",))]
    )
    assert code == 1
    assert [line.split()[:2] for line in lines] == [["ok", "units"], ["below", "plan"], ["not", "run:"]]
    assert lines[2].strip() == "not run: plan/a.py: 3-4"
    assert verdict([Tally("units", 20, 19, 10, 10)])[1] == 0


def test_packages_are_summed_and_higher_layers_left_out() -> None:
    """In the order of layers; ``plan`` has two files here, ``planner`` is layer 4."""
    files = [PACKAGE / name for name in ("plan/a.py", "planner/c.py", "plan/b.py", "units.py")]

    def measured(path: Path) -> Tally:
        return Tally(path.name, 10, 9, 30, 28, (f"{path.name}: 1",))

    assert tallies(files, measured) == [
        Tally("units", 10, 9, 30, 28, ("units.py: 1",)),
        Tally("plan", 20, 18, 60, 56, ("a.py: 1", "b.py: 1")),
    ]


def test_every_lower_layer_is_looked_at() -> None:
    """A package that moves up a layer, or a new one below, is seen here."""
    found = tallies(FILES, lambda path: Tally(path.name, 0, 0, 0, 0))
    assert [one.name for one in found] == [
        "__init__", "errors", "units", "facts", "files", "hub", "node", "traces", "measurements", "plan",
        "token_counts",
    ]  # fmt: skip


def test_a_real_run_is_counted(tmp_path: Path) -> None:
    """Through coverage itself: a file that ran in part, and one that nothing imported."""
    script, idle = tmp_path / "script.py", tmp_path / "idle.py"
    script.write_text(SCRIPT)
    idle.write_text("if __debug__ is None:\n    print()\n")
    (tmp_path / "settings").write_text("[run]\nbranch = true\n")
    data = tmp_path / "data"
    options = ["--rcfile", "settings", "--data-file", str(data)]
    subprocess.run([sys.executable, "-m", "coverage", "run", *options, str(script)], cwd=tmp_path, check=True)
    coverage = Coverage(data_file=data, config_file=tmp_path / "settings")
    coverage.load()
    measured = reader(coverage, tmp_path)
    assert measured(script) == Tally("script.py", 4, 2, 8, 6, ("script.py: 3, 6",))
    assert measured(idle)._replace(missing=()) == Tally("idle.py", 2, 0, 2, 0)


def test_no_data_is_no_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the run left nothing behind, all of it counts as not run."""
    assert main(str(tmp_path / "none")) == 1
    said = capsys.readouterr().out
    assert "below  units" in said
    assert "qwenhost/units.py: " in said

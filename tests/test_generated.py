"""Generated files are what their generator makes now, and its ``--check`` can tell."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "generate"
NAMES = ("chart_plans", "dashboard", "chart_pages", "figures", "reference", "readme")


def generate(*words: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    """``python docs/generate WORDS``."""
    return subprocess.run([sys.executable, folder, *words], check=False, capture_output=True, text=True)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_current(name: str) -> None:
    """A change of program, planner, prices or chart without ``make docs`` is noticed."""
    done = generate("--check", name)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_every_generator_is_listed_and_tested() -> None:
    """A module beside the entry point is one of its names, so that none is forgotten."""
    tree = ast.parse((FOLDER / "__main__.py").read_text())
    (listed,) = (
        [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    )
    assert set(listed) == {path.stem for path in FOLDER.glob("*.py")} - {"__main__"}
    assert set(listed) == set(NAMES)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A tree with the same entry point and generators of two lines each."""
    folder = tmp_path / "docs" / "generate"
    folder.mkdir(parents=True)
    (folder / "__main__.py").write_text((FOLDER / "__main__.py").read_text())
    for name in NAMES:
        made = f"{{Path({str(tmp_path / 'out' / name)!r}): {name!r}}}"
        (folder / f"{name}.py").write_text(f"from pathlib import Path\ndef made():\n    return {made}\n")
    return folder


def test_check_writes_nothing_and_names_each_old_file(small: Path) -> None:
    """Missing counts as old; 1 until all is written, then 0."""
    before = generate("--check", folder=small)
    assert before.returncode == 1
    assert [line.split()[0] for line in before.stderr.splitlines()] == [f"out/{name}" for name in NAMES]
    assert not (small.parent.parent / "out").exists()
    assert generate(folder=small).returncode == 0
    after = generate("--check", folder=small)
    assert (after.returncode, after.stderr) == (0, "")


def test_one_name_leaves_the_others_alone(small: Path) -> None:
    """Only what is named is made; what is current keeps its time stamp."""
    out = small.parent.parent / "out"
    assert generate("figures", folder=small).stderr == "wrote out/figures\n"
    assert [path.name for path in out.iterdir()] == ["figures"]
    stamp = (out / "figures").stat().st_mtime_ns
    assert not generate("figures", folder=small).stderr
    assert (out / "figures").stat().st_mtime_ns == stamp
    (out / "figures").write_text("by hand")
    assert generate("--check", "figures", "readme", folder=small).returncode == 1
    assert (out / "figures").read_text() == "by hand"


def test_an_unknown_name_is_refused(small: Path) -> None:
    """Exit 2, and the word is quoted."""
    done = generate("--check", "figurse", folder=small)
    assert done.returncode == 2
    assert "figurse" in done.stderr

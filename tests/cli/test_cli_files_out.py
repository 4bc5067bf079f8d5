"""Every file that a command writes: whole or not at all, and told before work where it cannot be."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qwenhost.cost import load_comparison
from qwenhost.plan import load_plan

if TYPE_CHECKING:
    from cli_kit import Cli

G = ["--gpus", "2xH200"]
FEW = ["--requests", "20", "--rate", "2"]
# Command with {} where the file stands; the text that begins what is written.
WRITERS: dict[str, tuple[list[str], str]] = {
    "plan --save": (["plan", *G, "--save", "{}"], '{\n  "schema": "qwenhost.plan/1"'),
    "plan --html": (["plan", *G, "--pareto", "--html", "{}"], "<!doctype html>"),
    "render --output": (["render", "{plan}", "-f", "compose", "-o", "{}"], "# Made by qwenhost"),
    "render --json --output": (["render", "{plan}", "-f", "env", "-o", "{}", "--json"], "# Made by qwenhost"),
    "compare --save": (["compare", "--plan", "{plan}", "--save", "{}"], '{\n  "schema": "qwenhost.comp'),
    "compare --html": (["compare", "--plan", "{plan}", "--html", "{}"], "<!doctype html>"),
    "report --html": (["report", "{comparison}", "--html", "{}"], "<!doctype html>"),
    "simulate --save": (
        ["simulate", "--plan", "{plan}", "--replicas", "1", *FEW, "--save", "{}"],
        '{\n  "schema": "qwenhost.fleet/1"',
    ),
    "k8s plan": (["k8s", "plan", "{nodes}", "-o", "{}"], "# Made by qwenhost"),
}  # fmt: skip
EVERY = pytest.mark.parametrize("writer", WRITERS)


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One node of a cluster with two H200, as kubectl prints it."""
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-H200",
        "nvidia.com/gpu.count": "2",
        "nvidia.com/gpu.memory": "143771",
    }
    node = {
        "kind": "Node",
        "metadata": {"name": "n1", "labels": labels},
        "spec": {},
        "status": {
            "allocatable": {"nvidia.com/gpu": "2", "cpu": "64", "memory": "1000Gi"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    path = tmp_path_factory.mktemp("nodes") / "nodes.json"
    path.write_text(json.dumps({"kind": "List", "items": [node]}))
    return path


@pytest.fixture
def words(saved: Path, compared: Path, nodes: Path) -> dict[str, str]:
    return {"plan": str(saved), "comparison": str(compared), "nodes": str(nodes)}


@EVERY
def test_the_file_is_written_whole(cli: Cli, writer: str, words: dict[str, str], tmp_path: Path) -> None:
    """Readable by others, nothing beside it, and told on stderr."""
    path = tmp_path / "out"
    done = cli(*(word.format(path, **words) for word in WRITERS[writer][0]))
    assert done.code == 0, done.err
    assert path.read_text().lower().startswith(WRITERS[writer][1].lower())
    assert path.stat().st_mode & 0o777 == 0o644
    assert [found.name for found in tmp_path.iterdir()] == ["out"], "no temporary file stays"
    assert str(path) in done.err


@EVERY
def test_a_folder_that_is_not_there_is_told(
    cli: Cli, writer: str, words: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "nowhere" / "out"
    done = cli(*(word.format(path, **words) for word in WRITERS[writer][0]))
    assert done.code == 2
    assert str(path) in done.err
    assert "Traceback" not in done.err
    assert not path.parent.exists(), "folders that nobody asked for are not made"


@EVERY
def test_a_folder_in_its_place_is_left_alone(
    cli: Cli, writer: str, words: dict[str, str], tmp_path: Path
) -> None:
    """The old one cannot be replaced by a file; what is in it stays."""
    path = tmp_path / "out"
    path.mkdir()
    (path / "keep").write_text("mine")
    done = cli(*(word.format(path, **words) for word in WRITERS[writer][0]))
    assert done.code == 2
    assert str(path) in done.err
    assert (path / "keep").read_text() == "mine"
    assert [found.name for found in tmp_path.iterdir()] == ["out"]


@EVERY
def test_an_existing_file_survives_a_full_disk(
    cli: Cli, writer: str, words: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while the new one is written: the old one stays, byte for byte, and nothing else."""
    path = tmp_path / "out"
    path.write_text("of last week")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = cli(*(word.format(path, **words) for word in WRITERS[writer][0]))
    assert done.code == 2
    assert f"{path}: cannot write: No space left on device" in " ".join(done.err.split())
    assert path.read_text() == "of last week"
    assert [found.name for found in tmp_path.iterdir()] == ["out"]


@EVERY
def test_an_interruption_while_writing_leaves_the_old_file(
    cli: Cli, writer: str, words: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the last step: exit 130, the old file as it was."""
    path = tmp_path / "out"
    path.write_text("of last week")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    done = cli(*(word.format(path, **words) for word in WRITERS[writer][0]))
    assert done.code == 130
    assert done.err.rstrip().endswith("Interrupted.")
    assert path.read_text() == "of last week"
    assert [found.name for found in tmp_path.iterdir()] == ["out"], "no half of the new one"


@EVERY
def test_a_link_keeps_pointing_where_it_does(
    cli: Cli, writer: str, words: dict[str, str], tmp_path: Path
) -> None:
    """The file behind it is replaced, whole."""
    target, path = tmp_path / "target", tmp_path / "out"
    target.write_text("of last week")
    path.symlink_to(target)
    assert cli(*(word.format(path, **words) for word in WRITERS[writer][0])).code == 0
    assert path.readlink() == target
    assert target.read_text().lower().startswith(WRITERS[writer][1].lower())
    assert sorted(found.name for found in tmp_path.iterdir()) == ["out", "target"]


def test_what_cannot_be_planned_writes_no_plan(cli: Cli, tmp_path: Path) -> None:
    """Exit 3 leaves the plan of before."""
    path = tmp_path / "plan.json"
    path.write_text("of last week")
    done = cli("plan", "--gpus", "1xL40S", "--checkpoint", "bf16", "--save", path)
    assert done.code == 3
    assert path.read_text() == "of last week"


def test_a_saved_plan_is_what_json_prints(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    done = cli("plan", *G, "--save", path, "--json")
    assert done.data == json.loads(path.read_bytes())
    assert done.data["chosen"]["vllm_argv"] == list(load_plan(path).chosen.vllm_argv)


def test_the_same_question_gives_the_same_bytes(cli: Cli, tmp_path: Path) -> None:
    """A plan can be kept in version control."""
    for name in ("a", "b"):
        assert cli("plan", *G, "--workload", "rag", "--save", tmp_path / name).code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_saved_comparison_is_what_json_prints(cli: Cli, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    done = cli("compare", "--plan", saved, "--save", path, "--json")
    assert done.data == json.loads(path.read_bytes())
    assert load_comparison(path).workload.id == "chat"


def test_csv_tables_come_into_a_folder_that_is_made(cli: Cli, compared: Path, tmp_path: Path) -> None:
    """Each with a head and as many cells in every row."""
    folder = tmp_path / "a" / "b"
    done = cli("report", compared, "--csv", folder)
    assert done.code == 0
    tables = sorted(folder.iterdir())
    assert len(tables) >= 4
    for table in tables:
        rows = list(csv.reader(table.read_text().splitlines()))
        assert len(rows) >= 2, table.name
        assert len({len(row) for row in rows}) == 1, table.name
    assert cli("compare", "--plan", compared, "--csv", folder).code == 2, "a comparison is no plan"


@pytest.mark.parametrize("option", ["--csv", "--output-dir"])
def test_a_folder_that_cannot_be_made_is_told(cli: Cli, saved: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    done = cli("compare", "--plan", saved, option, tmp_path / "file" / "inside")
    assert done.code == 2
    assert f"{option} {tmp_path / 'file' / 'inside'}: Not a directory" in " ".join(done.err.split())


def test_an_output_folder_gets_every_piece(cli: Cli, saved: Path, tmp_path: Path) -> None:
    """The plan and what it costs; measurements only where something was measured."""
    done = cli("compare", "--plan", saved, "--output-dir", tmp_path / "verdict")
    assert done.code == 0
    found = {path.name for path in (tmp_path / "verdict").iterdir()}
    assert found == {"plan.json", "comparison.json", "report.html"}
    assert load_plan(tmp_path / "verdict" / "plan.json").chosen == load_plan(saved).chosen


def test_a_file_named_on_its_own_goes_where_it_was_named(cli: Cli, saved: Path, tmp_path: Path) -> None:
    done = cli("compare", "--plan", saved, "--output-dir", tmp_path / "v", "--html", tmp_path / "own.html")
    assert done.code == 0
    assert (tmp_path / "own.html").exists()
    assert not (tmp_path / "v" / "report.html").exists()


def test_relative_names_are_of_the_working_folder(cli: Cli, tmp_path: Path) -> None:
    assert cli("plan", *G, "--save", "plan.json").code == 0
    assert cli("render", "plan.json", "-o", "run.sh").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "run.sh"]
    assert str(Path("plan.json").absolute()) not in Path("run.sh").read_text(), "argv needs no plan file"

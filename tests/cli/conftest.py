"""One plan, one comparison and one catalog for all tests of the command line."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "probe"))

from cli_kit import PROBED, Outcome
from truth_process import Truth

from qwenhost.cli.main import run
from qwenhost.plan import load_plan
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.facts import Catalog
    from qwenhost.plan import Plan

    Cli = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder and services of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWENHOST_STATE_DIR", str(tmp_path.parent / f"{tmp_path.name}-state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path.parent / f"{tmp_path.name}-config"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """``cli("plan", "--gpus", "2xH200")`` runs it here and gives what came out."""

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def once() -> Cli:
    """The same, for fixtures that serve many tests."""

    def call(*words: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([str(word) for word in words])
        return Outcome(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def known() -> Catalog:
    return load_catalog()


@pytest.fixture(scope="session")
def saved(once: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan for the chat workload on two H200."""
    path = tmp_path_factory.mktemp("cli-plan") / "plan.json"
    assert once("plan", "--gpus", "2xH200", "--save", path).code == 0
    return path


@pytest.fixture(scope="session")
def chat_plan(saved: Path) -> Plan:
    return load_plan(saved)


@pytest.fixture(scope="session")
def compared(once: Cli, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That plan's comparison at 50,000 requests a day."""
    path = tmp_path_factory.mktemp("cli-comparison") / "comparison.json"
    assert once("compare", "--plan", saved, "--requests-per-day", "50000", "--save", path).code == 0
    return path


@pytest.fixture
def damaged(tmp_path: Path) -> dict[str, Path]:
    """Files that are none of ours, by what is wrong with them."""
    inside = tmp_path / "damaged"
    inside.mkdir()
    bodies = {
        "empty": b"",
        "binary": b"\xff\xfe\x00\x01",
        "list": b"[]",
        "null": b"null",
        "another schema": b'{"schema": "qwenhost.nothing/9"}',
        "cut off": b'{"schema": "qwenhost.plan/1", "inputs": {',
        "deep": b'{"a":' * 3_000,
    }
    found = {}
    for name, body in bodies.items():
        found[name] = inside / f"{name.replace(' ', '-')}.json"
        found[name].write_bytes(body)
    return found | {"missing": inside / "nowhere.json", "a folder": inside}


@pytest.fixture(scope="session")
def truth() -> Iterator[Truth]:
    server = Truth()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def recorded(once: Cli, truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten requests of four tokens, 0.3 s to the first and 10 ms between; ``m.json`` and ``p.html`` beside."""
    folder = tmp_path_factory.mktemp("recorded")
    files = ("--records", folder / "run.jsonl", "--save", folder / "m.json", "--html", folder / "p.html")
    done = once("probe", truth.url("ttft=0.3,itl=0.01"), *PROBED, *files)
    assert done.code in {0, 5}, done.err  # a busy machine makes a run void; it is recorded all the same
    return folder / "run.jsonl"

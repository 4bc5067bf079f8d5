"""What people read on a terminal: nothing cut, nothing too wide, colour only where it is wanted."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from qwenhost.cli.main import COMMANDS, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WIDTHS = (60, 80, 120, 200)
OFFLINE = (
    "inspect --gpus 2xH200",
    "plan --gpus 2xH200 --workload chat",
    "plan --gpus 8xH200 --pareto",
    "compare --gpus 2xH200 --workload chat --as-of 2026-11-23",
    "compare --gpus 2xH200 --workload coding_agent --as-of 2026-11-23",
    "compare --gpus 2xH200 --workloads chat,coding_agent --as-of 2026-11-23",
    "cost --workload chat",
    "cost --workload coding_agent --cache 5m",
    "advise --gpus 2xH200 --as-of 2026-11-23",
    "simulate --gpus 2xH200 --rate 2 --requests 40",
    "simulate --gpus 2xH200 --replicas 2 --rate 20 --requests 200",
    "profiles list",
    "profiles list gpus",
    "profiles list checkpoints",
    "profiles list gpu_prices",
    "profiles check",
)
COPIED = ("vllm serve ",)
"""Lines for a shell: a break in them would be copied along."""
ESCAPE = "\x1b"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", OFFLINE)
def test_every_line_fits_and_no_cell_is_cut(
    command: str, width: int, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 60 columns on: a table too wide drops columns or folds, an ellipsis would hide a figure."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(shlex.split(command)) == 0
    told = capsys.readouterr()
    said = told.out + told.err
    assert said.strip()
    for line in said.splitlines():
        assert "…" not in line, line
        if not line.startswith(COPIED):
            assert len(line.rstrip()) <= width, f"{len(line.rstrip())}: {line}"


@pytest.mark.parametrize("width", [0, 1, 59])
def test_narrower_than_sixty_is_sixty(
    width: int, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe with a nonsensical COLUMNS gets the narrowest layout, not a column of letters."""
    said = []
    for columns in (width, 60):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert run(["cost", "--workload", "chat"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


@pytest.mark.parametrize("columns", ["", "wide", "-5"])
def test_a_width_that_is_no_number_is_a_hundred(
    columns: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe without COLUMNS, or with a word in it, is printed to as to the README."""
    said = []
    for value in (columns, "100"):
        monkeypatch.setenv("COLUMNS", value)
        assert run(["cost", "--workload", "chat"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


@pytest.mark.parametrize("width", [60, 120])
def test_narrow_tables_keep_the_figures_that_decide(
    width: int, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Month, request and break-even are there at both widths; prices per Mtok where there is room."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(shlex.split("compare --gpus 2xH200 --workload chat --as-of 2026-11-23")) == 0
    said = " ".join(capsys.readouterr().out.split())
    for wanted in ("USD/month", "USD/request", "Claude Sonnet 4.6", "more hosts in --json and --html"):
        assert wanted in said
    assert ("USD/Mtok in" in said) == (width == 120)


@pytest.mark.parametrize("width", [60, 120])
def test_a_bill_is_whole_at_any_width(
    width: int, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each API has a name, a cache policy and its total; the parts come with the room."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(["cost", "--workload", "chat"]) == 0
    said = capsys.readouterr().out
    (sonnet,) = (line for line in said.splitlines() if "Sonnet 4.6" in line)
    amounts = re.findall(r"\$[\d.]+", sonnet)
    # Uncached input, write, read, output, fees; then a request and the total, alike for one request.
    assert len(amounts) == (7 if width == 120 else 2)
    assert amounts[-1] == amounts[-2]
    assert "none" in sonnet


def test_sentences_wrap_and_arithmetic_does_not(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reasons are prose; a column of GiB broken in two could not be added up."""
    monkeypatch.setenv("COLUMNS", "60")
    assert run(shlex.split("plan --gpus 2xH200 --workload chat --explain")) == 0
    wide = [line for line in capsys.readouterr().out.splitlines() if len(line.rstrip()) > 60]
    assert all(re.match(r"\s+-?[\d.,]+ (GiB|KiB|MiB)?|.*\S {2,}\S|vllm serve ", line) for line in wide), wide


def in_a_terminal(command: str, **surroundings: str) -> str:
    """What the program writes where stdout and stderr are a terminal."""
    ours, theirs = pty.openpty()
    bare = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "TERM"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "qwenhost", *shlex.split(command)],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        env={**bare, "TERM": "xterm-256color", "COLUMNS": "100", **surroundings},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # what Linux says at the end of a terminal
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    process.wait()
    return said.decode()


@pytest.mark.parametrize(
    ("surroundings", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["terminal", "NO_COLOR", "dumb"],
)
def test_colour_is_for_terminals_that_want_it(surroundings: Mapping[str, str], coloured: bool) -> None:
    """https://no-color.org: any value, and no colour; bold and dim are no colours."""
    said = in_a_terminal("compare --gpus 2xH200 --workload chat --as-of 2026-11-23", **surroundings)
    assert "Self-hosting beats" in said
    colours = re.findall(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;[\d;]+)m", said)
    assert bool(colours) == coloured


def test_a_pipe_gets_no_escape(home: Path) -> None:
    """Neither colour nor bold, whatever TERM says."""
    done = subprocess.run(
        [sys.executable, "-m", "qwenhost", "plan", "--gpus", "2xH200"],
        check=True, capture_output=True, text=True, env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    assert ESCAPE not in done.stdout + done.stderr


def test_a_refusal_fits_too(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names need and have, and the way on comes last, on a line of its own."""
    monkeypatch.setenv("COLUMNS", "60")
    assert run(["plan", "--gpus", "1xRTX4090"]) == 3
    told = capsys.readouterr()
    assert not told.out
    assert all(
        len(line) <= 60 for line in told.err.splitlines() if not line.startswith(("Error: ", "  Use "))
    )
    *_, error, remedy = told.err.splitlines()
    assert re.search(r"Error: Nothing fits .*needs [\d.]+ GiB .*has [\d.]+ GiB", error)
    assert remedy.startswith("  ")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_fits(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command shows how it is used; options are listed within 110 columns, examples stay on one line."""
    assert run([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: qwenhost {name}")
    examples = [line for line in said.splitlines() if re.search(rf"\bqwenhost {name}\b", line)]
    assert len(examples) >= 2, "the usage line, and one that can be copied"
    for line in said.splitlines():
        if "qwenhost " not in line:
            assert len(line) <= 110, line

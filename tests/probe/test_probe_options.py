"""What the command line makes of options: refusals, durations, the lines for people."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

from qwenhost.cli.probe_options import seconds_of

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ["--requests", "4", "--output-tokens", "5", "--warmup", "0"]


def probe(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwenhost.cli.main", "probe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("15m", 900), ("8h", 28_800), (" 1 d", 86_400)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    """Seconds where none is given."""
    context = click.Context(click.Command("x"))
    assert seconds_of(context, click.Option(["--x"]), text) == seconds


@pytest.mark.parametrize("text", ["0", "5x", "-3", "m", ""])
def test_other_durations_are_refused(text: str) -> None:
    """With the forms that are understood."""
    context = click.Context(click.Command("x"))
    with pytest.raises(click.BadParameter, match="write 90, 90s, 15m or 8h"):
        seconds_of(context, click.Option(["--x"]), text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--think-time", "3"], "--think-time has no effect without --turns or --trace"),
        (["--spread", "session"], "--spread has no effect without several URLs"),
        (["--tool-choice", "auto"], "--tool-choice has no effect without --tools"),
        (["--max-usd", "3"], "--max-usd caps --target sonnet"),
        (["--tools", "99"], "1 to 64 can be generated"),
        (["--images", "1", "--image-size", "3"], "not a size"),
        (["--ramp-to", "5", "--rate", "2", "--requests", "4"], "two rates and a length"),
        (["--turns", "2", "--endpoint", "completions"], "takes a plain text"),
        (["--turns", "30", "--input-tokens", "300"], "or fewer --turns"),
        (["--resume", "none.jsonl", "--records", "x"], "--resume appends"),
        (["--trace", "none.csv", "--turns", "2"], "brings its own sizes"),
    ],
)
def test_contradictions_are_exit_2(truth: Any, arguments: list[str], said: str) -> None:
    """In one sentence, before anything is sent."""
    done = probe(truth.url(), *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_people_read_what_sessions_pictures_and_urls_did(truth: Any, tmp_path: Path) -> None:
    """A line for each that was asked for."""
    tools = tmp_path / "tools.json"
    tools.write_text('[{"name": "look"}]')
    extra = ["--turns", "2", "--input-tokens", "300", "--images", "1", "--image-size", "8x8"]
    done = probe(truth.url("as=a"), truth.url("as=b"), *SMALL, *extra, "--tools", tools)
    assert done.returncode in (0, 5), done.stderr  # Void where this machine is too busy.
    for said in (
        "Sessions: 2, 2.0 requests each",
        "Cache: ",
        "Pictures: ",
        "Tools: 1 defined",
        "as=a: 2 of 2",
    ):
        assert said in done.stdout.replace("\n", " ")

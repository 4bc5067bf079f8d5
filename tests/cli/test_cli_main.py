"""The one place where errors are caught: exit codes, interruptions, tracebacks on request, closed pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

from qwenhost import errors, planner
from qwenhost.cli import wiring
from qwenhost.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Cli

PLAN = ["plan", "--gpus", "2xH200"]


def raising(error: BaseException) -> Any:
    """A function that fails so, whatever it is given."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.QwenhostError, 1),
        (errors.BadInputError, 2),
        (errors.InfeasibleError, 3),
        (errors.UnavailableError, 4),
    ],
)
def test_each_error_has_its_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, kind: type[errors.QwenhostError], code: int
) -> None:
    """The message, then the remedy on a line of its own; both on stderr."""
    monkeypatch.setattr(wiring, "catalog", raising(kind("it broke", remedy="Mend it.")))
    done = cli("cost")
    assert (done.code, done.out, done.err) == (code, "", "Error: it broke\n  Mend it.\n")


def test_without_a_remedy_there_is_no_empty_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "catalog", raising(errors.BadInputError("it broke")))
    assert cli("cost").err == "Error: it broke\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
@pytest.mark.parametrize(
    "words",
    [
        PLAN, ["inspect", "--gpus", "2xH200"], ["render", "--gpus", "2xH200"], ["cost"],
        ["compare", "--gpus", "2xH200"], ["advise", "--gpus", "2xH200"], ["profiles", "list"],
        ["simulate", "--gpus", "2xH200"], ["k8s", "plan", "--dra"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_interruption_is_130(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str], error: BaseException
) -> None:
    """One word, no traceback, nothing on stdout."""
    monkeypatch.setattr(wiring, "catalog", raising(error))
    done = cli(*words)
    assert (done.code, done.out, done.err.strip()) == (130, "", "Interrupted.")


@pytest.mark.parametrize("how", ["--debug", "QWENHOST_DEBUG=1", "QWENHOST_DEBUG=true"])
def test_tracebacks_are_shown_on_request(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """By the option in front of the command, or by the variable."""
    words = ["cost", "--workload", "nope"]
    if how == "--debug":
        words.insert(0, how)
    else:
        monkeypatch.setenv(*how.split("="))
    with pytest.raises(errors.BadInputError, match="no such preset"):
        run(words)


@pytest.mark.parametrize("value", ["0", "false", ""])
def test_a_variable_that_says_no_shows_none(cli: Cli, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("QWENHOST_DEBUG", value)
    cli("cost", "--workload", "nope").refused("no such preset")


def test_debugging_ends_with_the_command(cli: Cli) -> None:
    """One traceback asked for is no traceback for the next."""
    with pytest.raises(errors.BadInputError):
        run(["--debug", "cost", "--workload", "nope"])
    cli("cost", "--workload", "nope").refused("no such preset")


def test_our_own_bugs_are_a_sentence_with_their_place(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not called the user's mistake; --debug shows the traceback to report."""
    monkeypatch.setattr(wiring, "catalog", raising(ZeroDivisionError("ours")))
    done = cli("cost")
    done.refused("a fault of qwenhost's own: ZeroDivisionError: ours", "--debug", code=1)
    assert "test_cli_main.py:" in done.err or "cli/cost.py:" in done.err
    with pytest.raises(ZeroDivisionError):
        run(["--debug", "cost"])


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    """``| head`` closes the pipe: no traceback, no message, as other programs do."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "qwenhost", *PLAN, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    said = writer.stderr.read().decode()
    writer.stderr.close()
    assert (writer.wait(30), said) == (141, "")


@pytest.mark.parametrize("colour", ["NO_COLOR", "piped"])
def test_errors_have_colour_only_on_a_terminal(colour: str) -> None:
    """Stderr of these processes is a pipe."""
    environ = {**os.environ} | ({"NO_COLOR": "1"} if colour == "NO_COLOR" else {})
    done = subprocess.run(
        [sys.executable, "-m", "qwenhost", "cost", "--workload", "nope"],
        capture_output=True, text=True, check=False, env=environ,
    )  # fmt: skip
    assert done.returncode == 2
    assert "\x1b" not in done.stderr


REFUSED = ["plan", "--gpus", "1xL40S", "--checkpoint", "bf16"]


def test_infeasible_json_is_still_one_object(cli: Cli) -> None:
    """A program reads the reasons, a person the sentence."""
    done = cli(*REFUSED, "--json")
    assert done.code == 3
    assert done.data["schema"] == "qwenhost.plan/1"
    assert done.data["chosen"] is None
    row = done.data["rejections"][0]
    assert row["checkpoint"] == "bf16"
    assert row["need_bytes"] > row["have_bytes"] > 0
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") <= 2


def test_infeasible_reasons_come_before_the_sentence(cli: Cli) -> None:
    """Where a terminal ends, the sentence stands."""
    done = cli(*REFUSED)
    lines = done.err.splitlines()
    assert (done.code, done.out) == (3, "")
    assert lines[0].startswith("  bf16, TP1: weights do not fit.")
    assert any(line.startswith("Error: ") for line in lines[1:])


def test_what_does_not_fit_is_told_in_true_bytes(cli: Cli, known: Any) -> None:
    """Have is the catalog's memory of the GPU times the largest share that is tried, 0.95."""
    row = cli(*REFUSED, "--json").data["rejections"][0]
    whole = known.gpus["l40s"].memory_bytes
    assert 0.93 * whole < row["have_bytes"] <= 0.95 * whole
    # 122 billion parameters of two bytes: above 240 GB, whatever else is loaded.
    assert row["need_bytes"] > 240e9


def test_the_planner_is_not_asked_where_the_options_are_wrong(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "make_plan", raising(AssertionError("asked")))
    cli(*PLAN, "--workload", "nope").refused("no such preset")
    cli(*PLAN, "--html", "x.html").refused("--html needs --pareto")


@pytest.mark.parametrize("words", [[], ["--nope"]])
def test_nothing_to_do(cli: Cli, words: list[str]) -> None:
    """Usage and exit 2."""
    done = cli(*words)
    assert done.code == 2
    assert "Usage: qwenhost" in done.out + done.err


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version_ends_before_a_wrong_command_is_looked_at(cli: Cli, flag: str) -> None:
    done = cli(flag, "nonsense")
    assert done.code == 0
    assert done.out.startswith("qwenhost ")
    assert done.out.count("\n") == 1


def test_profiles_of_the_user_are_asked_in_order(cli: Cli, tmp_path: Path) -> None:
    """Later ones win: the variable over the settings folder, the option over the variable."""

    def folder(name: str, usd: float) -> Path:
        made = tmp_path / name
        made.mkdir(parents=True)
        row = {
            "gpu": "h200", "provider": "mine", "tier": "on_demand", "usd_per_gpu_hour": usd,
            "source": {"where": "a contract", "as_of": "2026-11-01"},
        }  # fmt: skip
        (made / "prices.yaml").write_text(json.dumps({"gpu_prices": [row]}))
        return made

    def usd() -> float:
        found = cli(*(["--profiles", given] if given else []), *PLAN, "--gpu-provider", "mine", "--json")
        assert found.code == 0, found.err
        return float(found.data["inputs"]["gpu_price"]["usd_per_gpu_hour"])

    given: Path | None = None
    own = wiring.user_profiles()
    folder(str(own), 1.0)
    assert usd() == 1.0
    os.environ["QWENHOST_PROFILES"] = str(folder("variable", 2.0))
    try:
        assert usd() == 2.0
        given = folder("option", 3.0)
        assert usd() == 3.0
    finally:
        del os.environ["QWENHOST_PROFILES"]

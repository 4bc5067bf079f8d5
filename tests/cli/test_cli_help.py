"""Help of every command: an example that parses, options that say what they do, lines that fit."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from cli_kit import command_of, examples, leaves

from qwenhost.cli.main import COMMANDS, HIDDEN

if TYPE_CHECKING:
    from cli_kit import Cli

LEAVES = sorted(leaves())
EVERY = pytest.mark.parametrize("words", LEAVES, ids=" ".join)


def test_every_command_is_a_leaf_or_a_group_with_leaves() -> None:
    """Nothing of the table is missing below."""
    assert {words[0] for words in LEAVES} == set(COMMANDS)


@EVERY
def test_help_ends_with_0_and_says_what_it_does(cli: Cli, words: tuple[str, ...]) -> None:
    shown = cli(*words, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"Usage: qwenhost {' '.join(words)} ")
    assert cli(*words, "-h").out == shown.out, "-h is the same"


@EVERY
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_help_fits_the_terminal(
    cli: Cli, words: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never wider than 110, nor than the terminal, but for examples, which are not wrapped to be copied."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in cli(*words, "--help").out.splitlines():
        whole = "qwenhost " in line or line.startswith("Usage: ") or line.lstrip().startswith("-")
        assert whole or len(line) <= min(columns, 110) or " " not in line.strip(), line


@EVERY
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    """A reader of the help needs no source."""
    for param in command_of(words).params:
        if isinstance(param, click.Option):
            explained = bool(param.help) or isinstance(param.type, click.Choice) or param.show_default
            assert explained, f"{words} {param.opts}"


@EVERY
def test_json_is_offered(words: tuple[str, ...]) -> None:
    options = {name for param in command_of(words).params for name in param.opts}
    assert "--json" in options


@EVERY
def test_an_example_stands_in_the_help_and_parses(words: tuple[str, ...]) -> None:
    """Each example's options and values are those of the command it names; nothing is run."""
    command = command_of(words)
    shown = examples(command)
    own = [example for example in shown if tuple(example[1 : 1 + len(words)]) == words]
    assert own, f"no example of {' '.join(words)} in its help"
    for example in own:
        context = command.make_context(words[-1], example[1 + len(words) :], resilient_parsing=False)
        assert context.params, example


@EVERY
def test_an_unknown_option_is_named(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli(*words, "--no-such-option")
    assert done.code == 2
    assert "No such option" in done.err
    assert "--no-such-option" in done.err
    assert done.out == ""


@EVERY
def test_a_misspelt_option_gets_the_near_one(cli: Cli, words: tuple[str, ...]) -> None:
    """``--jsno`` for ``--json``."""
    done = cli(*words, "--jsn")
    assert done.code == 2
    assert "--json" in done.err


@EVERY
def test_names_of_options_are_words_with_dashes(words: tuple[str, ...]) -> None:
    for param in command_of(words).params:
        for name in param.opts if isinstance(param, click.Option) else ():
            assert "_" not in name
            assert name == name.lower()


def test_the_overview_lists_each_command_with_its_line(cli: Cli) -> None:
    shown = cli("--help")
    assert shown.code == 0
    said = shown.text
    for name, (_, line) in COMMANDS.items():
        assert f"{name} {line}" in said
    assert not any(name in said for name in HIDDEN), "what only the supervisor calls is not listed"


@pytest.mark.parametrize("group", ["k8s", "profiles"])
def test_a_group_alone_shows_its_commands(cli: Cli, group: str) -> None:
    """Click ends with 2 where a command is missing."""
    shown = cli(group)
    assert shown.code in {0, 2}
    for words in LEAVES:
        if words[0] == group:
            assert f"  {words[1]} " in shown.out + shown.err


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("inspekt", "inspect"), ("pln", "plan"), ("rendr", "render"), ("serv", "serve"), ("stat", "status"),
        ("log", "logs"), ("tops", "top"), ("k8", "k8s"), ("prob", "probe"), ("tun", "tune"),
        ("calibrat", "calibrate"), ("simulat", "simulate"), ("count-token", "count-tokens"),
        ("costs", "cost"), ("compar", "compare"), ("advice", "advise"), ("reports", "report"),
        ("profile", "profiles"), ("complete", "completion"), ("docter", "doctor"), ("dem", "demo"),
    ],
)  # fmt: skip
def test_a_slip_of_the_finger_is_answered(cli: Cli, wrong: str, near: str) -> None:
    done = cli(wrong)
    assert done.code == 2
    assert f"No such command '{wrong}'" in done.err
    assert near in done.err.split("Did you mean")[1]


def test_what_resembles_nothing_gets_no_guess(cli: Cli) -> None:
    done = cli("xyzzy")
    assert done.code == 2
    assert "Did you mean" not in done.err


def test_the_overview_imports_no_command() -> None:
    """It is what people wait for first."""
    code = (
        "import sys; from qwenhost.cli.main import run; run(['--help']);"
        "print([m for m in sys.modules if m.startswith(('qwenhost.cli.', 'rich', 'msgspec', 'yaml'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['qwenhost.cli.main']"

"""The README says what the program says."""

from __future__ import annotations

import re
from pathlib import Path

from qwenhost.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_command_is_in_the_table() -> None:
    """A command that exists is listed, and nothing else is."""
    table = README.split("## Commands")[1].split("Every command has")[0]
    listed = {
        name
        for row in re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)
        for name in re.findall(r"`([\w-]+)`", row)
    }
    assert listed == set(COMMANDS)


def test_every_link_into_the_tree_leads_somewhere() -> None:
    """Relative links and pictures exist."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target

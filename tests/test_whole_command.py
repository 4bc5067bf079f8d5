"""The command as a whole: its version, its completion, its error texts."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import subprocess
import sys

import pytest

from qwenhost.cli.main import run
from qwenhost.plan import DEFAULT_VLLM_VERSION
from qwenhost.profiles import load_catalog


def test_the_version_says_what_answers_rest_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    said = capsys.readouterr().out
    assert f"vLLM {DEFAULT_VLLM_VERSION}" in said
    date = re.search(r"facts as of (\d{4}-\d\d-\d\d)", said)
    assert date
    assert dt.date.fromisoformat(date[1]) == load_catalog().newest_fact


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_the_shells_own_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell, "--json"]) == 0
    script = json.loads(capsys.readouterr().out)["script"]
    assert f"_QWENHOST_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_completion_offers_commands_and_options() -> None:
    for words, wanted in (("qwenhost pl", "plan"), ("qwenhost plan --chec", "--checkpoint")):
        done = subprocess.run(
            [sys.executable, "-m", "qwenhost"],
            env={
                "_QWENHOST_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split()) - 1),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert wanted in done.stdout, done.stderr


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qwenhost", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("qwenhost ")


def test_a_wrong_command_names_the_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plna"]) == 2
    assert "Did you mean plan?" in capsys.readouterr().err

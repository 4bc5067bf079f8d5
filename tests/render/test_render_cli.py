"""``qwenhost render``."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest
import yaml
from render_samples import CANDIDATE, plan

from qwenhost.cli import render as command_file
from qwenhost.cli.main import run
from qwenhost.plan import plan_to_json
from qwenhost.render import FORMATS, vllm_argv

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The sample plan as a file."""
    path = tmp_path / "plan.json"
    path.write_bytes(plan_to_json(plan()))
    return path


def test_the_command_offers_every_format() -> None:
    """Its list, kept apart for a fast --help, is the package's."""
    assert tuple(FORMATS) == command_file.FORMATS


def test_stdout_is_the_file_and_nothing_else(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default is a command line that a shell can take."""
    assert run(["render", str(saved)]) == 0
    out, err = capsys.readouterr()
    assert shlex.split(out, comments=True) == ["env", "VLLM_USE_DEEP_GEMM=0", *vllm_argv(CANDIDATE)]
    assert err == ""


def test_output_to_a_file(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is written, and stdout stays empty."""
    target = tmp_path / "compose.yaml"
    assert run(["render", str(saved), "--format", "compose", "-o", str(target), "--port", "9000"]) == 0
    assert capsys.readouterr().out == ""
    assert yaml.safe_load(target.read_text())["services"]["vllm"]["ports"] == ["127.0.0.1:9000:8000"]


def test_json(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text and argv in one document."""
    assert run(["render", str(saved), "--format", "config", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "qwenhost.render/1"
    assert found["vllm_argv"] == vllm_argv(CANDIDATE)
    assert yaml.safe_load(found["text"])["max-num-seqs"] == 128


def test_a_unit_names_the_plan_absolutely(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Units run in another folder than the person who made them."""
    monkeypatch.chdir(saved.parent)
    assert run(["render", "plan.json", "--format", "systemd"]) == 0
    assert f" serve {saved} --host" in capsys.readouterr().out


def test_a_folder_becomes_an_absolute_path(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container mounts folders by their full path."""
    (saved.parent / "weights").mkdir()
    monkeypatch.chdir(saved.parent)
    assert run(["render", "plan.json", "--format", "docker", "--model", "weights"]) == 0
    assert f"--volume {saved.parent}/weights:{saved.parent}/weights:ro" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.json"], "missing.json: No such file"),
        (["{saved}", "--gpus", "2xH200"], "--gpus: "),
        (["{saved}", "--checkpoint", "fp8"], "--checkpoint: "),
        (["{saved}", "--format", "dockre"], "dockre"),
        (["{saved}", "-o", "/nowhere/x"], "/nowhere/x: cannot write"),
    ],
)
def test_bad_input(saved: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is one sentence and exit code 2."""
    assert run(["render", *(word.format(saved=saved) for word in arguments)]) == 2
    assert says in capsys.readouterr().err


def test_straight_from_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a plan file a fresh plan is made for the GPUs that are named."""
    assert run(["render", "--gpus", "2xH200", "--format", "config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["tensor-parallel-size"] in (1, 2)
    assert config["model"].startswith("Qwen/Qwen3.5-122B-A10B")

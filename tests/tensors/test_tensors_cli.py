"""``qwenhost profiles import`` and ``qwenhost plan --checkpoint DIR``, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import header_files
import pytest


def run(*argv: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = str(Path(sys.executable).parent / "qwenhost")
    done = subprocess.run([command, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return header_files.write_checkpoint(tmp_path_factory.mktemp("cli") / "my-finetune", "bf16")


def test_import_writes_a_profile_that_can_be_planned_with(folder: Path, tmp_path: Path) -> None:
    """The file is named on stderr; the plan with it is the plan of the BF16 checkpoint."""
    done = run("profiles", "import", str(folder), "--id", "mine", "--output", str(tmp_path / "new"))
    assert done.stdout == ""
    assert "1,183 tensors, 228.29 GiB loaded" in done.stderr
    common = ("plan", "--gpus", "4xH200", "--tensor-parallel-size", "4", "--json", "--checkpoint")
    mine = json.loads(run("--profiles", str(tmp_path / "new"), *common, "mine").stdout)
    built_in = json.loads(run(*common, "bf16").stdout)
    assert mine["chosen"]["memory_per_gpu"] == built_in["chosen"]["memory_per_gpu"]


def test_import_without_output_prints_the_profile(folder: Path) -> None:
    """YAML on stdout; with --json one object with the bytes by group."""
    assert run("profiles", "import", str(folder)).stdout.startswith("checkpoints:\n- id: my-finetune\n")
    found = json.loads(run("profiles", "import", str(folder), "--json").stdout)
    assert found["load_bytes"] == 2 * 122_562_817_776 + 36 * 64 * 2  # A_log is float32
    assert found["checkpoints"][0]["quantization"] == "none"


def test_plan_for_a_folder(folder: Path) -> None:
    """The folder is what vLLM is told to serve, without a revision."""
    plan = json.loads(run("plan", "--gpus", "4xH200", "--checkpoint", str(folder), "--json").stdout)
    assert plan["chosen"]["vllm_argv"][2] == str(folder)
    assert "--revision" not in plan["chosen"]["vllm_argv"]


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    """Exit 2 and one sentence with a remedy, no traceback."""
    for argv in (
        ("profiles", "import", str(tmp_path)),
        ("plan", "--gpus", "1xH200", "--checkpoint", str(tmp_path)),
    ):
        done = run(*argv, code=2)
        assert "has no config.json" in done.stderr
        assert "Traceback" not in done.stderr

"""The wheel in an environment of its own, away from the tree: the program answers without CUDA."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qwenhost import __version__

if TYPE_CHECKING:
    from packaging_kit import Built

FORBIDDEN = ("torch", "vllm", "transformers", "pynvml")
"""What an offline plan may not import: CUDA, and the driver's library."""


@pytest.fixture(scope="module")
def programs(release: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` of an environment with the wheel; its dependencies are lent by the tests' own."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, release.wheel], check=True)
    (site,) = (place / "lib").glob("python*/site-packages")
    # A path in a .pth file is searched last, and .pth files there (the editable install's) are not read.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin"


def ran(
    programs: Path, folder: Path, *words: str, program: str = "qwenhost"
) -> subprocess.CompletedProcess[str]:
    """A command in an empty folder, with a bare environment."""
    bare = {"PATH": os.defpath, "HOME": str(folder), "COLUMNS": "100"}
    return subprocess.run(
        [programs / program, *words], check=False, capture_output=True, text=True, cwd=folder, env=bare
    )


def test_it_is_the_wheel_that_answers(programs: Path, tmp_path: Path) -> None:
    """Not the tree that the tests run from."""
    done = ran(programs, tmp_path, "-c", "import qwenhost; print(qwenhost.__file__)", program="python")
    assert Path(done.stdout.strip()).is_relative_to(programs.parent), done


def test_the_version_names_the_facts_it_carries(programs: Path, tmp_path: Path) -> None:
    """Catalog and package come together."""
    done = ran(programs, tmp_path, "--version")
    assert done.returncode == 0, done.stderr
    assert re.match(rf"qwenhost {re.escape(__version__)}, .*facts as of \d{{4}}-\d\d-\d\d", done.stdout)


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        (("plan", "--gpus", "2xH200", "--workload", "chat"), "qwenhost.plan/1"),
        (("compare", "--gpus", "2xH200", "--workload", "chat"), "qwenhost.comparison/1"),
        (("cost", "--workload", "chat"), "qwenhost.cost/1"),
        (("simulate", "--gpus", "2xH200", "--rate", "2", "--requests", "50"), "qwenhost.simulation/1"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_questions_of_the_readme_are_answered(
    programs: Path, tmp_path: Path, words: tuple[str, ...], schema: str
) -> None:
    """Exit 0, the document named, and nothing written beside the user's cache."""
    done = ran(programs, tmp_path, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == schema
    assert not [path for path in tmp_path.iterdir() if path.name != ".cache"]


def test_plan_and_report_become_files(programs: Path, tmp_path: Path) -> None:
    """The page's style and scripts come out of the wheel: nothing is loaded from elsewhere."""
    assert ran(programs, tmp_path, "plan", "--gpus", "2xH200", "--save", "plan.json").returncode == 0
    done = ran(
        programs, tmp_path, "compare", "--plan", "plan.json", "--workload", "chat", "--html", "report.html"
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "<style>" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?https?:", page)


@pytest.mark.parametrize("kind", ["argv", "docker", "compose", "systemd", "helm"])
def test_templates_came_along(programs: Path, tmp_path: Path, kind: str) -> None:
    """Every format is rendered from the wheel's own templates."""
    assert ran(programs, tmp_path, "plan", "--gpus", "2xH200", "--save", "plan.json").returncode == 0
    done = ran(programs, tmp_path, "render", "plan.json", "--format", kind)
    assert done.returncode == 0, done.stderr
    assert "Qwen3.5-122B-A10B" in done.stdout


def test_the_carried_facts_pass_their_own_check(programs: Path, tmp_path: Path) -> None:
    assert ran(programs, tmp_path, "profiles", "check").returncode == 0


def test_no_gpu_is_one_sentence_with_a_way_on(programs: Path, tmp_path: Path) -> None:
    """A laptop's first command: no traceback, and --gpus is named."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has GPUs")
    done = ran(programs, tmp_path, "plan")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "--gpus" in done.stderr


def test_a_plan_imports_no_cuda(programs: Path, tmp_path: Path) -> None:
    """Modules that stand for CUDA stay out of the process, and NumPy with them."""
    script = (
        "import sys; from qwenhost.cli.main import run; code = run(['plan', '--gpus', '2xH200', '--json']); "
        f"print([m for m in {(*FORBIDDEN, 'numpy')} if m in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = ran(programs, tmp_path, "-c", script, program="python")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_package_is_typed(programs: Path, tmp_path: Path) -> None:
    """A type checker that finds py.typed reads the annotations of what it imports."""
    script = "import importlib.resources as r; print((r.files('qwenhost') / 'py.typed').is_file())"
    assert ran(programs, tmp_path, "-c", script, program="python").stdout == "True\n"

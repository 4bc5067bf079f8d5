"""An installed wheel carries the profiles."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

ROOT = Path(__file__).parent.parent.parent


def test_profiles_of_an_installed_wheel(tmp_path: Path, builtin: Catalog) -> None:
    """Built, installed into another environment and run elsewhere, the command finds the same facts."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", ROOT],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = (tmp_path / "dist").glob("qwenhost-*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index",
         wheel],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    # The dependencies of the running environment, but not its editable qwenhost: a path named in a .pth
    # file has its own .pth files ignored.
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*argv: str | Path) -> str:
        done = subprocess.run(
            argv, cwd=elsewhere, check=True, capture_output=True, text=True, timeout=60,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )  # fmt: skip
        return done.stdout

    assert run(python, "-c", "import qwenhost; print(qwenhost.__file__)").startswith(str(tmp_path / "env"))
    listed = json.loads(run(tmp_path / "env" / "bin" / "qwenhost", "profiles", "list", "--json"))
    assert listed["digest"] == builtin.digest
    plan = json.loads(run(tmp_path / "env" / "bin" / "qwenhost", "plan", "--gpus", "2xH200", "--json"))
    assert plan["inputs"]["catalog_digest"] == builtin.digest
    assert plan["chosen"]["vllm_argv"][:2] == ["vllm", "serve"]
    report = elsewhere / "report.html"
    run(tmp_path / "env" / "bin" / "qwenhost", "compare", "--gpus", "2xH200", "--html", report)
    assert report.stat().st_size > 10_000

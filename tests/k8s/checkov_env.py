"""Checkov in a virtual environment of its own: its 300 MB of dependencies pin what ours must not.

It lives under ``~/.cache/qwenhost/checkov-VERSION`` and can be deleted at any time. Without a network the
build fails, and the tests that need it are skipped, unless QWENHOST_REQUIRE_ENGINE=1 as in CI.

    python tests/k8s/checkov_env.py
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

VERSION = "3.3.30"


def folder() -> Path:
    """Where it lives, built or not."""
    chosen = os.environ.get("QWENHOST_CHECKOV_DIR")
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return Path(chosen) if chosen else Path.home() / ".cache" / "qwenhost" / f"checkov-{VERSION}-{python}"


def program() -> Path | None:
    """The program, if it is complete."""
    return folder() / "bin" / "checkov" if (folder() / ".complete").exists() else None


def build() -> Path:
    """Build it unless it is there.

    Raises:
        subprocess.CalledProcessError: pip failed.
    """
    folder().parent.mkdir(parents=True, exist_ok=True)
    with folder().with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if program() is None:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder()], check=True)
            install = [folder() / "bin" / "python", "-m", "pip", "install", "--quiet", f"checkov=={VERSION}"]
            subprocess.run(install, check=True)
            (folder() / ".complete").touch()
    found = program()
    assert found
    return found


if __name__ == "__main__":
    print(build())

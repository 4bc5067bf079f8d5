"""Fetch the Python sources of the vLLM release that plans are made for.

The engine of the end-to-end tests is vLLM's CPU build, one release older (`engine_env`). vLLM's
planning code is plain Python, so the newer release's sources run under that engine's Python. Its
wheel is downloaded, its ``.py`` files are kept (57 MB of 300) and the rest is dropped:

    python tests/e2e/vllm_sources.py [--print-path]

They live beside the engine, or in ``$QWENHOST_VLLM_SOURCES_DIR``, and can be deleted at any time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # also runs as a plain file

from e2e import engine_env

if TYPE_CHECKING:
    from collections.abc import Sequence

VLLM_VERSION = "0.33.0"
COMPLETE_MARKER = ".complete"
NEEDED_DISK_GB = 0.5


class SourcesError(RuntimeError):
    """The sources cannot be had; the message ends with what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Join ``problem`` and ``remedy`` into one message."""
        super().__init__(f"{problem}\nRemedy: {remedy}")


def sources_dir() -> Path:
    """Return where the sources live, fetched or not; it belongs on ``PYTHONPATH``."""
    chosen = os.environ.get("QWENHOST_VLLM_SOURCES_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return engine_env.engine_dir().with_name(f"vllm-{VLLM_VERSION}-sources")


def build(progress: engine_env.Progress = print) -> Path:
    """Fetch the sources unless they are there, and return `sources_dir`.

    Two fetches wait for each other; the directory appears whole or not at all. Raises
    `SourcesError`.
    """
    directory = sources_dir()
    if not _is_complete(directory):
        _check_disk(directory)
        with engine_env._locked(directory.with_name(directory.name + ".lock"), progress):
            if not _is_complete(directory):
                _fetch_into(directory, progress)
    return directory


def _is_complete(directory: Path) -> bool:
    marker = directory / COMPLETE_MARKER
    return marker.is_file() and marker.read_text() == f"{VLLM_VERSION}\n"


def _check_disk(directory: Path) -> None:
    existing = next(parent for parent in directory.parents if parent.is_dir())
    free_gb = shutil.disk_usage(existing).free / 1e9
    if free_gb < NEEDED_DISK_GB:
        problem = f"vLLM's sources need {NEEDED_DISK_GB} GB of disk, {existing} has {free_gb:.1f} GB"
        raise SourcesError(problem, "free some, or set QWENHOST_VLLM_SOURCES_DIR elsewhere")


def _fetch_into(directory: Path, progress: engine_env.Progress) -> None:
    if directory.exists() and any(directory.iterdir()) and not (directory / "vllm").is_dir():
        problem = f"{directory} holds files that are not vLLM's sources"
        raise SourcesError(problem, "point QWENHOST_VLLM_SOURCES_DIR at a new directory")
    progress(f"fetching the Python sources of vLLM {VLLM_VERSION} into {directory}")
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f"{directory.name}-") as scratch:
        wheel = _download(Path(scratch))
        unpacked = Path(scratch) / "sources"
        _unpack(wheel, unpacked)
        (unpacked / COMPLETE_MARKER).write_text(f"{VLLM_VERSION}\n")
        shutil.rmtree(directory, ignore_errors=True)
        unpacked.rename(directory)


def _download(scratch: Path) -> Path:
    requirement = f"vllm=={VLLM_VERSION}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    options = ["--no-deps", "--only-binary=:all:", "--dest", str(scratch), requirement]
    environment = engine_env._clean_env() | {"TMPDIR": str(scratch)}
    done = subprocess.run([*pip, *options], env=environment, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("vllm-*.whl"))
    if done.returncode != 0 or not wheels:
        last_lines = "\n".join(done.stderr.strip().splitlines()[-8:])
        problem = f"`pip download {requirement}` failed:\n{last_lines}"
        raise SourcesError(problem, "check the network and pip's configuration, then run this again")
    return wheels[0]


def _unpack(wheel: Path, target: Path) -> None:
    """Extract the wheel's ``.py`` files; nothing compiled is loaded from them."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("vllm/") and name.endswith(".py"):
                archive.extract(name, target)
    if not (target / "vllm/v1/core/kv_cache_planning.py").is_file():
        problem = f"{wheel.name} does not hold the planning code this test knows"
        raise SourcesError(problem, "report this: vLLM's layout changed within a release")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the sources and print their path; return the exit status."""
    parser = argparse.ArgumentParser(description=f"Fetch the Python sources of vLLM {VLLM_VERSION}.")
    parser.add_argument("--print-path", action="store_true", help="print the path and fetch nothing")
    options = parser.parse_args(arguments)
    if not options.print_path:
        try:
            build(progress=lambda line: sys.stderr.write(f"{line}\n"))
        except SourcesError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
    sys.stdout.write(f"{sources_dir()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

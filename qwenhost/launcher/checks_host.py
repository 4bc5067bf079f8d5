"""Checks of the host: ports, memory, shared memory, open files.

Thresholds that are not somebody's published limit say so where they stand.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from typing import TYPE_CHECKING, Final

import psutil

from qwenhost.launcher.checks import Check, Outcome
from qwenhost.units import GIB, MIB, format_gib

if TYPE_CHECKING:
    from qwenhost.launcher.checks import Subject
    from qwenhost.node import Host

MIN_OPEN_FILES: Final = 4096
"""vLLM asks for 65,536 and warns below; a few hundred connections need some thousand."""
MIN_SHM_BYTES: Final = 256 * MIB
"""Containers start with 64 MiB, on which NCCL and vLLM's message queues fail."""
GOOD_SHM_BYTES: Final = 1 * GIB
RAM_PER_PROCESS_BYTES: Final = 4 * GIB
"""Assumed: CUDA context, Python and pinned buffers of one worker; weights are mapped, not held."""


def check_ports(subject: Subject) -> list[Check]:
    """The engine's port and, where metrics are asked for, theirs: another one, and free."""
    found = [check_port(subject.host, subject.port)]
    port = subject.metrics_port
    if port is None:
        return found
    if port == subject.port:
        detail = f"{port} is the engine's own port"
        remedy = "Choose another --metrics-port."
        return [*found, Check(name="metrics port", status="fail", detail=detail, remedy=remedy)]
    return [*found, check_port(subject.metrics_host, port, flag="--metrics-port", name="metrics port")]


def check_port(host: str, port: int, *, flag: str = "--port", name: str = "port") -> Check:
    """Whether something could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, TypeError) as error:  # TypeError: no host can have this name
            said = os.strerror(error.errno or 0) if isinstance(error, OSError) else "not a name of a host"
            detail = f"cannot listen on {host}:{port}: {said.lower()}"
            remedy = f"Choose another {flag}, or end {_holder(port)}."
            return Check(name=name, status="fail", detail=detail, remedy=remedy)
    return Check(name=name, status="ok", detail=f"{host}:{port} is free")


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


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            at_port = connection.laddr and connection.laddr.port == port
            if at_port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "what listens there"

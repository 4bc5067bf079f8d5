"""``qwenhost inspect``: what this machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli import wiring
from qwenhost.cli.options import json_option, node_options
from qwenhost.cli.output import console, write_json
from qwenhost.errors import UnavailableError
from qwenhost.units import format_bytes, format_gib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from qwenhost.node import Gpu, Host, Link, Node


@click.command("inspect")
@node_options
@click.option("--require-gpu", is_flag=True, help="End with exit code 4 where there is no GPU.")
@json_option
@click.pass_context
def command(ctx: click.Context, /, require_gpu: bool, as_json: bool, **options: Any) -> None:
    """Show the GPUs, their links, the host and its disk.

    Honours CUDA_VISIBLE_DEVICES. Where there is no GPU the host is shown all the same; a driver or GPU
    that is broken ends with exit code 4.

    \b
    qwenhost inspect
    qwenhost inspect --json > node.json         then elsewhere: qwenhost plan --gpus node.json
    qwenhost inspect --gpus 2xH200              what the catalog knows of it
    """  # noqa: D301 - click wants the character itself
    machine, problem = _find(ctx, options)
    if as_json:
        write_json(machine)
    else:
        screen = console()
        for block in _blocks(machine):
            screen.print(block, markup=False)
    if problem is not None and (require_gpu or problem.kind != "no_gpu"):
        raise problem


def _find(ctx: click.Context, options: dict[str, Any]) -> tuple[Node, UnavailableError | None]:
    """The node; without GPUs and with the reason where they cannot be read."""
    known = wiring.catalog(ctx)
    try:
        return wiring.node(known, options), None
    except UnavailableError as error:
        from qwenhost.discovery import node_without_gpus

        return node_without_gpus(error.message), error


def _blocks(machine: Node) -> Iterator[RenderableType]:
    yield f"{machine.description}{_versions(machine)}"
    if machine.gpus:
        yield "\nGPUs"
        yield _gpu_table(machine)
    if machine.links:
        yield "\nLinks (NV = NVLink and how many, otherwise the PCIe path)"
        yield _link_table(machine)
    elif machine.origin == "described" and machine.gpu_count > 1:
        yield f"\nInterconnect: {machine.interconnect}"
    if any(gpu.processes for gpu in machine.gpus):
        yield "\nProcesses on the GPUs"
        yield _process_table(machine)
    if machine.host:
        yield f"\nHost {machine.host.hostname}"
        yield _host_table(machine.host)
    yield from [""] if machine.notes else []
    yield from (f"Note: {note}" for note in machine.notes)


def _versions(machine: Node) -> str:
    if machine.origin == "described":
        return " (described, not read from this machine)"
    return f" (driver {machine.driver_version}, CUDA {machine.cuda_version})" if machine.gpus else ""


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _gpu_table(machine: Node) -> Any:
    table = _table("GPU", "name", "memory", "in use", "capability", "PCI", "MIG", "limit", "catalog")
    for gpu in machine.gpus:
        table.add_row(*_gpu_row(gpu, described=machine.origin == "described"))
    return table


def _gpu_row(gpu: Gpu, *, described: bool) -> tuple[str, ...]:
    return (
        str(gpu.index),
        gpu.name,
        format_gib(gpu.memory_total_bytes, 1),
        "" if described else format_bytes(gpu.memory_used_bytes),
        str(gpu.compute_capability),
        gpu.pci_address,
        "" if described else ("on" if gpu.mig_enabled else "off"),
        "" if gpu.power_limit_w is None else f"{gpu.power_limit_w:.0f} W",
        gpu.spec or "unknown",
    )


def _link_table(machine: Node) -> Any:
    """Each pair's path, as ``nvidia-smi topo -m`` prints it."""
    links = {frozenset((link.a, link.b)): link for link in machine.links}
    indices = [gpu.index for gpu in machine.gpus]
    table = _table("", *(f"GPU {i}" for i in indices))
    for row in indices:
        cells = ["-" if row == column else _link_cell(links[frozenset((row, column))]) for column in indices]
        table.add_row(f"GPU {row}", *cells)
    return table


def _link_cell(link: Link) -> str:
    path = f"NV{link.nvlinks}" if link.kind == "nvlink" else link.path or "PCIe"
    return f"{path}, no P2P" if link.peer_to_peer is False else path


def _process_table(machine: Node) -> Any:
    table = _table("GPU", "process", "name", "memory")
    for gpu in machine.gpus:
        for process in gpu.processes:
            used = "not told" if process.used_bytes is None else format_bytes(process.used_bytes)
            table.add_row(str(gpu.index), str(process.pid), process.name, used)
    return table


def _host_table(host: Host) -> Any:
    table = _table("", "")
    table.show_header = False
    table.add_row("system", host.os)
    cores = f"{host.cpu_cores_physical} cores, {host.cpu_cores_logical} threads for this process"
    table.add_row("CPU", f"{host.cpu_model}, {cores}")
    table.add_row("RAM", f"{format_gib(host.ram_available_bytes)} free of {format_gib(host.ram_total_bytes)}")
    table.add_row(
        "shared memory", f"{format_gib(host.shm_free_bytes)} free of {format_gib(host.shm_total_bytes)}"
    )
    table.add_row("model cache", f"{host.cache_path}, {format_gib(host.cache_free_bytes)} free")
    return table

"""Host, GPUs and links put together."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from qwenhost.discovery import links, nvml
from qwenhost.discovery.host import discover_host
from qwenhost.discovery.visible import VARIABLE, names_by_number, visible_positions
from qwenhost.node import Node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qwenhost.discovery.nvml import Device
    from qwenhost.facts import GpuSpec
    from qwenhost.node import Gpu


def discover_node(
    specs: Mapping[str, GpuSpec],
    *,
    model_cache: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Node:
    """This machine, with the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    Args:
        specs: the catalog's GPUs by id.
        model_cache: where weights would go, in place of what the environment says.
        environ: ``os.environ`` unless given.

    Raises:
        NoGpuError: no driver, no GPU, or all of them hidden.
        UnavailableError: driver mismatch, insufficient rights, a GPU lost; each with its remedy.
        BadInputError: ``CUDA_VISIBLE_DEVICES`` names a GPU twice.
    """
    environ = os.environ if environ is None else environ
    host = discover_host(model_cache=model_cache, environ=environ)
    ram = nvml.HostMemory(total_bytes=host.ram_total_bytes, available_bytes=host.ram_available_bytes)
    with nvml.session():
        driver, cuda = nvml.versions()
        present = nvml.devices()
        shown, notes = _visible(present, environ)
        gpus = tuple(nvml.read_gpu(device, specs, ram) for device in shown)
        found, link_notes = links.read_links(shown)
    return Node(
        gpus=gpus,
        links=tuple(found),
        interconnect=links.slowest(found),
        host=host,
        driver_version=driver,
        cuda_version=cuda,
        origin="nvml",
        description=" + ".join(f"{n}x {name}" for name, n in Counter(gpu.name for gpu in gpus).items()),
        notes=(*notes, *link_notes, *_notes(gpus, environ)),
    )


def node_without_gpus(
    reason: str, *, model_cache: Path | None = None, environ: Mapping[str, str] | None = None
) -> Node:
    """The host alone, with why there are no GPUs; not fit for a plan."""
    return Node(
        gpus=(),
        interconnect="none",
        host=discover_host(model_cache=model_cache, environ=environ),
        origin="nvml",
        description="No GPU",
        notes=(reason,),
    )


def _visible(present: Sequence[Device], environ: Mapping[str, str]) -> tuple[list[Device], list[str]]:
    value = environ.get(VARIABLE)
    positions, notes = visible_positions(value, [device.uuid for device in present], nvml.parent_of_mig)
    if not positions:
        raise nvml.NoGpuError(
            f"{VARIABLE}={value!r} hides all {len(present)} GPUs of this machine",
            remedy=f"Unset {VARIABLE}, or name the GPUs to use, for example 0,1.",
        )
    hidden = [str(device.index) for i, device in enumerate(present) if i not in positions]
    if hidden:
        notes = [*notes, f"{VARIABLE}={value!r} hides GPU {', '.join(hidden)}."]
    return [present[position] for position in positions], notes


def _notes(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[str]:
    notes = [
        f"GPU {gpu.index}: MIG is on; plans are for whole GPUs. "
        f"Turn it off with: nvidia-smi -i {gpu.index} -mig 0"
        for gpu in gpus
        if gpu.mig_enabled
    ]
    if len({(gpu.name, gpu.memory_total_bytes) for gpu in gpus}) > 1:
        notes.append(f"The GPUs differ; a plan needs equal ones. Choose with {VARIABLE}.")
        by_bus = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        if names_by_number(environ.get(VARIABLE)) and not by_bus:
            notes.append(
                "CUDA numbers unequal GPUs by speed, here they are numbered by bus: "
                f"set CUDA_DEVICE_ORDER=PCI_BUS_ID, or give UUIDs in {VARIABLE}."
            )
    unknown = sorted({gpu.name for gpu in gpus if gpu.spec is None})
    notes += [f"{name}: not in the catalog; see qwenhost profiles list gpus." for name in unknown]
    return notes

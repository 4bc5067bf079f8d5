"""NVLink and PCIe between GPUs, as NVML sees them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, Literal

import pynvml

from qwenhost.discovery.nvml import address_of, optional
from qwenhost.node import Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.discovery.nvml import Device

# The binding's constant is a tuple, by a stray comma (nvidia-ml-py 13.615).
_P2P_READ: Final = 0

# As `nvidia-smi topo -m` names them.
_PATHS: Final[dict[int, str]] = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "INTERNAL",
    pynvml.NVML_TOPOLOGY_SINGLE: "PIX",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "PXB",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "PHB",
    pynvml.NVML_TOPOLOGY_NODE: "NODE",
    pynvml.NVML_TOPOLOGY_SYSTEM: "SYS",
}


@dataclass(frozen=True, slots=True)
class _Ports:
    """Active NVLink ports of one GPU, by what is at their other end."""

    to_gpu: Counter[str] = field(default_factory=Counter)
    """Links by the other GPU's PCI address."""
    to_switch: int = 0


def read_links(devices: Sequence[Device]) -> tuple[list[Link], list[str]]:
    """The best path for each pair of GPUs, and notes for people."""
    ports = {device.index: _ports(device) for device in devices}
    links: list[Link] = []
    notes: list[str] = []
    for a, b in combinations(devices, 2):
        link, note = _link(a, b, ports[a.index], ports[b.index])
        links.append(link)
        notes += note
    return links, notes


def slowest(links: Sequence[Link]) -> Literal["nvlink", "pcie", "none"]:
    """The kind of the slowest link; ``none`` for fewer than two GPUs."""
    if not links:
        return "none"
    return "nvlink" if all(link.kind == "nvlink" for link in links) else "pcie"


def _link(a: Device, b: Device, a_ports: _Ports, b_ports: _Ports) -> tuple[Link, list[str]]:
    nvlinks = a_ports.to_gpu[b.pci_address] + min(a_ports.to_switch, b_ports.to_switch)
    notes: list[str] = []
    status = optional(pynvml.nvmlDeviceGetP2PStatus, a.handle, b.handle, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)
    if nvlinks and status not in (None, pynvml.NVML_P2P_STATUS_OK):
        notes.append(
            f"GPU {a.index} and GPU {b.index}: {nvlinks} NVLink links are up, but the driver refuses to use "
            "them. On NVSwitch machines check that nvidia-fabricmanager runs."
        )
        nvlinks = 0
    read = optional(pynvml.nvmlDeviceGetP2PStatus, a.handle, b.handle, _P2P_READ)
    level = optional(pynvml.nvmlDeviceGetTopologyCommonAncestor, a.handle, b.handle)
    return Link(
        a=a.index,
        b=b.index,
        kind="nvlink" if nvlinks else "pcie",
        nvlinks=nvlinks,
        path=_PATHS.get(level, ""),
        peer_to_peer=None if read is None else read == pynvml.NVML_P2P_STATUS_OK,
    ), notes


def _ports(device: Device) -> _Ports:
    to_gpu: Counter[str] = Counter()
    to_switch = 0
    for port in range(pynvml.NVML_NVLINK_MAX_LINKS):
        active = optional(pynvml.nvmlDeviceGetNvLinkState, device.handle, port)
        if active is None:
            break  # past the last port, or no NVLink at all
        if not active:
            continue
        kind = optional(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, device.handle, port)
        if kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
            to_switch += 1
        else:
            remote: Any = optional(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, device.handle, port)
            to_gpu[address_of(remote) if remote else ""] += 1
    return _Ports(to_gpu=to_gpu, to_switch=to_switch)

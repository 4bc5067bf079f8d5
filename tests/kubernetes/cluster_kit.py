"""Nodes as ``kubectl get nodes -o json`` prints them, with the labels of GPU feature discovery."""

from __future__ import annotations

import json
from typing import Any

# Label value, MiB, capability: as seen on real nodes.
PRODUCTS = {
    "h200": ("NVIDIA-H200", 143_771, (9, 0)),
    "h100": ("NVIDIA-H100-80GB-HBM3", 81_559, (9, 0)),
    "a100": ("NVIDIA-A100-SXM4-80GB", 81_920, (8, 0)),
    "l40s": ("NVIDIA-L40S", 46_068, (8, 9)),
    "rtx": ("NVIDIA-RTX-PRO-6000-Blackwell-Workstation-Edition", 97_887, (12, 0)),
    "3090": ("NVIDIA-GeForce-RTX-3090", 24_576, (8, 6)),
}


def node(
    name: str,
    gpu: str,
    count: int,
    *,
    taints: list[dict[str, str]] | None = None,
    labels: dict[str, str] | None = None,
    allocatable: dict[str, str] | None = None,
    ready: str = "True",
    cordoned: bool = False,
) -> dict[str, Any]:
    """One node with GPUs."""
    product, memory_mib, (major, minor) = PRODUCTS[gpu]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "nvidia.com/gpu.present": "true",
                "nvidia.com/gpu.product": product,
                "nvidia.com/gpu.memory": str(memory_mib),
                "nvidia.com/gpu.count": str(count),
                "nvidia.com/gpu.compute.major": str(major),
                "nvidia.com/gpu.compute.minor": str(minor),
                "nvidia.com/gpu.replicas": "1",
                "nvidia.com/gpu.sharing-strategy": "none",
                "nvidia.com/mig.strategy": "none",
                **(labels or {}),
            },
        },
        "spec": {"taints": taints or [], **({"unschedulable": True} if cordoned else {})},
        "status": {
            "allocatable": allocatable or {"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": str(count)},
            "capacity": {"nvidia.com/gpu": str(count)},
            "conditions": [{"type": "Ready", "status": ready, "reason": "KubeletReady"}],
        },
    }


def node_list(*nodes: dict[str, Any]) -> bytes:
    """With a node that has no GPU beside them."""
    plain = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "control-plane"},
        "spec": {},
        "status": {"allocatable": {"cpu": "4"}},
    }
    return json.dumps({"kind": "List", "apiVersion": "v1", "items": [plain, *nodes]}).encode()

"""This machine as a :class:`qwenhost.node.Node`: GPUs through NVML, the rest through psutil."""

from __future__ import annotations

from qwenhost.discovery.host import discover_host, model_cache_folder
from qwenhost.discovery.machine import discover_node, node_without_gpus
from qwenhost.discovery.nvml import NoGpuError

__all__ = ["NoGpuError", "discover_host", "discover_node", "model_cache_folder", "node_without_gpus"]

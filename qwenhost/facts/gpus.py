"""GPUs: what they can do, what they rent for, what they cost to own."""

from __future__ import annotations

from typing import Literal

from qwenhost.facts.base import Source, Value

GpuArchitecture = Literal["ampere", "ada", "hopper", "blackwell", "blackwell_consumer", "cdna3", "cdna4"]


class GpuSpec(Value, frozen=True, kw_only=True):
    """A GPU product as NVML reports it, with its limits."""

    id: str
    name: str
    """NVML product name."""
    nvml_pattern: str
    """Regular expression on the NVML name."""
    aliases: tuple[str, ...]
    """Names accepted by ``--gpus``, lower case, without spaces."""
    architecture: GpuArchitecture
    vendor: Literal["nvidia", "amd"] = "nvidia"
    memory_bytes: int
    """Total as NVML reports it."""
    hbm_bytes_per_s: float
    bf16_flops: float
    """Dense, per second."""
    fp8_flops: float | None = None
    fp4_flops: float | None = None
    link: Literal["nvlink", "pcie"]
    link_bytes_per_s: float
    """One direction, per GPU."""
    peer_to_peer: bool = True
    """Whether GPUs can read one another's memory over the link."""
    compute_capability: float
    power_w: float
    unified_memory: bool = False
    """Memory shared with the CPU (GB10)."""
    source: Source


class GpuPrice(Value, frozen=True, kw_only=True):
    """Rent of one GPU for one hour; instance price divided by its GPUs."""

    gpu: str
    provider: str
    tier: Literal["on_demand", "hyperscaler", "reserved_1y", "spot", "community"]
    usd_per_gpu_hour: float
    min_gpus: int = 1
    source: Source


class OwnedGpu(Value, frozen=True, kw_only=True):
    """Purchase figures of one GPU, its share of the server included, for owned hardware."""

    gpu: str
    purchase_usd_low: float
    purchase_usd_high: float
    facility_kw: float
    """Power at the meter per GPU, its share of the server included."""
    source: Source

"""Constants of the speed and memory models, with what they were fitted to."""

from __future__ import annotations

from collections.abc import Mapping

from qwenhost.facts.base import Basis, Source, Value


class KernelConstants(Value, frozen=True, kw_only=True):
    """time = t0 + experts hit * expert + (memory_time^4 + compute_time^4)^(1/4), at these efficiencies."""

    t0_s: float
    bandwidth_efficiency: float
    flops_efficiency: float
    expert_s: float = 0.0
    """A grouped kernel's fixed time for each expert it reads: does not shrink with a rank's slice of it."""


class Calibration(Value, frozen=True, kw_only=True):
    """Constants of the speed and memory models for one GPU architecture, with what they rest on."""

    id: str
    gpu_architecture: str
    gpu: str | None = None
    """A GPU id where it holds for that product only; else the whole architecture."""
    vllm_version: str
    kernels: Mapping[str, KernelConstants]
    """By kernel class: ``gemm_bf16``, ``gemm_fp8``, ``moe_bf16``, ``moe_fp8``, ``moe_int4``, ``moe_fp4``,
    ``gdn_decode``..."""
    constants: Mapping[str, float]
    """Named constants, units in the names."""
    relative_band_low: float
    """A prediction p spans p*(1-low) to p*(1+high)."""
    relative_band_high: float
    basis: Basis
    measurements: tuple[str, ...]
    """What the constants were fitted to."""
    source: Source

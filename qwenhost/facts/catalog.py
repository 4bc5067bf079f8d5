"""The catalog: all facts together."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from qwenhost.facts.api_prices import ApiPrice
from qwenhost.facts.base import Value
from qwenhost.facts.calibrations import Calibration
from qwenhost.facts.checkpoints import Checkpoint, WeightFormat
from qwenhost.facts.evidence import Assumption, BenchmarkScore, CostPerTask
from qwenhost.facts.gpus import GpuPrice, GpuSpec, OwnedGpu
from qwenhost.facts.models import Architecture
from qwenhost.facts.workloads import Workload


class Catalog(Value, frozen=True, kw_only=True):
    """Everything known, merged from the profile directories."""

    architectures: Mapping[str, Architecture]
    formats: Mapping[str, WeightFormat]
    checkpoints: Mapping[str, Checkpoint]
    gpus: Mapping[str, GpuSpec]
    gpu_prices: tuple[GpuPrice, ...]
    owned_gpus: Mapping[str, OwnedGpu]
    api_prices: Mapping[str, ApiPrice]
    workloads: Mapping[str, Workload]
    benchmarks: tuple[BenchmarkScore, ...]
    costs_per_task: tuple[CostPerTask, ...]
    assumptions: Mapping[str, Assumption]
    calibrations: Mapping[str, Calibration]
    digest: str
    """SHA-256 over the content of every profile file, in order."""
    newest_fact: dt.date

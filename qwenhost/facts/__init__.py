"""Typed, frozen facts with their sources: models, checkpoints, GPUs, prices, workloads.

Values only. They are read from ``profiles/*.yaml`` by :mod:`qwenhost.profiles`; msgspec rejects an
unknown key, a missing source and a wrong type. Every derivation is a property, its formula written
as a product of named factors.
"""

from __future__ import annotations

from qwenhost.facts.api_prices import (
    ApiPrice,
    CacheRules,
    ImageRule,
    RateLimit,
    RatePeriod,
    TokenizerRatio,
    TokenRates,
)
from qwenhost.facts.base import AtLeastOne, Basis, NotNegative, Positive, Share, Source, Value
from qwenhost.facts.calibrations import Calibration, KernelConstants
from qwenhost.facts.catalog import Catalog
from qwenhost.facts.checkpoints import Checkpoint, QualityNote, Sharding, WeightFormat, WeightPart
from qwenhost.facts.evidence import Assumption, BenchmarkScore, CostPerTask
from qwenhost.facts.gpus import GpuArchitecture, GpuPrice, GpuSpec, OwnedGpu
from qwenhost.facts.models import MTP_GROUPS, TEXT_GROUPS, Architecture, ModuleGroup, VisionTower
from qwenhost.facts.workloads import Slo, TokenStats, Workload

__all__ = [
    "MTP_GROUPS",
    "TEXT_GROUPS",
    "ApiPrice",
    "Architecture",
    "Assumption",
    "AtLeastOne",
    "Basis",
    "BenchmarkScore",
    "CacheRules",
    "Calibration",
    "Catalog",
    "Checkpoint",
    "CostPerTask",
    "GpuArchitecture",
    "GpuPrice",
    "GpuSpec",
    "ImageRule",
    "KernelConstants",
    "ModuleGroup",
    "NotNegative",
    "OwnedGpu",
    "Positive",
    "QualityNote",
    "RateLimit",
    "RatePeriod",
    "Sharding",
    "Share",
    "Slo",
    "Source",
    "TokenRates",
    "TokenStats",
    "TokenizerRatio",
    "Value",
    "VisionTower",
    "WeightFormat",
    "WeightPart",
    "Workload",
]

"""What one profile file may hold, and what makes two rows the same fact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.facts import (
    ApiPrice,
    Architecture,
    Assumption,
    BenchmarkScore,
    Calibration,
    Checkpoint,
    CostPerTask,
    GpuPrice,
    GpuSpec,
    OwnedGpu,
    Value,
    WeightFormat,
    Workload,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


class Sheet(Value, frozen=True, kw_only=True):
    """The rows of one file, or of several merged; each kind is a list."""

    architectures: tuple[Architecture, ...] = ()
    formats: tuple[WeightFormat, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    gpus: tuple[GpuSpec, ...] = ()
    gpu_prices: tuple[GpuPrice, ...] = ()
    owned_gpus: tuple[OwnedGpu, ...] = ()
    api_prices: tuple[ApiPrice, ...] = ()
    workloads: tuple[Workload, ...] = ()
    benchmarks: tuple[BenchmarkScore, ...] = ()
    costs_per_task: tuple[CostPerTask, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    calibrations: tuple[Calibration, ...] = ()


KINDS: Final[tuple[str, ...]] = Sheet.__struct_fields__
ROW_TYPES: Final[dict[str, type[Value]]] = {
    "architectures": Architecture,
    "formats": WeightFormat,
    "checkpoints": Checkpoint,
    "gpus": GpuSpec,
    "gpu_prices": GpuPrice,
    "owned_gpus": OwnedGpu,
    "api_prices": ApiPrice,
    "workloads": Workload,
    "benchmarks": BenchmarkScore,
    "costs_per_task": CostPerTask,
    "assumptions": Assumption,
    "calibrations": Calibration,
}
# Kinds without an id: what tells two rows apart.
_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "gpu_prices": ("gpu", "provider", "tier"),
    "owned_gpus": ("gpu",),
    "benchmarks": ("benchmark", "model", "by"),
    "costs_per_task": ("benchmark", "model"),
}


def id_keys(kind: str) -> tuple[str, ...]:
    """Keys that together name a row of this kind."""
    return _KEYS.get(kind, ("id",))


def row_id(kind: str, row: Any) -> str:
    """The row's name: its id, or its telling keys joined by slashes."""
    return "/".join(str(getattr(row, key)) for key in id_keys(kind))


def by_id(kind: str, rows: Iterable[Any]) -> dict[str, Any]:
    """Rows under their names."""
    return {row_id(kind, row): row for row in rows}


def schema_of(kind: str) -> dict[str, Any]:
    """JSON Schema of a file that holds rows of this kind.

    Raises:
        BadInputError: no such kind.
    """
    if kind not in ROW_TYPES:
        raise BadInputError(f"no kind {kind!r} of profile", remedy=f"Choose one of: {', '.join(KINDS)}.")
    (row,), components = msgspec.json.schema_components([ROW_TYPES[kind]], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"qwenhost profiles: {kind}",
        "type": "object",
        "properties": {kind: {"type": "array", "items": row}},
        "required": [kind],
        "additionalProperties": False,
        "$defs": components,
    }

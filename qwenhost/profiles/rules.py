"""What a type cannot say: references that exist, names that are unique, figures that make sense."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Final, get_args

from qwenhost.facts import GpuArchitecture, ModuleGroup
from qwenhost.node import normalise_gpu_name
from qwenhost.profiles.sheet import KINDS, id_keys, row_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from qwenhost.profiles.mistakes import Mistake
    from qwenhost.profiles.parse import Parsed

Known = dict[str, dict[str, Any]]
"""Rows by kind and name, after the merge."""
Problem = tuple[tuple[str | int, ...], str]
"""Path inside the row, and what is wrong."""

_GROUPS: Final = (*get_args(ModuleGroup), "default")
_ARCHITECTURES: Final = (*get_args(GpuArchitecture), "any")


def duplicates(folder: Sequence[Parsed]) -> Iterator[Mistake]:
    """Two rows of one folder under one name."""
    for kind in KINDS:
        seen: dict[str, str] = {}
        for parsed in folder:
            for i, row in enumerate(getattr(parsed.sheet, kind)):
                name = row_id(kind, row)
                if name in seen:
                    key = id_keys(kind)[0]
                    yield parsed.mistake((kind, i, key), f"{name!r} is already in {seen[name]}")
                seen.setdefault(name, parsed.file)


def broken(folders: Sequence[Sequence[Parsed]], known: Known) -> Iterator[Mistake]:
    """Rows that point at nothing or make no sense."""
    for parsed in (p for folder in folders for p in folder):
        for kind, rule in _RULES.items():
            for i, row in enumerate(getattr(parsed.sheet, kind)):
                if known[kind][row_id(kind, row)] is not row:
                    continue  # a later folder replaced it
                for path, message in rule(row, known):
                    yield parsed.mistake((kind, i, *path), message)


def _missing(name: str, kind: str, known: Known) -> str:
    return f"no {name!r} among {kind}; known: {', '.join(sorted(known[kind])) or 'none'}"


def _checkpoint(row: Any, known: Known) -> Iterator[Problem]:
    if row.architecture not in known["architectures"]:
        yield ("architecture",), _missing(row.architecture, "architectures", known)
    if "default" not in row.formats:
        yield ("formats",), "missing key `default`: the format of modules not listed"
    for group, name in row.formats.items():
        if group not in _GROUPS:
            yield ("formats", group), f"unknown module group; expected one of {', '.join(_GROUPS)}"
        if name not in known["formats"]:
            yield ("formats", group), _missing(name, "formats", known)
    yield from _positive(row, "disk_bytes", "max_tensor_parallel_size")


def _gpu(row: Any, known: Known) -> Iterator[Problem]:
    try:
        re.compile(row.nvml_pattern)
    except re.error as error:
        yield ("nvml_pattern",), f"not a regular expression: {error}"
    earlier = itertools.takewhile(lambda other: other is not row, known["gpus"].values())
    taken = {normalise_gpu_name(name): spec.id for spec in earlier for name in _gpu_names(spec)}
    for i, name in enumerate(_gpu_names(row)):
        if normalise_gpu_name(name) in taken:
            at: tuple[str | int, ...] = (("id",), ("name",))[i] if i < 2 else ("aliases", i - 2)
            yield at, f"{name!r} also names {taken[normalise_gpu_name(name)]}"
    yield from _positive(row, "memory_bytes", "hbm_bytes_per_s", "bf16_flops", "link_bytes_per_s", "power_w")


def _gpu_names(spec: Any) -> tuple[str, ...]:
    return (spec.id, spec.name, *spec.aliases)


def _gpu_price(row: Any, known: Known) -> Iterator[Problem]:
    if row.gpu not in known["gpus"]:
        yield ("gpu",), _missing(row.gpu, "gpus", known)
    yield from _positive(row, "usd_per_gpu_hour", "min_gpus")


def _owned_gpu(row: Any, known: Known) -> Iterator[Problem]:
    if row.gpu not in known["gpus"]:
        yield ("gpu",), _missing(row.gpu, "gpus", known)
    yield from _positive(row, "purchase_usd_low", "facility_kw")
    if row.purchase_usd_high < row.purchase_usd_low:
        yield ("purchase_usd_high",), f"{row.purchase_usd_high} is below the low figure"


def _api_price(row: Any, known: Known) -> Iterator[Problem]:
    del known
    if not row.periods:
        yield ("periods",), "expected one period at least"
    for i, period in enumerate(row.periods):
        if period.since and period.until and period.until < period.since:
            yield ("periods", i, "until"), f"{period.until} is before {period.since}"
        for other in row.periods[:i]:
            if (not other.until or not period.since or period.since <= other.until) and (
                not period.until or not other.since or other.since <= period.until
            ):
                yield ("periods", i), "overlaps an earlier period"
        if (period.long_context_threshold_tokens is None) != (period.long_context_usd_per_mtok is None):
            yield ("periods", i), "a long-context threshold and its rates go together"
        for bucket in period.usd_per_mtok.__struct_fields__:
            rate = getattr(period.usd_per_mtok, bucket)
            if rate is not None and rate < 0:
                yield ("periods", i, "usd_per_mtok", bucket), f"{rate} is negative"


def _assumption(row: Any, known: Known) -> Iterator[Problem]:
    del known
    if not row.low <= row.value <= row.high:
        yield ("value",), f"{row.value} is not within its range {row.low} to {row.high}"


def _calibration(row: Any, known: Known) -> Iterator[Problem]:
    if row.gpu_architecture not in _ARCHITECTURES:
        yield ("gpu_architecture",), f"expected one of {', '.join(_ARCHITECTURES)}"
    if row.gpu is not None and row.gpu not in known["gpus"]:
        yield ("gpu",), _missing(row.gpu, "gpus", known)
    for name, kernel in row.kernels.items():
        for field in ("bandwidth_efficiency", "flops_efficiency"):
            if not 0 < getattr(kernel, field) <= 1:
                yield ("kernels", name, field), f"{getattr(kernel, field)} is not within 0 to 1"


def _positive(row: Any, *names: str) -> Iterator[Problem]:
    for name in names:
        if getattr(row, name) <= 0:
            yield (name,), f"{getattr(row, name)}: expected more than 0"


_RULES: Final[Mapping[str, Callable[[Any, Known], Iterator[Problem]]]] = {
    "checkpoints": _checkpoint,
    "gpus": _gpu,
    "gpu_prices": _gpu_price,
    "owned_gpus": _owned_gpu,
    "api_prices": _api_price,
    "assumptions": _assumption,
    "calibrations": _calibration,
}

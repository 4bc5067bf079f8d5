"""The weight format of each module group, recognised by types and shapes."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.errors import BadInputError
from qwenhost.facts import WeightFormat
from qwenhost.tensors.header import DTYPE_BITS
from qwenhost.tensors.loaded import FLOATS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qwenhost.facts import ModuleGroup, Source
    from qwenhost.tensors.header import Tensor
    from qwenhost.tensors.loaded import Method, Stored
    from qwenhost.tensors.names import Role

INT32_BITS: Final = 32
FP4_PER_BYTE: Final = 2
FP8_CAPABILITY: Final = 8.9
FP4_CAPABILITY: Final = 10.0
_NOT_COMPARED: Final = ("id", "source")


class GroupFormats:
    """Formats by module group, taken from the catalog where it has them, else made."""

    def __init__(self, known: Mapping[str, WeightFormat], source: Source) -> None:
        self._known = list(known.values())
        self._source = source
        self.made: dict[str, WeightFormat] = {}

    def by_group(self, stored: Iterable[Stored], method: Method) -> dict[ModuleGroup, str]:
        """The format that most parameters of each group have."""
        modules: dict[tuple[ModuleGroup, str], dict[Role, Tensor]] = defaultdict(dict)
        for one in stored:
            modules[one.place.group, one.place.key][one.place.role] = one.tensor
        counted: dict[ModuleGroup, Counter[WeightFormat]] = defaultdict(Counter)
        ids: dict[tuple[object, ...], WeightFormat] = {}
        for (group, key), roles in modules.items():
            weight = roles.get("weight")
            if weight is None:
                continue
            shape = _signature(key, weight, roles, method, experts=group.endswith("routed_experts"))
            if shape not in ids:
                ids[shape] = self._format(shape)
            counted[group][ids[shape]] += weight.stored_bytes
        return {group: formats.most_common(1)[0][0].id for group, formats in sorted(counted.items())}

    def _format(self, shape: tuple[object, ...]) -> WeightFormat:
        wanted = _made(shape, self._source)
        same = next((row for row in self._known if _is_same(row, wanted)), None)
        if same is None:
            self.made[wanted.id] = wanted
            self._known.append(wanted)
        return same or wanted


def _signature(
    key: str, weight: Tensor, roles: Mapping[Role, Tensor], method: Method, *, experts: bool
) -> tuple[object, ...]:
    """(kind, bits, scale bits, zero points, rows, columns of a scale block) of one module."""
    scale, zeros = roles.get("scale"), roles.get("zero_point")
    if weight.dtype in FLOATS:
        return ("bf16", 16, 0, "none", 1, 1)
    if scale is None:
        raise BadInputError(f"{key}: {weight.dtype} weights without a scale", remedy="Check the checkpoint.")
    scale_bits = DTYPE_BITS[scale.dtype]
    if weight.dtype.startswith("F8_"):
        rows, columns = _block(weight.shape, scale.shape)
        return ("fp8", 8, scale_bits, "none", rows, columns)
    if weight.dtype in ("U8", "F4", "I8"):
        per = 1 if weight.dtype == "F4" else FP4_PER_BYTE
        group = weight.elements * per // max(1, scale.elements)
        return ("nvfp4" if scale.dtype == "F8_E4M3" else "mxfp4", 4, scale_bits, "none", 1, group)
    bits = method.bits or 4
    group = weight.elements * (INT32_BITS // bits) // max(1, scale.elements)
    kept = "none"
    if zeros is not None:
        kept = "dropped" if method.symmetric and not experts else "kept"
    return ("int", bits, scale_bits, kept, 1, group)


def _block(weight: Sequence[int], scale: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of weights that share a scale: a power-of-two block, an output row, or all."""
    rows, columns = weight[-2:] if len(weight) > 1 else (1, weight[-1])
    per_row, per_column = (scale[-2:] if len(scale) > 1 else (scale[0] if scale else 1, 1))[:2]
    if per_row == rows:
        return 1, columns
    if per_row <= 1 and per_column <= 1:
        return rows, columns
    return _power_of_two(rows, per_row), _power_of_two(columns, per_column)


def _power_of_two(size: int, parts: int) -> int:
    """The block length b with ceil(size / b) == parts."""
    return next((2**i for i in range(1, 15) if -(-size // 2**i) == parts), -(-size // max(1, parts)))


def _made(shape: tuple[object, ...], source: Source) -> WeightFormat:
    kind, bits, scale_bits, zeros, rows, columns = shape
    compute: Literal["bf16", "fp8", "fp4"] = {"fp8": "fp8", "nvfp4": "fp4"}.get(str(kind), "bf16")  # type: ignore[assignment]
    name = "bf16" if kind == "bf16" else f"{kind if kind != 'int' else f'int{bits}'}_{rows}x{columns}"
    return WeightFormat(
        id=name + {"kept": "_zp", "dropped": "_zp_dropped"}.get(str(zeros), ""),
        source=source,
        bits=float(str(bits)),
        scale_bits=float(str(scale_bits)),
        loaded_scale_bits=32.0 if kind == "fp8" and scale_bits != 32 else None,
        scale_block=(int(str(rows)), int(str(columns))),
        zero_bits=float(str(bits)) if zeros == "kept" else 0,
        dropped_bits=float(str(bits)) if zeros == "dropped" else 0,
        compute=compute,
        native_compute_capability={"fp8": FP8_CAPABILITY, "fp4": FP4_CAPABILITY}.get(compute, 0.0),
    )


def _is_same(row: WeightFormat, wanted: WeightFormat) -> bool:
    return all(
        getattr(row, field) == getattr(wanted, field)
        for field in WeightFormat.__struct_fields__
        if field not in _NOT_COMPARED
    )

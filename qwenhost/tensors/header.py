"""The header of a safetensors file, strictly.

Layout: 8 bytes little-endian length n, n bytes of JSON, then the tensors without gap or overlap.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any, Final

from qwenhost.errors import BadInputError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTH_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 100_000_000  # safetensors' own limit
DTYPE_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class Tensor(Value, frozen=True, kw_only=True):
    """One tensor of a file."""

    name: str
    dtype: str
    """In safetensors' words: ``BF16``, ``F8_E4M3``, ``I32``..."""
    shape: tuple[int, ...]
    stored_bytes: int

    @property
    def elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)


def header_length(file: str, prefix: bytes, file_bytes: int) -> int:
    """Length of the JSON that follows the first 8 bytes.

    Raises:
        BadInputError: cut off, or not safetensors.
    """
    if len(prefix) < LENGTH_BYTES:
        raise _damaged(file, f"has {len(prefix)} bytes")
    length: int = struct.unpack("<Q", prefix[:LENGTH_BYTES])[0]
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise _damaged(file, f"its header would be {length:,} bytes long")
    if LENGTH_BYTES + length > file_bytes:
        raise _damaged(file, f"a header of {length:,} bytes does not fit its {file_bytes:,} bytes")
    return length


def parse_header(file: str, header: bytes, file_bytes: int) -> tuple[Tensor, ...]:
    """The tensors a header describes, in the order of the file.

    Args:
        file: name for messages.
        header: the JSON, without the 8 bytes before it.
        file_bytes: length of the whole file.

    Raises:
        BadInputError: not JSON, an unknown type, a shape that does not match its bytes, a gap or overlap.
    """
    try:
        rows = json.loads(header, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"its header is not JSON: {error}") from error
    if not isinstance(rows, dict):
        raise _damaged(file, "its header is not a JSON object")
    rows.pop("__metadata__", None)
    found = [_tensor(file, name, row) for name, row in rows.items()]
    found.sort(key=lambda pair: pair[1])
    data_bytes = file_bytes - LENGTH_BYTES - len(header)
    _check_offsets(file, found, data_bytes)
    return tuple(tensor for tensor, _ in found)


def _tensor(file: str, name: str, row: Any) -> tuple[Tensor, tuple[int, int]]:
    if not isinstance(row, dict):
        raise _damaged(file, f"{name}: not a JSON object")
    dtype: Any = row.get("dtype")
    shape: Any = row.get("shape")
    offsets: Any = row.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _damaged(file, f"{name}: unknown type {dtype!r}")
    if not _are_sizes(shape):
        raise _damaged(file, f"{name}: shape {shape!r} is not a list of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(file, f"{name}: data_offsets {offsets!r} are not a begin and an end")
    begin, end = offsets
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != 8 * (end - begin):
        raise _damaged(file, f"{name}: {dtype} {shape} does not take {end - begin:,} bytes")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), stored_bytes=end - begin), (begin, end)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


def _check_offsets(file: str, found: Sequence[tuple[Tensor, tuple[int, int]]], data_bytes: int) -> None:
    """Tensors follow one another and end with the file."""
    position = 0
    for tensor, (begin, end) in found:
        if begin != position:
            what = "overlaps the tensor before it" if begin < position else "leaves a gap before it"
            raise _damaged(file, f"{tensor.name}: {what}")
        position = end
    if position != data_bytes:
        raise _damaged(file, f"its tensors take {position:,} bytes, {data_bytes:,} are there")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _damaged(file: str, what: str) -> BadInputError:
    return BadInputError(
        f"{file}: cut off or not a safetensors file: {what}", remedy="Delete it and fetch it again."
    )

"""Headers are read strictly: whatever is wrong is one sentence that names the file."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.tensors.header import header_length, parse_header

A = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
B = {"dtype": "F32", "shape": [], "data_offsets": [12, 16]}


def parse(rows: Any, data_bytes: int) -> Any:
    text = json.dumps(rows).encode() if not isinstance(rows, bytes) else rows
    return parse_header("x.safetensors", text, 8 + len(text) + data_bytes)


def test_names_types_shapes_and_bytes() -> None:
    """Two tensors, one a scalar; metadata is none."""
    first, second = parse({"__metadata__": {"format": "pt"}, "b": B, "a": A}, 16)
    assert (first.name, first.dtype, first.shape, first.stored_bytes) == ("a", "BF16", (2, 3), 12)
    assert (second.name, second.elements, second.stored_bytes) == ("b", 1, 4)


@pytest.mark.parametrize(
    ("rows", "data_bytes", "what"),
    [
        ([], 0, "not a JSON object"),
        (b"{", 0, "not JSON"),
        (b"\xff\xfe{}", 0, "not JSON"),
        (b"[" * 100_000, 0, "not JSON"),
        (b'{"a": %s, "a": %s}' % ((json.dumps(A).encode(),) * 2), 12, "stands there twice"),
        ({"a": A}, 11, "its tensors take 12 bytes, 11 are there"),
        ({"a": A}, 13, "its tensors take 12 bytes, 13 are there"),
        ({"a": A, "b": A}, 24, "b: overlaps"),
        ({"a": A, "b": {**B, "data_offsets": [13, 17]}}, 17, "b: leaves a gap"),
        ({"a": {**A, "dtype": "BF17"}}, 12, "unknown type 'BF17'"),
        ({"a": {**A, "dtype": ["BF16"]}}, 12, "unknown type"),
        ({"a": {**A, "shape": [2, -3]}}, 12, "not a list of sizes"),
        ({"a": {**A, "shape": [2, True]}}, 12, "not a list of sizes"),
        ({"a": {**A, "shape": [2, 2]}}, 12, "does not take 12 bytes"),
        ({"a": {**A, "data_offsets": [12, 0]}}, 12, "not a begin and an end"),
        ({"a": {**A, "data_offsets": [0]}}, 12, "not a begin and an end"),
        ({"a": {**A, "data_offsets": [0.0, 12.0]}}, 12, "not a begin and an end"),
        ({"a": 7}, 12, "a: not a JSON object"),
        ({"a": {}}, 12, "unknown type None"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(rows: Any, data_bytes: int, what: str) -> None:
    """The file and what is wrong with it, and what to do."""
    with pytest.raises(BadInputError, match=r"x\.safetensors: ") as caught:
        parse(rows, data_bytes)
    assert what in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("prefix", "file_bytes"),
    [
        (b"", 0),
        (b"1234567", 7),
        (struct.pack("<Q", 2**63), 2**40),
        (struct.pack("<Q", 100_000_001), 2**40),
        (struct.pack("<Q", 0), 100),
        (struct.pack("<Q", 93), 100),
    ],
)
def test_lengths_that_cannot_be(prefix: bytes, file_bytes: int) -> None:
    """Cut before the length ends, a length beyond the limit, none, or longer than the file."""
    with pytest.raises(BadInputError, match="cut off or not a safetensors file"):
        header_length("x.safetensors", prefix, file_bytes)


@given(st.binary(max_size=200), st.integers(0, 1000))
def test_arbitrary_bytes_are_refused_or_read(header: bytes, data_bytes: int) -> None:
    """Never anything but our own error."""
    with contextlib.suppress(BadInputError):
        assert sum(tensor.stored_bytes for tensor in parse(header, data_bytes)) == data_bytes


@given(st.integers(0, 2**32))
def test_one_changed_byte_is_refused_or_harmless(seed: int) -> None:
    """A header with one byte changed: refused, or its tensors still fill the file exactly."""
    rng = random.Random(seed)  # noqa: S311 - not a secret
    text = bytearray(json.dumps({"a": A, "b": B}).encode())
    text[rng.randrange(len(text))] = rng.randrange(256)
    try:
        tensors = parse(bytes(text), 16)
    except BadInputError:
        return
    assert sum(tensor.stored_bytes for tensor in tensors) == 16

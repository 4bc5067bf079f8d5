"""A checkpoint on disk: is it whole, are its files what they claim to be."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Final

from qwenhost.errors import BadInputError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from pathlib import Path

MAX_HEADER_BYTES: Final = 100_000_000  # safetensors' own limit


class LocalCheckpoint(Value, frozen=True, kw_only=True):
    """Verified weights on disk."""

    path: str
    repo_id: str | None
    revision: str | None
    """Commit; None for a folder."""
    size_bytes: int
    verified_by: str
    """``sha256``, or ``headers`` where there was nothing to compare with."""


def speaks_qwen(folder: Path) -> bool:
    """Whether a checkpoint is of the Qwen3.5 family, whose thinking and tool calls vLLM can parse."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    names = config.get("architectures") if isinstance(config, dict) else None
    return isinstance(names, list) and any(str(name).startswith("Qwen3_5") for name in names)


def verify_folder(folder: Path, *, repo_id: str | None = None, weights: bool = True) -> LocalCheckpoint:
    """Check a folder: a readable config, every shard of the index, and sane safetensors headers.

    Args:
        folder: the checkpoint.
        repo_id: where it came from.
        weights: False where the engine will make up weights (``--load-format dummy``).

    Raises:
        BadInputError: something is missing or damaged; names the file.
    """
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no such folder", remedy="Give an existing checkpoint with --model.")
    _read_json(folder / "config.json")
    shards = sorted(folder.glob("*.safetensors")) if weights else []
    index = folder / "model.safetensors.index.json"
    names: dict[str, list[str]] = {}
    if weights and index.is_file():
        for tensor, shard in _read_json(index).get("weight_map", {}).items():
            names.setdefault(shard, []).append(tensor)
        missing = sorted(shard for shard in names if not (folder / shard).is_file())
        if missing:
            raise BadInputError(
                f"{folder}: {len(missing)} of {len(names)} shards are missing, first {missing[0]}",
                remedy="Fetch the checkpoint again; what is there is not fetched twice.",
            )
    if weights and not shards:
        raise BadInputError(f"{folder}: holds no safetensors", remedy="Give a folder with *.safetensors.")
    for shard in shards:
        present = read_header(shard)
        absent = [tensor for tensor in names.get(shard.name, ()) if tensor not in present]
        if absent:
            raise BadInputError(
                f"{shard}: lacks the tensor {absent[0]} of the index", remedy="Fetch this file again."
            )
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return LocalCheckpoint(
        path=str(folder.absolute()),
        repo_id=repo_id,
        revision=None,
        size_bytes=size,
        verified_by="headers",
    )


def read_header(shard: Path) -> dict[str, Any]:
    """A safetensors file's header, if it and the file's length agree.

    Layout: 8 bytes little-endian length n, n bytes of JSON, then the tensors.

    Raises:
        BadInputError: cut off or not safetensors.
    """
    damaged = "Delete it and fetch it again."
    try:
        size = shard.stat().st_size
        with shard.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise BadInputError(f"{shard}: cut off or not safetensors", remedy=damaged)
            header: dict[str, Any] = json.loads(file.read(length))
        end = max((t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"), default=0)
    except (OSError, ValueError, struct.error, LookupError, TypeError, AttributeError) as error:
        raise BadInputError(f"{shard}: not a safetensors file: {error}", remedy=damaged) from error
    if 8 + length + end != size:
        raise BadInputError(
            f"{shard}: has {size:,} bytes, its header describes {8 + length + end:,}", remedy=damaged
        )
    return header


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror}", remedy="Give a complete checkpoint folder."
        ) from error
    except ValueError as error:
        raise BadInputError(f"{path}: not JSON: {error}", remedy="Fetch this file again.") from error
    if not isinstance(value, dict):
        raise BadInputError(f"{path}: not a JSON object", remedy="Fetch this file again.")
    return value

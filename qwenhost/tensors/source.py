"""Headers and configuration of a checkpoint: from a folder, or from the hub by range requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session, hf_raise_for_status

from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.hub import is_path, translated
from qwenhost.tensors.header import LENGTH_BYTES, Tensor, header_length, parse_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

INDEX: Final = "model.safetensors.index.json"
OPTIONAL_CONFIGS: Final = ("hf_quant_config.json", "quantize_config.json")
FIRST_BYTES: Final = 2**18  # most headers fit; a longer one takes a second request
MAX_JSON_BYTES: Final = 200_000_000
REQUESTS_AT_ONCE: Final = 8
TIMEOUT_S: Final = 30.0


class CheckpointFiles(Value, frozen=True, kw_only=True):
    """What a checkpoint's files say without their data."""

    ref: str
    """Repository, or absolute path of the folder."""
    revision: str | None
    """Commit of the repository; None for a folder."""
    config: Mapping[str, Any]
    """``config.json``."""
    quantization: Mapping[str, Any]
    """The quantization configuration, from ``config.json`` or a file of its own; empty without one."""
    tensors: tuple[Tensor, ...]
    file_bytes: int
    """Safetensors files together."""


def read_checkpoint(
    ref: str, *, revision: str | None = None, endpoint: str | None = None, offline: bool | None = None
) -> CheckpointFiles:
    """Every header of a checkpoint.

    Args:
        ref: a folder, or a repository of the hub.
        revision: commit or branch of the repository; its head if None.
        endpoint: of the hub or a mirror, instead of HF_ENDPOINT.
        offline: take what the hub's cache holds; None = as HF_HUB_OFFLINE says.

    Raises:
        BadInputError: no such folder or repository, or a file is missing or damaged; names it.
        UnavailableError: the hub was not reached or refuses.
    """
    if is_path(ref):
        return _read(_Folder(Path(ref).expanduser()))
    with translated(ref):
        if HF_HUB_OFFLINE if offline is None else offline:
            found = HfApi(endpoint=endpoint).snapshot_download(ref, revision=revision, local_files_only=True)
            return _read(_Folder(Path(found), ref=ref, revision=Path(found).name))
        return _read(_Repository(ref, revision, endpoint))


class _Folder:
    """Files of a checkpoint on disk."""

    def __init__(self, folder: Path, *, ref: str | None = None, revision: str | None = None) -> None:
        try:
            is_folder = folder.is_dir()
        except OSError:  # a name too long for any
            is_folder = False
        if not is_folder:
            raise BadInputError(f"{folder}: no such folder", remedy="Name an existing checkpoint folder.")
        self._folder = folder
        self.ref = ref or str(folder.absolute())
        self.revision = revision
        self.sizes = {
            file.name: file.stat().st_size
            for pattern in ("*.safetensors", "*.json")
            for file in sorted(folder.glob(pattern))
            if file.is_file()
        }

    def shown(self, name: str) -> str:
        return str(self._folder / name)

    def read(self, name: str, begin: int, end: int) -> bytes:
        try:
            with (self._folder / name).open("rb") as file:
                file.seek(begin)
                return file.read(end - begin)
        except OSError as error:
            raise BadInputError(
                f"{self.shown(name)}: {error.strerror}", remedy="Check the file's rights."
            ) from error


class _Repository:
    """Files of a repository, read by range requests."""

    def __init__(self, ref: str, revision: str | None, endpoint: str | None) -> None:
        info = HfApi(endpoint=endpoint).model_info(
            ref, revision=revision, files_metadata=True, timeout=TIMEOUT_S
        )
        self.ref = ref
        self.revision = str(info.sha)
        self._endpoint = endpoint
        self.sizes = {
            sibling.rfilename: int((sibling.lfs.size if sibling.lfs else sibling.size) or 0)
            for sibling in info.siblings or []
            if sibling.rfilename.endswith((".safetensors", ".json"))
        }

    def shown(self, name: str) -> str:
        return f"{self.ref}/{name}"

    def read(self, name: str, begin: int, end: int) -> bytes:
        """These bytes and no more, even from a server that sends the whole file."""
        url = hf_hub_url(self.ref, name, revision=self.revision, endpoint=self._endpoint)
        headers = {**build_hf_headers(), "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        with (
            translated(self.ref),
            get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response,
        ):
            hf_raise_for_status(response)
            skip = 0 if response.status_code == 206 else begin
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) >= skip + end - begin:
                    break
        return bytes(content[skip : skip + end - begin])


def _read(files: _Folder | _Repository) -> CheckpointFiles:
    config = _json(files, "config.json")
    quantization = config.get("quantization_config") or config.get("compression_config")
    for name in OPTIONAL_CONFIGS:
        if not quantization and name in files.sizes:
            own = _json(files, name)
            quantization = own.get("quantization", own)
    shards = _shards(files)
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        by_shard = list(pool.map(lambda shard: _tensors(files, shard), shards))
    return CheckpointFiles(
        ref=files.ref,
        revision=files.revision,
        config=config,
        quantization=quantization if isinstance(quantization, dict) else {},
        tensors=_each_once(files.shown, shards, by_shard),
        file_bytes=sum(files.sizes[shard] for shard in shards),
    )


def _shards(files: _Folder | _Repository) -> list[str]:
    """The files vLLM would load: those of the index, else all."""
    if INDEX not in files.sizes:
        found = sorted(name for name in files.sizes if name.endswith(".safetensors") and "/" not in name)
        if not found:
            raise BadInputError(
                f"{files.ref}: holds no safetensors", remedy="Name a checkpoint with *.safetensors."
            )
        return found
    weight_map = _json(files, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise BadInputError(f"{files.shown(INDEX)}: has no weight_map", remedy="Fetch this file again.")
    names = sorted(set(weight_map.values()))
    outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in name.split("/")]
    missing = [name for name in names if name not in files.sizes]
    if outside or missing or not names:
        raise BadInputError(
            f"{files.shown(INDEX)}: {len(missing)} of {len(names)} shards are missing, first "
            f"{(outside or missing or ['none'])[0]}",
            remedy="Fetch the checkpoint again; what is there is not fetched twice.",
        )
    return names


def _tensors(files: _Folder | _Repository, shard: str) -> tuple[Tensor, ...]:
    shown, size = files.shown(shard), files.sizes[shard]
    first = files.read(shard, 0, min(size, FIRST_BYTES)) if size else b""
    end = LENGTH_BYTES + header_length(shown, first, size)
    if end > len(first):
        first += files.read(shard, len(first), end)
    return parse_header(shown, first[LENGTH_BYTES:end], size)


def _each_once(
    shown: Callable[[str], str], shards: Iterable[str], by_shard: Iterable[tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    found: dict[str, Tensor] = {}
    for shard, tensors in zip(shards, by_shard, strict=True):
        for tensor in tensors:
            if tensor.name in found:
                raise BadInputError(
                    f"{shown(shard)}: {tensor.name} is in another file too",
                    remedy="Keep one set of weights in the folder, or an index that lists it.",
                )
            found[tensor.name] = tensor
    return tuple(found.values())


def _json(files: _Folder | _Repository, name: str) -> dict[str, Any]:
    if name not in files.sizes:
        raise BadInputError(f"{files.ref}: has no {name}", remedy="Name a complete checkpoint.")
    if files.sizes[name] > MAX_JSON_BYTES:
        raise BadInputError(f"{files.shown(name)}: too large", remedy="Name a complete checkpoint.")
    try:
        value = json.loads(files.read(name, 0, files.sizes[name]) if files.sizes[name] else b"")
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"{files.shown(name)}: not JSON: {error}", remedy="Fetch this file again."
        ) from error
    if not isinstance(value, dict):
        raise BadInputError(f"{files.shown(name)}: not a JSON object", remedy="Fetch this file again.")
    return value

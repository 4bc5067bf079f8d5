"""Weights: fetched from the hub or found in a folder, and verified before an engine reads them.

Safetensors only: pickled weights and Python files of a repository are neither fetched nor run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from huggingface_hub import HfApi, errors
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from qwenhost.errors import BadInputError, QwenhostError, UnavailableError
from qwenhost.facts import Value
from qwenhost.files import write_atomically
from qwenhost.units import format_bytes

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

WANTED: Final = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
MAX_HEADER_BYTES: Final = 100_000_000  # safetensors' own limit
_CHUNK: Final = 8 * 2**20
_HTTP_MESSAGES: Final = {
    401: ("the hub wants a token", "Set HF_TOKEN, or correct the one that is set."),
    403: ("the hub refuses access", "Accept the model's terms on its page, then use your own HF_TOKEN."),
    404: ("no such repository or revision", "Check the name; a private one needs HF_TOKEN."),
    429: ("the hub limits the rate", "Wait some minutes; a set HF_TOKEN has a higher limit."),
}

# The hub's client has changed its HTTP library; all of them may raise through it.
_HTTP_LIBRARIES: Final = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


class HubFile(Value, frozen=True, kw_only=True):
    """A file as the hub describes it."""

    name: str
    size_bytes: int | None
    sha256: str | None
    """None for small files, which git and not LFS stores."""


class LocalCheckpoint(Value, frozen=True, kw_only=True):
    """Verified weights on disk."""

    path: str
    repo_id: str | None
    revision: str | None
    """Commit; None for a folder."""
    size_bytes: int
    verified_by: str
    """``sha256``, or ``headers`` where there was nothing to compare with."""


def fetch_checkpoint(
    ref: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
    endpoint: str | None = None,
    say: Callable[[str], object] = lambda _: None,
    bars: bool = False,
) -> LocalCheckpoint:
    """The checkpoint on disk, complete and checked.

    Args:
        ref: a folder, or a repository of the hub.
        revision: commit or branch of the repository.
        cache: the hub's cache folder.
        offline: take what the cache holds.
        endpoint: of the hub or a mirror, instead of HF_ENDPOINT.
        say: told what is going on.
        bars: show the hub client's progress bars on stderr.

    Raises:
        BadInputError: no such folder or repository, or the folder is no checkpoint.
        UnavailableError: no network, no access, no space, or damage that fetching did not cure.
    """
    if _is_path(ref):
        return verify_folder(Path(ref).expanduser())
    (enable_progress_bars if bars else disable_progress_bars)()
    api = HfApi(endpoint=endpoint)
    folder = cache or Path(HF_HUB_CACHE)
    if offline:
        with _translated(ref):
            path = Path(
                api.snapshot_download(
                    ref,
                    revision=revision,
                    cache_dir=folder,
                    allow_patterns=list(WANTED),
                    local_files_only=True,
                )
            )
        return verify_folder(path, repo_id=ref)
    with _translated(ref):
        info = api.model_info(ref, revision=revision, files_metadata=True, timeout=30)
    commit = str(info.sha)
    files = [_hub_file(sibling) for sibling in info.siblings or [] if _is_wanted(sibling.rfilename)]
    if not any(file.name.endswith(".safetensors") for file in files):
        raise BadInputError(f"{ref}: holds no safetensors", remedy="Name a repository with safetensors.")
    _check_space(folder, files, ref)
    total = sum(file.size_bytes or 0 for file in files)
    say(f"fetching {ref} at {commit[:12]}: {len(files)} files, {format_bytes(total)}")
    with _translated(ref):
        path = Path(
            api.snapshot_download(ref, revision=commit, cache_dir=folder, allow_patterns=list(WANTED))
        )
    _verify_against_hub(api, path, files, ref=ref, commit=commit, cache=folder, say=say)
    checked = verify_folder(path, repo_id=ref)
    return LocalCheckpoint(
        path=str(path), repo_id=ref, revision=commit, size_bytes=checked.size_bytes, verified_by="sha256"
    )


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


def _is_path(ref: str) -> bool:
    return Path(ref).expanduser().is_dir() or ref.startswith((".", "/", "~")) or ref.count("/") != 1


def _is_wanted(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in WANTED)


def _hub_file(sibling: Any) -> HubFile:
    lfs = sibling.lfs
    return HubFile(
        name=sibling.rfilename,
        size_bytes=lfs.size if lfs else sibling.size,
        sha256=lfs.sha256 if lfs else None,
    )


def _check_space(cache: Path, files: Sequence[HubFile], ref: str) -> None:
    blobs = cache / f"models--{ref.replace('/', '--')}" / "blobs"
    missing = sum(f.size_bytes or 0 for f in files if not (f.sha256 and (blobs / f.sha256).exists()))
    there = next(p for p in (cache, *cache.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if missing > free:
        raise UnavailableError(
            f"{ref}: {format_bytes(missing)} to fetch, {format_bytes(free)} free at {there}",
            remedy="Free disk space, or set HF_HOME to a larger disk.",
        )


def _verify_against_hub(
    api: HfApi,
    path: Path,
    files: Sequence[HubFile],
    *,
    ref: str,
    commit: str,
    cache: Path,
    say: Callable[[str], object],
) -> None:
    """Size and SHA-256 of every file; a damaged one is named and fetched once more."""
    known = _Verified(cache / ".qwenhost-verified" / f"{ref.replace('/', '--')}.json")
    for file in files:
        if _matches(path / file.name, file, known):
            continue
        say(f"{file.name}: damaged, fetching it again")
        blob = (path / file.name).resolve()
        blob.unlink(missing_ok=True)
        with _translated(ref):
            api.hf_hub_download(ref, file.name, revision=commit, cache_dir=cache, force_download=True)
        if not _matches(path / file.name, file, known):
            raise UnavailableError(
                f"{ref}: {file.name} does not match the hub's checksum, twice",
                remedy="Check the disk and any proxy on the way, then start again.",
            )
    known.save()


def _matches(path: Path, file: HubFile, known: _Verified) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    if file.size_bytes is not None and stat.st_size != file.size_bytes:
        return False
    if file.sha256 is None or known.holds(file, stat):
        return True
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != file.sha256:
        return False
    known.add(file, stat)
    return True


class _Verified:
    """Files whose checksum was right, so that 120 GB are not read before every start.

    An entry holds as long as size and time of change stay what they were.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, list[Any]] = {}
        try:
            self._entries = dict(json.loads(path.read_text()))
        except (OSError, ValueError):
            return

    def holds(self, file: HubFile, stat: os.stat_result) -> bool:
        return self._entries.get(file.name) == [file.sha256, stat.st_size, stat.st_mtime_ns]

    def add(self, file: HubFile, stat: os.stat_result) -> None:
        self._entries[file.name] = [file.sha256, stat.st_size, stat.st_mtime_ns]

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, json.dumps(self._entries, indent=1))


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


class _translated:  # noqa: N801 - used as a word: with _translated(ref)
    """Turns the hub's exceptions into ours."""

    def __init__(self, ref: str) -> None:
        self._ref = ref

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and (ours := _as_ours(self._ref, error)) is not None:
            raise ours from error


def _as_ours(ref: str, error: BaseException) -> QwenhostError | None:
    if isinstance(error, errors.HFValidationError):
        return BadInputError(f"{ref}: not a repository name", remedy="Write OWNER/NAME, or a folder.")
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return UnavailableError(
            f"{ref}: not in the cache, and the hub was not reached",
            remedy="Check the network, or unset HF_HUB_OFFLINE, or give a folder with --model.",
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _http_error(ref, error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return UnavailableError(
            f"{ref}: the disk is full", remedy="Free space, or set HF_HOME to a larger disk; it resumes."
        )
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError) or library in _HTTP_LIBRARIES:
        return UnavailableError(
            f"{ref}: the hub was not reached: {error or type(error).__name__}",
            remedy="Check the network or HF_ENDPOINT, then start again; it resumes.",
        )
    return None


def _http_error(ref: str, error: errors.HfHubHTTPError) -> QwenhostError:
    status = error.response.status_code if error.response is not None else None
    if isinstance(error, errors.GatedRepoError):
        status = 403
    what, remedy = _HTTP_MESSAGES.get(
        status or 0, (f"the hub answered {status}", "Try again later; what was fetched is kept.")
    )
    kind = BadInputError if status == 404 else UnavailableError
    return kind(f"{ref}: {what}", remedy=remedy)

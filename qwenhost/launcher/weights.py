"""Weights: fetched from the hub or found in a folder, and verified before an engine reads them.

Safetensors only: pickled weights and Python files of a repository are neither fetched nor run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.files import write_atomically
from qwenhost.hub import translated
from qwenhost.launcher.checkpoint_folder import LocalCheckpoint, verify_folder
from qwenhost.launcher.hub_file import HubFile
from qwenhost.launcher.hub_retry import Retries
from qwenhost.launcher.resumable import Fetcher
from qwenhost.units import format_bytes

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

WANTED: Final = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_CHUNK: Final = 8 * 2**20


def fetch_checkpoint(
    ref: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
    endpoint: str | None = None,
    say: Callable[[str], object] = lambda _: None,
    bars: bool = False,
    retries: Retries | None = None,
) -> LocalCheckpoint:
    """The checkpoint on disk, complete and checked; two that want the same one fetch it once.

    An interrupted fetch goes on where it stopped: a large file over plain HTTP after its last byte, others
    with the files that were not yet complete.

    Args:
        ref: a folder, or a repository of the hub.
        revision: commit or branch of the repository.
        cache: the hub's cache folder.
        offline: take what the cache holds.
        endpoint: of the hub or a mirror, instead of HF_ENDPOINT.
        say: told what is going on.
        bars: show the hub client's progress bars on stderr.
        retries: how often a busy hub is asked again.

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
        with translated(ref):
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
    with _turn(folder, ref, say), translated(ref):
        return _fetch(api, ref, revision=revision, folder=folder, say=say, retries=retries or Retries())


def _fetch(
    api: HfApi,
    ref: str,
    *,
    revision: str | None,
    folder: Path,
    say: Callable[[str], object],
    retries: Retries,
) -> LocalCheckpoint:
    info = retries.call(lambda: api.model_info(ref, revision=revision, files_metadata=True, timeout=30), say)
    commit = str(info.sha)
    files = [_hub_file(sibling) for sibling in info.siblings or [] if _is_wanted(sibling.rfilename)]
    if not any(file.name.endswith(".safetensors") for file in files):
        raise BadInputError(f"{ref}: holds no safetensors", remedy="Name a repository with safetensors.")
    blobs = folder / f"models--{ref.replace('/', '--')}" / "blobs"
    remove_leftovers(blobs)
    _check_space(folder, files, ref)
    total = sum(file.size_bytes or 0 for file in files)
    say(f"fetching {ref} at {commit[:12]}: {len(files)} files, {format_bytes(total)}")
    Fetcher(ref, commit=commit, endpoint=api.endpoint, blobs=blobs, retries=retries, say=say).fetch(files)
    path = Path(
        retries.call(
            lambda: api.snapshot_download(
                ref, revision=commit, cache_dir=folder, allow_patterns=list(WANTED)
            ),
            say,
        )
    )
    _verify_against_hub(api, path, files, ref=ref, commit=commit, cache=folder, say=say)
    checked = verify_folder(path, repo_id=ref)
    return LocalCheckpoint(
        path=str(path), repo_id=ref, revision=commit, size_bytes=checked.size_bytes, verified_by="sha256"
    )


@contextlib.contextmanager
def _turn(cache: Path, ref: str, say: Callable[[str], object]) -> Iterator[None]:
    """One fetch of a repository at a time; its end, even by a kill, lets the next one go on.

    The hub's client locks single files only, so a second process would check, and maybe delete, what the
    first has just written.
    """
    path = cache / ".qwenhost-verified" / f"{ref.replace('/', '--')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise BadInputError(
            f"{path.parent}: cannot write: {error.strerror}", remedy="Name a folder you may write to."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{ref} is being fetched by another process, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_leftovers(blobs: Path, *, untouched_s: float = 600.0) -> None:
    """Delete halves that a killed fetch left: the hub's client neither resumes nor removes them.

    One that a process here has open, or that was written to lately, maybe from another machine, stays.
    """
    old = time.time() - untouched_s
    for path in blobs.glob("*.incomplete"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < old and not _is_open(path):
                path.unlink()


def _is_open(path: Path) -> bool:
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if handle.readlink() == path.absolute():
                return True
    return False


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

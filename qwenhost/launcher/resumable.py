"""Large files over plain HTTP, continued where an interrupted fetch stopped.

The hub's client continues a cut connection but begins a file anew in a new process, since its passing files
belong to one process. Here a file's part is named by the checksum it must have in the end, and whoever
holds the repository's lock goes on with it; the client then finds the blob in its cache. Repositories on Xet
storage are left to the client, whose transfer works in chunks.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._runtime import is_xet_available

from qwenhost.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qwenhost.launcher.hub_file import HubFile
    from qwenhost.launcher.hub_retry import Retries

SMALLEST_BYTES: Final = 20_000_000
"""Two of the client's chunks; smaller files are sent again faster than they are continued."""
WORKERS: Final = 4
PART: Final = ".qwenhost-part"


class Fetcher:
    """Brings large files of one commit into the cache's ``blobs``.

    Args:
        ref: repository.
        commit: its revision.
        endpoint: of the hub or a mirror; None = the client's own.
        blobs: folder of the cache.
        retries: of a busy hub.
        say: told what is continued.
    """

    def __init__(
        self,
        ref: str,
        *,
        commit: str,
        endpoint: str | None,
        blobs: Path,
        retries: Retries,
        say: Callable[[str], object],
    ) -> None:
        self._ref, self._commit, self._endpoint = ref, commit, endpoint
        self._blobs, self._retries, self._say = blobs, retries, say
        self._headers = build_hf_headers()

    def fetch(self, files: Sequence[HubFile]) -> None:
        """Each file that is large, missing and of known checksum.

        Raises:
            HfHubHTTPError, OSError: as the hub's client; what came is kept.
        """
        wanted = [file for file in files if self._is_wanted(file)]
        if not wanted or self._is_xet(wanted[0]):
            return
        self._blobs.mkdir(parents=True, exist_ok=True)
        waiting: queue.SimpleQueue[HubFile] = queue.SimpleQueue()
        for file in wanted:
            waiting.put(file)
        failed: list[BaseException] = []
        # Daemons: an impatient Ctrl-C ends the process at once, and the parts stay.
        workers = [
            threading.Thread(target=self._work, args=(waiting, failed), name="weights", daemon=True)
            for _ in range(min(WORKERS, len(wanted)))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(0.2)
        if failed:
            raise failed[0]

    def _work(self, waiting: queue.SimpleQueue[HubFile], failed: list[BaseException]) -> None:
        while not failed:
            try:
                file = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._retries.call(lambda file=file: self._one(file), self._say)  # type: ignore[misc]
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                failed.append(error)

    def _one(self, file: HubFile) -> None:
        part = self._blobs / f"{file.sha256}{PART}"
        with part.open("ab") as content:
            have = content.tell()
            if file.size_bytes is not None and have > file.size_bytes:
                content.truncate(0)
                have = 0
            if have:
                self._say(f"{file.name}: going on after {format_bytes(have)}")
            http_get(
                self._url(file),
                content,
                resume_size=have,
                headers=self._headers,
                expected_size=file.size_bytes,
                displayed_filename=file.name,
            )
        part.replace(self._blobs / str(file.sha256))

    def _is_wanted(self, file: HubFile) -> bool:
        size = file.size_bytes or 0
        fits = SMALLEST_BYTES <= size <= constants.MAX_HTTP_DOWNLOAD_SIZE
        return bool(file.sha256) and fits and not (self._blobs / str(file.sha256)).exists()

    def _is_xet(self, file: HubFile) -> bool:
        found = self._retries.call(
            lambda: get_hf_file_metadata(self._url(file), headers=self._headers), self._say
        )
        return found.xet_file_data is not None and is_xet_available()

    def _url(self, file: HubFile) -> str:
        return hf_hub_url(self._ref, file.name, revision=self._commit, endpoint=self._endpoint)

"""The hub client's exceptions as ours, each with its remedy; and what is a folder, what a repository."""

from __future__ import annotations

import errno
import os
from typing import Final

from huggingface_hub import errors

from qwenhost.errors import BadInputError, QwenhostError, UnavailableError

_HTTP_MESSAGES: Final = {
    401: ("the hub wants a token", "Set HF_TOKEN, or correct the one that is set."),
    403: ("the hub refuses access", "Accept the model's terms on its page, then use your own HF_TOKEN."),
    404: ("no such repository, revision or file", "Check the name; a private one needs HF_TOKEN."),
    429: ("the hub limits the rate", "Wait some minutes; a set HF_TOKEN has a higher limit."),
}
# The hub's client has changed its HTTP library; all of them may raise through it.
_HTTP_LIBRARIES: Final = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


def is_path(ref: str) -> bool:
    """Whether ``ref`` names a folder; repositories are ``OWNER/NAME``."""
    return ref.startswith((".", "/", "~")) or ref.count("/") != 1 or os.path.isdir(ref)  # noqa: PTH112 - takes any name


class translated:  # noqa: N801 - used as a word: with translated(ref)
    """Turns the hub client's exceptions into ours."""

    def __init__(self, ref: str) -> None:
        self._ref = ref

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, QwenhostError):
            return
        if (ours := _as_ours(self._ref, error)) is not None:
            raise ours from error


def _as_ours(ref: str, error: BaseException) -> QwenhostError | None:
    if isinstance(error, errors.HFValidationError):
        return BadInputError(f"{ref}: not a repository name", remedy="Write OWNER/NAME, or a folder.")
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return UnavailableError(
            f"{ref}: not in the cache, and the hub was not reached",
            remedy="Check the network, or unset HF_HUB_OFFLINE, or name a folder.",
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code if error.response is not None else 0
        status = 403 if isinstance(error, errors.GatedRepoError) else status
        what, remedy = _HTTP_MESSAGES.get(
            status, (f"the hub answered {status}", "Try again later; what was fetched is kept.")
        )
        return (BadInputError if status == 404 else UnavailableError)(f"{ref}: {what}", remedy=remedy)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return UnavailableError(
            f"{ref}: the disk is full", remedy="Free space, or set HF_HOME to a larger disk; it resumes."
        )
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _HTTP_LIBRARIES:
        return UnavailableError(
            f"{ref}: the hub was not reached: {str(error) or type(error).__name__}",
            remedy="Check the network or HF_ENDPOINT, then start again; what was fetched is kept.",
        )
    return None

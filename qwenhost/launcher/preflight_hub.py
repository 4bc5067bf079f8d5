"""Whether the hub answers for the weights that are to be fetched, and whether the clock agrees with it."""

from __future__ import annotations

import email.utils
import http.client
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
MAX_CLOCK_ERROR_S: Final = 120.0
"""Assumed: signed download links live for minutes, and certificates have a first day."""
_REMEDIES: Final = {
    401: "Set HF_TOKEN, or correct the one that is set.",
    403: "Accept the model's terms on its page, then use your own HF_TOKEN.",
    404: "Check the repository's name; a private one needs HF_TOKEN.",
    429: "Wait some minutes; a set HF_TOKEN has a higher limit.",
}


def ask_hub(
    repo_id: str, environ: Mapping[str, str], *, now: dt.datetime, timeout_s: float = 10.0
) -> tuple[str, str, float | None]:
    """(problem, remedy, seconds by which this clock is ahead); no problem = empty texts.

    Args:
        repo_id: of the weights.
        environ: HF_ENDPOINT, HF_TOKEN.
        now: this machine's time, with a zone.
        timeout_s: for the one request.
    """
    endpoint = (environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        return f"HF_ENDPOINT {endpoint!r} is no web address", "Write https://HOST.", None
    token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN")
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        f"{endpoint}/api/models/{urllib.parse.quote(repo_id)}",
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - as above
            return "", "", _ahead_s(answer.headers.get("Date"), now)
    except urllib.error.HTTPError as error:
        with error:
            remedy = _REMEDIES.get(error.code, "Try again later, or name a mirror with HF_ENDPOINT.")
            return f"{endpoint} answered {error.code}", remedy, _ahead_s(error.headers.get("Date"), now)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        return (
            f"{endpoint}: {reason}",
            "Check the network, or fetch elsewhere and set HF_HUB_OFFLINE=1.",
            None,
        )


def _ahead_s(date: str | None, now: dt.datetime) -> float | None:
    try:
        return (now - email.utils.parsedate_to_datetime(date or "")).total_seconds()
    except (ValueError, TypeError):
        return None

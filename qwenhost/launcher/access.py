"""Who may call the engine: keys, addresses, certificates; none of it ever stands in an argv or a log."""

from __future__ import annotations

import ipaddress
import ssl
from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError
from qwenhost.launcher.engine_side.qwenhost_key_guard import parse_keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The group may read it: that is how Kubernetes mounts a secret for a pod's user.
_OPEN_TO_OTHERS: Final = 0o027
_ADVICE: Final = "Use 8 or more printable ASCII characters without spaces: openssl rand -hex 24"


def read_api_keys(file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Keys by name, of a file or of QWENHOST_API_KEY; never of a flag, which others could read.

    Raises:
        BadInputError: the file is missing, open to others, or holds no key; or a key is too short.
    """
    if file is None:
        key = environ.get("QWENHOST_API_KEY", "").strip()
        return _parsed(key.replace("\n", " "), "QWENHOST_API_KEY") if key else {}
    source = f"--api-key-file {file}"
    try:
        text = file.read_text()
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{source}: {error}", remedy="Name a text file that holds the key.") from error
    if mode & _OPEN_TO_OTHERS:
        raise BadInputError(
            f"{source}: others may read it (mode {mode & 0o777:o})", remedy=f"Run: chmod 600 {file}"
        )
    if not text.strip():
        raise BadInputError(f"{source}: is empty", remedy="Write a key into it: openssl rand -hex 24")
    return _parsed(text, source)


def read_api_key(file: Path | None, environ: Mapping[str, str]) -> str | None:
    """The first of :func:`read_api_keys`, for a client; None where there is none."""
    return next(iter(read_api_keys(file, environ).values()), None)


def _parsed(text: str, source: str) -> dict[str, str]:
    try:
        return parse_keys(text)
    except ValueError as error:
        raise BadInputError(f"{source}: {error}", remedy=_ADVICE) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_key_beyond_loopback(host: str, *, guarded: bool, flag: str = "--host") -> None:
    """Refuse to open the engine to others without a key.

    Raises:
        BadInputError: a host that is not loopback, and no key.
    """
    if not guarded and not is_loopback(host):
        raise BadInputError(
            f"{flag} {host} would open the engine to others without a key",
            remedy="Set QWENHOST_API_KEY or --api-key-file, or stay on 127.0.0.1.",
        )


def require_certificate(certfile: Path | None, keyfile: Path | None) -> None:
    """Both files or none, and they belong together.

    Raises:
        BadInputError: one is missing, unreadable, encrypted, or of another certificate.
    """
    if certfile is None and keyfile is None:
        return
    if certfile is None or keyfile is None:
        raise BadInputError(
            "TLS needs a certificate and its key", remedy="Give both --ssl-certfile and --ssl-keyfile."
        )
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile, lambda: "")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise BadInputError(
            f"--ssl-certfile {certfile} with --ssl-keyfile {keyfile}: {error}",
            remedy="Give PEM files that belong together, the key without a password.",
        ) from error


def pinned(certfile: str) -> ssl.SSLContext:
    """A client's context that trusts this certificate and no other, whatever name it was made for.

    Raises:
        OSError: the file is gone or no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # asked as 127.0.0.1; the certificate itself is the identity
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be an authority's
    context.load_verify_locations(certfile)
    return context

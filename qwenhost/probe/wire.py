"""Where requests go and how they look on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import msgspec

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go."""

    host: str
    port: int
    tls: bool
    prefix: str
    """Path before ``/v1``, without a trailing slash."""

    @property
    def origin(self) -> str:
        """Scheme, host and port as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.prefix}"

    @property
    def host_header(self) -> str:
        """Value of ``Host``: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


_OF_PATHS: Final = "/%:@!$&'()*+,;=~"
"""What stands in a path as it is; RFC 3986."""


def parse_url(url: str) -> Target:
    """``http://host:8000``, with or without ``/v1``, as a target.

    Raises:
        BadInputError: not an http or https URL.
    """
    remedy = "Give the server's base URL, e.g. http://127.0.0.1:8000."
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
        host = parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise BadInputError(f"{url!r} is not a URL: {error}", remedy=remedy) from error
    if parts.scheme not in ("http", "https") or not host:
        raise BadInputError(f"{url!r} is not an http or https URL", remedy=remedy)
    if parts.username or parts.query or parts.fragment:
        raise BadInputError(f"{url!r}: only scheme, host, port and path are expected", remedy=remedy)
    tls = parts.scheme == "https"
    prefix = quote(parts.path, safe=_OF_PATHS).rstrip("/").removesuffix("/v1").rstrip("/")
    return Target(host=host, port=port or (443 if tls else 80), tls=tls, prefix=prefix)


def request_bytes(
    target: Target,
    method: str,
    path: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
) -> bytes:
    """A request as it goes on the wire; ``path`` begins after the target's prefix."""
    lines = [f"{method} {target.prefix}{path} HTTP/1.1", f"Host: {target.host_header}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")

"""URLs and request bytes."""

from __future__ import annotations

import pytest

from qwenhost.errors import BadInputError
from qwenhost.probe.wire import parse_url, request_bytes


@pytest.mark.parametrize(
    ("url", "origin", "host_header"),
    [
        ("http://h:8000", "http://h:8000", "h:8000"),
        ("h:8000", "http://h:8000", "h:8000"),
        ("http://h:8000/v1/", "http://h:8000", "h:8000"),
        ("https://h/proxy/v1", "https://h:443/proxy", "h"),
        ("http://[::1]:80", "http://[::1]:80", "[::1]"),
    ],
)
def test_a_base_url_may_end_in_v1(url: str, origin: str, host_header: str) -> None:
    """Everything before /v1 is kept, the scheme may be left out."""
    target = parse_url(url)
    assert (target.origin, target.host_header) == (origin, host_header)


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:99999", "http://u:p@h", "http://h/?x=1", ""])
def test_what_is_no_base_url_is_refused(url: str) -> None:
    """With a remedy."""
    with pytest.raises(BadInputError) as caught:
        parse_url(url)
    assert "http://127.0.0.1:8000" in caught.value.remedy


def test_a_request_on_the_wire() -> None:
    """Head, empty line, body."""
    target = parse_url("http://h:8000/p")
    assert request_bytes(target, "POST", "/v1/x", headers=[("A", "b")], body=b"{}") == (
        b"POST /p/v1/x HTTP/1.1\r\nHost: h:8000\r\nA: b\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )

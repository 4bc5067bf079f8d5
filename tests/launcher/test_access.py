"""Who may call: keys in files, addresses, certificates."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from qwenhost.errors import BadInputError
from qwenhost.launcher.access import (
    is_loopback,
    read_api_key,
    read_api_keys,
    require_certificate,
    require_key_beyond_loopback,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.4", False), ("example.org", False)],
)  # fmt: skip
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    """A name that is not localhost counts as open."""
    assert is_loopback(host) is expected


def test_an_open_host_needs_a_key() -> None:
    """Refused before anything is started."""
    require_key_beyond_loopback("0.0.0.0", guarded=True)
    with pytest.raises(BadInputError, match="without a key"):
        require_key_beyond_loopback("0.0.0.0", guarded=False)


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "key"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_the_file_comes_before_the_environment(tmp_path: Path) -> None:
    """Trailing newline and all."""
    environ = {"QWENHOST_API_KEY": "from-environment"}
    assert read_api_key(None, environ) == "from-environment"
    assert read_api_key(key_file(tmp_path, "from-the-file\n"), environ) == "from-the-file"
    assert read_api_key(None, {}) is None


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o600, "is empty"),
        ("short", 0o600, "not a usable key"),
        ("two words here", 0o600, "not a usable key"),
        ("schlüssel-123", 0o600, "not a usable key"),
        ("a-good-long-key", 0o644, "others may read it"),
    ],
)
def test_a_bad_key_file_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    """The message never repeats the key."""
    with pytest.raises(BadInputError, match=said) as caught:
        read_api_key(key_file(tmp_path, text, mode), {})
    assert not text or text not in caught.value.message


def test_a_file_may_hold_several_keys_with_names(tmp_path: Path) -> None:
    """A client takes the first."""
    file = key_file(tmp_path, "alice: alice-key-1\nbob-key-11\n")
    assert read_api_keys(file, {}) == {"alice": "alice-key-1", "key-2": "bob-key-11"}
    assert read_api_key(file, {}) == "alice-key-1"


def make_certificate(folder: Path, name: str = "engine") -> tuple[Path, Path]:
    """A certificate signed by itself, and its key."""
    folder.mkdir(exist_ok=True)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_a_certificate_and_its_key_belong_together(tmp_path: Path) -> None:
    """Found before anything is started, without asking for a password."""
    certificate, key = make_certificate(tmp_path)
    _, other = make_certificate(tmp_path, "other")
    require_certificate(None, None)
    require_certificate(certificate, key)
    for wrong in ((certificate, None), (None, key), (certificate, other), (certificate, tmp_path / "none")):
        with pytest.raises(BadInputError, match=r"certificate|ssl"):
            require_certificate(*wrong)
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", str(key), "-out", str(locked)],
        check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(BadInputError, match="locked"):
        require_certificate(certificate, locked)

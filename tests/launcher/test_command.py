"""What is executed, with which environment, and who may reach it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.launcher.command import (
    EngineCommand,
    ServeOptions,
    cpu_command,
    find_vllm,
    is_loopback,
    read_api_key,
    require_key_beyond_loopback,
)
from qwenhost.launcher.process import ENGINE_SIDE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def vllm(tmp_path: Path) -> str:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(program)


def command(**changes: object) -> EngineCommand:
    fields = {
        "engine": "vllm",
        "argv": ("vllm",),
        "host": "127.0.0.1",
        "port": 8000,
        "model": "m",
        "label": "l",
    }
    return EngineCommand(**{**fields, **changes})


def test_a_cpu_command_is_complete(vllm: str, tmp_path: Path) -> None:
    """The flags of the trial, then the service's, then the user's, which win."""
    options = ServeOptions(
        port=8123, model=str(tmp_path), vllm_bin=vllm, extra_args=("--max-model-len", "4096"), guarded=True
    )
    made = cpu_command(options, load_format="dummy")
    name = tmp_path.name
    assert made.argv == (
        vllm, "serve", str(tmp_path), "--host", "127.0.0.1", "--port", "8123", "--served-model-name", name,
        "--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", "16", "--language-model-only",
        "--enforce-eager", "--load-format", "dummy", "--shutdown-timeout", "30",
        "--disable-access-log-for-endpoints", "/health,/metrics,/ping",
        "--middleware", "qwenhost_key_guard.KeyGuard", "--max-model-len", "4096",
    )  # fmt: skip
    assert made.env["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("flag", ["--api-key", "--host", "--port", "--uds", "--api-key=x"])
def test_flags_that_would_open_the_engine_are_refused(vllm: str, tmp_path: Path, flag: str) -> None:
    """A key in argv can be read by every user of the machine."""
    options = ServeOptions(model=str(tmp_path), vllm_bin=vllm, extra_args=(flag, "x"))
    with pytest.raises(BadInputError, match="set by qwenhost itself"):
        cpu_command(options)


def test_other_services_secrets_stay_out_of_the_engine() -> None:
    """Ours becomes VLLM_API_KEY; the hub's token goes along only where weights come from the hub."""
    environ = {
        "QWENHOST_API_KEY": "a",
        "ANTHROPIC_API_KEY": "b",
        "OPENAI_API_KEY": "c",
        "HF_TOKEN": "d",
        "HOME": "/h",
    }
    local = command().environment(environ, api_key="k")
    assert {"QWENHOST_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "HF_TOKEN"}.isdisjoint(local)
    assert (local["VLLM_API_KEY"], local["HOME"]) == ("k", "/h")
    assert command(local_weights=False).environment(environ, api_key=None)["HF_TOKEN"] == "d"


def test_an_inherited_key_does_not_guard_an_open_engine_by_accident() -> None:
    """VLLM_API_KEY from outside is not ours; without a key of ours the engine is open on loopback."""
    assert "VLLM_API_KEY" not in command().environment({"VLLM_API_KEY": "x"}, api_key=None)


def test_the_users_environment_wins_over_the_plans() -> None:
    """A plan's variable is a default."""
    made = command(env={"VLLM_USE_DEEP_GEMM": "0", "A": "1"})
    env = made.environment({"VLLM_USE_DEEP_GEMM": "1", "PYTHONPATH": "/mine"}, api_key="k")
    assert (env["VLLM_USE_DEEP_GEMM"], env["A"]) == ("1", "1")
    assert env["PYTHONPATH"] == f"{ENGINE_SIDE}:/mine"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("10.0.0.5", "http://10.0.0.5:8000"),
    ],
)
def test_the_supervisor_reaches_the_engine_from_here(host: str, url: str) -> None:
    """An engine that listens everywhere is asked on loopback."""
    assert command(host=host).base_url == url


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


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given path that is none is the user's mistake; none at all is the machine's."""
    with pytest.raises(BadInputError, match="not an executable"):
        find_vllm(str(tmp_path / "vllm"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(UnavailableError, match="no vllm program"):
        find_vllm(None)

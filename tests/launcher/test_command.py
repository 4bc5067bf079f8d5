"""What is executed, with which environment, and who may reach it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.launcher.command import (
    QWEN_PARSERS,
    EngineCommand,
    ServeOptions,
    cpu_command,
    find_vllm,
    simulated_command,
)
from qwenhost.launcher.process import ENGINE_SIDE

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.plan import Plan


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


def test_a_small_qwen_thinks_and_calls_tools_as_the_large_one(vllm: str, tmp_path: Path, plan: Plan) -> None:
    """The parsers of a plan, for a checkpoint of that family alone: others lack the words they look for."""
    options = ServeOptions(model=str(tmp_path), vllm_bin=vllm)
    config = tmp_path / "config.json"
    for text, expected in (
        ('{"architectures": ["Qwen3_5MoeForConditionalGeneration"]}', True),
        ('{"architectures": ["LlamaForCausalLM"]}', False),
        ("[]", False),
    ):
        config.write_text(text)
        argv = cpu_command(options).argv
        assert (" ".join(QWEN_PARSERS) in " ".join(argv)) is expected
    planned = plan.chosen.vllm_argv
    assert {word for word in QWEN_PARSERS if word.startswith("--")} <= set(planned)


@pytest.mark.parametrize("flag", ["--api-key", "--host", "--port", "--uds", "--api-key=x", "--middleware"])
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


def test_routes_that_scale_pause_or_reload_cannot_be_switched_on_from_outside() -> None:
    """Nor can a variable of the user's shell open the engine; the service manager's socket stays ours."""
    hostile = {
        "VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "QWENHOST_OPEN": "1",
        "QWENHOST_KEY_FILE": "/nowhere/keys", "NOTIFY_SOCKET": "/run/n", "QWENHOST_MAX_BODY_BYTES": "9",
    }  # fmt: skip
    options = ServeOptions(guarded=True, key_file="/etc/keys", max_body_bytes=5, max_requests_per_minute=60)
    env = command(guard_env=options.guard_env).environment(hostile, api_key="k")
    assert {key: env[key] for key in env if key not in ("PYTHONPATH", "VLLM_API_KEY")} == {
        "QWENHOST_KEY_FILE": "/etc/keys", "QWENHOST_MAX_BODY_BYTES": "5",
        "QWENHOST_MAX_REQUESTS_PER_MINUTE": "60", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    assert ServeOptions().guard_env["QWENHOST_OPEN"] == "1"


def test_aliases_and_certificates_reach_the_engine(vllm: str, tmp_path: Path, plan: Plan) -> None:
    """One flag with all names for vLLM, whose answers give the first."""
    options = ServeOptions(
        model=str(tmp_path), vllm_bin=vllm, served_model_names=("qwen", "claude-sonnet-4-6"),
        ssl_certfile="/c.pem", ssl_keyfile="/k.pem",
    )  # fmt: skip
    made = cpu_command(options)
    at = made.argv.index("--served-model-name")
    assert made.argv[at : at + 3] == ("--served-model-name", "qwen", "claude-sonnet-4-6")
    at = made.argv.index("--ssl-certfile")
    assert made.argv[at : at + 5] == (
        "--ssl-certfile", "/c.pem", "--ssl-keyfile", "/k.pem", "--enable-ssl-refresh"
    )  # fmt: skip
    assert (made.model, made.base_url) == ("qwen", "https://127.0.0.1:8000")
    simulated = simulated_command(plan, tmp_path / "plan.json", options)
    assert simulated.argv.count("--served-model-name") == 2
    assert simulated.base_url.startswith("https://")


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


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given path that is none is the user's mistake; none at all is the machine's."""
    with pytest.raises(BadInputError, match="not an executable"):
        find_vllm(str(tmp_path / "vllm"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(UnavailableError, match="no vllm program"):
        find_vllm(None)

"""A key in the environment and in files is shown by no command, in no form, nor written into any file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_kit import command_of, leaves

from qwenhost.cli.main import run

if TYPE_CHECKING:
    from cli_kit import Cli

SECRETS = {
    "QWENHOST_API_KEY": "sk-host-5f0c1d2e3b4a5968",
    "ANTHROPIC_API_KEY": "sk-ant-77aa66bb55cc44dd",
    "HF_TOKEN": "hf_99ee88ff77gg66hh55",
}
G = ("--gpus", "2xH200")
# Every command that can be run here to its end or to a refusal, with words that bring it as far as possible.
RUNS: dict[str, list[str]] = {
    "inspect": ["inspect"],
    "plan": ["plan", *G, "--explain"],
    "plan refused": ["plan", "--gpus", "1xL40S", "--checkpoint", "bf16"],
    "plan pareto": ["plan", *G, "--pareto", "--html", "front.html"],
    "plan check": ["plan", *G, "--check", "{log}"],
    "render argv": ["render", "{plan}", "-o", "argv"],
    "render env": ["render", "{plan}", "-f", "env", "-o", "env"],
    "render compose": ["render", "{plan}", "-f", "compose", "-o", "compose.yaml"],
    "render docker": ["render", "{plan}", "-f", "docker"],
    "render systemd": ["render", "{plan}", "-f", "systemd"],
    "render helm": ["render", "{plan}", "-f", "helm"],
    "serve": ["serve", "{plan}", "--api-key-file", "{keys}"],
    "fetch": ["fetch", "fp8", "--offline", "--cache", "hub"],
    "status": ["status"],
    "logs": ["logs"],
    "top": ["top", "--once", "--api-key-file", "{keys}"],
    "stop": ["stop"],
    "k8s plan": ["k8s", "plan", "{keys}"],
    "k8s check": ["k8s", "check", "{keys}"],
    "k8s init": ["k8s", "init", "--request", "{keys}", "--output", "o", "--termination-log", "t"],
    "probe": ["probe", "http://127.0.0.1:9", "--save", "m.json"],
    "probe file": ["probe", "http://127.0.0.1:9", "--api-key-file", "{keys}"],
    "probe sonnet": ["probe", "http://127.0.0.1:9", "--target", "sonnet", "--max-usd", "0.01"],
    "tune": ["tune", "--output-dir", "out"],
    "calibrate": ["calibrate", "--plan", "{plan}", "{keys}"],
    "simulate": ["simulate", "--plan", "{plan}", "--requests", "5"],
    "simulate fleet": ["simulate", "--plan", "{plan}", "--replicas", "1", "--rate", "1", "--requests", "5",
                       "--save", "fleet.json"],
    "count-tokens": ["count-tokens", "{sample}", "--url", "http://127.0.0.1:9", "--claude-url",
                     "http://127.0.0.1:9"],
    "cost": ["cost"],
    "compare": ["compare", "--plan", "{plan}", "--output-dir", "verdict", "--csv", "csv"],
    "advise": ["advise", "--plan", "{plan}"],
    "report": ["report", "{comparison}", "--html", "r.html"],
    "profiles list": ["profiles", "list"],
    "profiles show": ["profiles", "show", "h200"],
    "profiles check": ["profiles", "check"],
    "profiles schema": ["profiles", "schema", "gpus"],
    "profiles import": ["profiles", "import", "Qwen/Qwen3.5-122B-A10B-FP8", "--offline"],
    "completion": ["completion", "bash"],
    "doctor": ["doctor", "{plan}"],
}  # fmt: skip
BOTH_FORMS = [(name, form) for name in RUNS for form in ("text", "json")]


@pytest.fixture
def places(saved: Path, compared: Path, tmp_path: Path) -> dict[str, str]:
    keys = tmp_path / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"ops: {SECRETS['QWENHOST_API_KEY']}\n")
    sample = tmp_path / "sample.jsonl"
    sample.write_text('{"prompt": "Hello"}\n')
    log = Path(__file__).parent.parent / "logs" / "vllm-0.32-cpu-start.log"
    return {"plan": str(saved), "comparison": str(compared), "keys": str(keys), "sample": str(sample),
            "log": str(log)}  # fmt: skip


@pytest.fixture
def _with_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_with_secrets")
@pytest.mark.parametrize(("name", "form"), BOTH_FORMS, ids=lambda value: value)
def test_no_command_shows_or_keeps_a_key(
    *, cli: Cli, name: str, form: str, places: dict[str, str], tmp_path: Path
) -> None:
    """Neither on stdout nor on stderr, neither whole nor its tail, nor in what it wrote."""
    words = [word.format(**places) for word in RUNS[name]]
    done = cli(*words, *(["--json"] if form == "json" else []))
    said = done.out + done.err
    written = [path for path in tmp_path.rglob("*") if path.is_file() and str(path) != places["keys"]]
    kept = b"".join(path.read_bytes() for path in written).decode(errors="replace")
    state = Path(os.environ["QWENHOST_STATE_DIR"])
    for path in state.rglob("*") if state.is_dir() else ():
        if path.is_file():
            assert path.name == "api-key" or not any(
                secret in path.read_text(errors="replace") for secret in SECRETS.values()
            ), path
    for secret in SECRETS.values():
        assert secret not in said
        assert secret[-10:] not in said
        assert secret not in kept


def test_every_command_is_among_them() -> None:
    """But demo, which is compare with an engine and is run for real elsewhere."""
    run_here = {tuple(words[: len(leaf)]) for words in RUNS.values() for leaf in leaves()}
    missing = {leaf for leaf in leaves() if leaf not in run_here} - {("demo",)}
    assert not missing


def test_a_key_is_no_word_of_a_process(saved: Path) -> None:
    """Everybody on a machine may read the words of its processes: no option takes the key itself."""
    for leaf in leaves():
        for param in command_of(leaf).params:
            for name in param.opts:
                assert not name.endswith(("-key", "-token", "-secret", "-password")), (leaf, name)


@pytest.mark.parametrize("content", ["two words on a line", "ops: \n", "\n\n", "# only a comment\n"])
def test_a_file_of_keys_in_another_form_is_refused_without_its_content(
    cli: Cli, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_text(content)
    done = cli("probe", "http://127.0.0.1:9", "--api-key-file", path)
    assert done.code in {2, 4}
    assert "two words on a line" not in done.err


def test_a_traceback_shows_no_key_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With --debug, in a process of its own."""
    environment = os.environ | SECRETS
    done = subprocess.run(
        [sys.executable, "-m", "qwenhost", "--debug", "probe", "http://127.0.0.1:9"],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert "Traceback" in done.stderr
    for secret in SECRETS.values():
        assert secret not in done.stdout + done.stderr
    with pytest.raises(Exception, match="does not answer"):
        run(["--debug", "probe", "http://127.0.0.1:9"])


def test_the_rendered_files_name_where_a_key_comes_from(cli: Cli, saved: Path, places: Any) -> None:
    """A container needs one; what is rendered refers to a variable or a file."""
    text = cli("render", saved, "-f", "compose").out
    assert "API_KEY" in text
    assert SECRETS["QWENHOST_API_KEY"] not in text

"""What the fuzz tests found, one example each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fuzz_kit import DEEP, LONG_NUMBER

from qwenhost.cli.main import run
from qwenhost.errors import BadInputError
from qwenhost.kubernetes import read_manifests
from qwenhost.launcher.load import read_metrics
from qwenhost.launcher.logged_args import logged_arguments
from qwenhost.launcher.phases import read_log
from qwenhost.node import node_from_json, parse_gpus
from qwenhost.probe.own_prompts import FilePrompts
from qwenhost.profiles import ProfileError
from qwenhost.profiles.parse import parse_file
from qwenhost.simulate.trace import read_trace
from qwenhost.traces import read_requests

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("value", ["!!bool x", "!!int ''", "!!float ''", "!!timestamp x"])
def test_a_value_that_its_tag_does_not_fit(value: str) -> None:
    """PyYAML's constructors raise KeyError, IndexError and AttributeError over them."""
    with pytest.raises(ProfileError, match="not valid YAML"):
        parse_file("x.yaml", f"gpus: {value}\n".encode())
    with pytest.raises(BadInputError, match=r"x\.yaml"):
        read_manifests(f"kind: {value}\n", "x.yaml")


def test_figures_of_a_garbled_log() -> None:
    """A comma alone is no number; sets of sets and digits without end are no arguments."""
    assert read_log("Using max model len ,").figures.max_model_len is None
    assert read_log(f"Available KV cache memory: {LONG_NUMBER} GiB").label
    for text in ("{[]: 1}", f"{{'a': {LONG_NUMBER}}}"):
        assert isinstance(logged_arguments(f"non-default args: {text}"), dict)


def test_a_metric_that_is_no_number() -> None:
    assert read_metrics('vllm:num_requests_running{engine="0"} ²\n', 1.0).values == {}


def test_more_gpus_than_digits() -> None:
    with pytest.raises(BadInputError):
        parse_gpus(f"{LONG_NUMBER}xH200", {})


@pytest.mark.parametrize("text", [DEEP, b'a\n"' + b"x" * 200_000 + b'"\n'])
def test_traces_beyond_reason(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "trace"
    file.write_bytes(text)
    with pytest.raises(BadInputError, match="trace"):
        read_requests(file)


@pytest.mark.parametrize("data", [DEEP, b"{", b"\xff"])
def test_a_node_that_is_not_json(data: bytes) -> None:
    with pytest.raises(BadInputError, match="not a node"):
        node_from_json(data)


def test_a_conversation_in_which_the_user_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text('{"messages":[{"role":"assistant","content":"Hi"}]}')
    with pytest.raises(BadInputError, match="the user says nothing"):
        FilePrompts(file, max_tokens=7).turns(0, 3)


@pytest.mark.parametrize(
    "argv",
    [
        ["profiles", "check", "x" * 5000],
        ["--profiles", "x" * 5000, "plan", "--gpus", "2xH200"],
        ["plan", "--gpus", "2xH200", "--checkpoint", "x" * 5000],
        ["probe", "http://127.0.0.1:9", "--save", "x" * 5000 + "/m.json"],
        ["compare", "--plan", "x" * 5000],
        ["fetch", "x" * 5000],
    ],
)
def test_a_name_longer_than_the_system_takes_is_bad_input(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is first looked at."""
    assert run(argv) == 2
    said = capsys.readouterr().err
    assert "fault of qwenhost" not in said
    assert "Traceback" not in said


def test_a_trace_of_more_tokens_than_there_are_blocks_for(tmp_path: Path) -> None:
    """A list of 6e17 block numbers was made, to compare them with none: it filled 16 GB of memory."""
    row = (
        '{"type":"assistant","sessionId":"s1","timestamp":"2026-11-20T10:00:05.000Z","message":{"id":null,'
        '"usage":{"input_tokens":3,"cache_creation_input_tokens":9223372036854775807,'
        '"cache_read_input_tokens":900,"output_tokens":20}}}\n'
    )
    (tmp_path / "trace.jsonl").write_text(row)
    (arrival,) = read_trace(tmp_path / "trace.jsonl", block_size=16)
    assert arrival.request.prompt_tokens == 9223372036854775807 + 903
    assert arrival.request.block_hashes == ()

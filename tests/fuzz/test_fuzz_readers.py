"""Readers of files of other programs: a result, or one sentence that names the file."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from fuzz_kit import DEEP, damaged, damaged_bytes, fuzzed, junk, texts
from hypothesis import strategies as st

from qwenhost.cost import load_trace
from qwenhost.errors import QwenhostError
from qwenhost.launcher.logged_args import logged_arguments
from qwenhost.launcher.phases import read_log
from qwenhost.probe.own_prompts import FilePrompts
from qwenhost.probe.token_sample import read_sample
from qwenhost.probe.tools import read_tools
from qwenhost.simulate.trace import read_trace
from qwenhost.tensors.header import LENGTH_BYTES, header_length, parse_header
from qwenhost.traces import read_requests

LOGS = Path(__file__).parent.parent / "logs"
HOME = Path(tempfile.mkdtemp(prefix="qwenhost-fuzz-"))

CLAUDE_CODE: dict[str, Any] = {
    "type": "assistant", "sessionId": "s1", "timestamp": "2026-11-20T10:00:05.000Z",
    "message": {"id": "m1", "usage": {"input_tokens": 3, "cache_creation_input_tokens": 100,
                                      "cache_read_input_tokens": 900, "output_tokens": 20}},
}  # fmt: skip
ROWS: list[list[Any]] = [
    [{"arrival_s": 0.5, "input_tokens": 900, "output_tokens": 120, "session": "a", "cached_tokens": 5}],
    [{"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}],
    [{"timestamp": "2026-11-20T10:00:00Z", "prompt_tokens": 9, "completion_tokens": 3,
      "prompt_tokens_details": {"cached_tokens": 2}, "session": "a"}],
    [{"usage": {"input_tokens": 9, "output_tokens": 3, "cache_creation": {"ephemeral_1h_input_tokens": 2},
                "server_tool_use": {"web_search_requests": 1}}}],
    [CLAUDE_CODE, CLAUDE_CODE],
]  # fmt: skip
REPORTS: list[Any] = [
    {"data": [{"starting_at": "2026-11-01T00:00:00Z", "results": [
        {"uncached_input_tokens": 5, "cache_creation": {"ephemeral_5m_input_tokens": 1}, "output_tokens": 3,
         "context_window": "0-200k"}]}]},
    {"object": "page", "data": [{"start_time": 1, "results": [
        {"input_tokens": 5, "output_tokens": 3, "input_cached_tokens": 2, "batch": True}]}]},
]  # fmt: skip
CSV = (
    b"TIMESTAMP,ContextTokens,GeneratedTokens\n2026-11-01 00:00:02.5000000,100,20\n",
    b"Timestamp,Session ID,Model,Request tokens,Response tokens\n5,7,ChatGPT,300,30\n",
    b"usage_date_utc,usage_input_tokens_no_cache,usage_output_tokens\n2026-11-01,300,30\n",
)
PROMPTS: list[list[Any]] = [
    [{"prompt": "Hello", "max_tokens": 5, "answer": "Hi"}],
    [{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}],
    [{"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]}],
]
TOOLS = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def _lines(rows: Any) -> bytes:
    return b"\n".join(msgspec.json.encode(row) for row in rows) if isinstance(rows, list) else b"{}"


def _file(data: bytes) -> Path:
    path = HOME / "fuzzed"
    path.write_bytes(data)
    return path


documents = st.one_of(
    damaged(ROWS).map(_lines), damaged(ROWS).map(msgspec.json.encode),
    damaged(REPORTS).map(msgspec.json.encode),
    damaged_bytes(CSV), damaged_bytes([*map(_lines, ROWS), *map(msgspec.json.encode, REPORTS), DEEP]),
)  # fmt: skip


@fuzzed(150, data=documents)
def test_requests_of_a_trace(data: bytes) -> None:
    with contextlib.suppress(QwenhostError):
        assert all(one.input_tokens > 0 and one.output_tokens > 0 for one in read_requests(_file(data)))


@fuzzed(150, data=documents)
def test_a_trace_for_the_simulator(data: bytes) -> None:
    with contextlib.suppress(QwenhostError):
        found = read_trace(_file(data), block_size=16)
        assert found[0].at_s == 0


@fuzzed(150, data=documents)
def test_usage_to_price(data: bytes) -> None:
    with contextlib.suppress(QwenhostError):
        assert load_trace(_file(data)).usages


prompts = st.one_of(damaged(PROMPTS).map(_lines), damaged_bytes([*map(_lines, PROMPTS), DEEP]))


@fuzzed(150, data=prompts)
def test_the_users_own_prompts(data: bytes) -> None:
    with contextlib.suppress(QwenhostError):
        found = FilePrompts(_file(data), max_tokens=7, seed=1)
        assert found[0].max_tokens is not None
        assert len(found.turns(0, 3)) <= 3


@fuzzed(150, data=prompts)
def test_a_sample_to_count(data: bytes) -> None:
    with contextlib.suppress(QwenhostError):
        assert read_sample(_file(data), most=None)[0]


@fuzzed(200, data=st.one_of(damaged([[TOOLS]]).map(msgspec.json.encode), damaged_bytes([b"[]", DEEP])))
def test_tools(data: bytes) -> None:
    with contextlib.suppress(QwenhostError):
        read_tools(_file(data))


LOG_LINES = [
    line for file in sorted(LOGS.glob("*.log"))[:6]
    for line in file.read_bytes().splitlines() if len(line) < 400
]  # fmt: skip
FIGURES = [
    f"INFO 11-20 10:00:00 [core.py:1] {text}"
    for text in (
        "Using max model len {}", "max_num_batched_tokens={}", "Checkpoint size: {} GiB",
        "Loading weights took {} seconds", "Model loading took {} GiB", "Available KV cache memory: {} GiB",
        "Setting attention block size to {} tokens", "GPU KV cache size: {} tokens", "Explicitly set ({}/",
        "Maximum concurrency for 1 tokens per request: {}x", "torch.compile took {} s",
        "Graph capturing finished in 1 secs, took {} GiB", "init engine (x) took {} s",
        "checkpoint shards: 5% Completed | {}/3", "Capturing CUDA graphs | 3/{}",
        "non-default args: {{'a': {}}}", "non-default args: {}",
    )
]  # fmt: skip
ARGUMENTS = (
    "{[]: 1}",
    "{{}: 1}",
    "{'a': {[]: 1}}",
    "{'a': b'\\x'}",
    "{'x': " + "(" * 300,
    "{'a': 1}",
    "{1, 2}",
)
log_values = st.one_of(texts, st.from_regex(r"[\d,.]{1,12}", fullmatch=True), st.sampled_from(ARGUMENTS))
logs = st.one_of(
    damaged_bytes([b"\n".join(LOG_LINES[i : i + 20]) for i in range(0, len(LOG_LINES), 20)]).map(
        lambda data: data.decode(errors="replace")
    ),
    st.lists(
        st.tuples(st.sampled_from(FIGURES), log_values).map(lambda pair: pair[0].format(pair[1])), max_size=5
    ).map("\n".join),
)


@fuzzed(200, text=logs)
def test_logs_of_vllm(text: str) -> None:
    progress = read_log(text)
    assert progress.label
    assert isinstance(logged_arguments(text), dict)


HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
    "b": {"dtype": "F4", "shape": [4], "data_offsets": [12, 14]},
}
_GOOD = json.dumps(HEADER).encode()


@fuzzed(
    150,
    header=st.one_of(damaged([HEADER]).map(msgspec.json.encode), damaged_bytes([_GOOD, DEEP])),
    length=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    data_bytes=st.integers(0, 20),
)
def test_headers_of_safetensors(header: bytes, length: int | None, data_bytes: int) -> None:
    size = LENGTH_BYTES + len(header) + data_bytes
    prefix = struct.pack("<Q", len(header) if length is None else length)
    with contextlib.suppress(QwenhostError):
        assert header_length("x", prefix, size) <= size
    with contextlib.suppress(QwenhostError):
        found = parse_header("x", header, size)
        assert sum(tensor.stored_bytes for tensor in found) == data_bytes


@fuzzed(200, value=junk, pieces=st.binary(max_size=30))
def test_a_header_of_anything(value: Any, pieces: bytes) -> None:
    for header in (msgspec.json.encode(value), pieces):
        with contextlib.suppress(QwenhostError):
            parse_header("x", header, LENGTH_BYTES + len(header))

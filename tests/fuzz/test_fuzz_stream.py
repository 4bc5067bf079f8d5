"""What a server may send: every stream is read to its end, and what is wrong with it is noted."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from fuzz_kit import DEEP, damaged, damaged_bytes, fuzzed, texts
from hypothesis import strategies as st

from qwenhost.errors import QwenhostError
from qwenhost.launcher.load import read_metrics
from qwenhost.probe.endpoints import decoder
from qwenhost.probe.sse import EventCutter, events
from qwenhost.probe.wire import parse_url

EVENTS: list[Any] = [
    {"choices": [{"delta": {"content": "a", "reasoning": None, "tool_calls": [{"function": {"name": "f"}}]},
                  "finish_reason": None}], "usage": None},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3,
                              "prompt_tokens_details": {"cached_tokens": 2}}},
    {"choices": [{"text": "a", "finish_reason": "stop"}], "error": {"message": "x"}},
    {"type": "response.output_text.delta", "delta": "a"},
    {"type": "response.output_item.added", "item": {"type": "function_call"}},
    {"type": "response.completed", "response": {"usage": {"input_tokens": 5, "output_tokens": 3}}},
    {"type": "message_start", "message": {"usage": {"input_tokens": 5, "cache_read_input_tokens": 2}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content_block_start", "content_block": {"type": "tool_use"}},
    {"type": "message_delta", "usage": {"output_tokens": 3}}, {"type": "message_stop"},
    {"type": "error", "error": {"type": "overloaded_error"}},
]  # fmt: skip
_STREAM = b"".join(b"event: x\ndata: " + msgspec.json.encode(event) + b"\n\n" for event in EVENTS)
ENDPOINTS: Any = st.sampled_from(("chat", "completions", "responses", "messages"))


@fuzzed(
    400, body=damaged_bytes([_STREAM, b"data: [DONE]\n\n", b"data: x\r\n\r\n:\n\n", DEEP]),
    cuts=st.lists(st.integers(0, 2000), max_size=6), endpoint=ENDPOINTS,
)  # fmt: skip
def test_bodies_of_streams(body: bytes, cuts: list[int], endpoint: Any) -> None:
    """Wherever the segments end, the same events come out, and each is taken without an exception."""
    ends = [*sorted(min(cut, len(body)) for cut in cuts), len(body)]
    found = [data for _, data in events(body, [float(i) for i in range(len(ends))], ends)]
    if b"\r" not in body:  # CR, LF in two segments may be two line ends or one
        assert found == EventCutter().feed(body)
    stream = decoder(endpoint)
    for number, data in enumerate(found):
        stream.feed(float(number), data)
    assert stream.error is None or stream.detail is not None


@fuzzed(400, drawn=st.lists(damaged(EVENTS), max_size=4), endpoint=ENDPOINTS)
def test_events_of_streams(drawn: list[Any], endpoint: Any) -> None:
    stream = decoder(endpoint)
    for number, event in enumerate(drawn):
        stream.feed(float(number), msgspec.json.encode(event))
    assert stream.chunk_times == sorted(stream.chunk_times)


@fuzzed(100, endpoint=ENDPOINTS, depth=st.integers(2000, 20_000))
def test_events_nested_beyond_reason(endpoint: Any, depth: int) -> None:
    stream = decoder(endpoint)
    stream.feed(0.0, b'{"x": ' + b"[" * depth)
    assert stream.error == "malformed_event"


@fuzzed(200, url=st.one_of(texts, st.from_regex(r"(https?://)?[\w.:\[\]@?#/-]{0,15}", fullmatch=True)))
def test_addresses(url: str) -> None:
    with contextlib.suppress(QwenhostError):
        assert parse_url(url).host


METRICS = b'# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name="q"} 3.0\n' * 2


@fuzzed(
    200,
    data=st.one_of(
        damaged_bytes([METRICS, b'vllm:request_success_total{a="b"} NaN\n']),
        texts.map(
            lambda text: f'vllm:num_requests_running{{engine="0"}} {text}\n'.encode("utf-8", "replace")
        ),
    ),
)
def test_metrics_of_an_engine(data: bytes) -> None:
    assert read_metrics(data.decode(errors="replace"), 1.0) is not None

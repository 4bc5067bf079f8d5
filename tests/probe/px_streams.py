"""Streams as servers send them, and a connection that receives them in any pieces.

The events are written as vLLM 0.33, OpenAI and Anthropic put them on the wire: their fields, their order,
their spaces. What each says is stated beside it.
"""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from qwenhost.probe.connection import Connection
from qwenhost.probe.decoding import decode
from qwenhost.probe.endpoints import Endpoint, decoder
from qwenhost.probe.exchange import Exchange
from qwenhost.probe.recording import to_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.measurements import RequestRecord

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
LAST: Final = b"0\r\n\r\n"


class Stream(NamedTuple):
    """A recorded stream: what was sent and what it says."""

    endpoint: Endpoint
    events: tuple[tuple[str, str], ...]
    """(``t`` thinking, ``v`` visible or ``-`` for neither, the event without its blank line)."""
    says: dict[str, Any]
    """Fields of the record."""


def _vllm_chat(delta: str, finish: str = "null") -> str:
    return (
        (
            'data: {"id":"chatcmpl-8d2f","object":"chat.completion.chunk","created":1763899200,'
            '"model":"Qwen/Qwen3.6-35B-A3B","choices":[{"index":0,"delta":DELTA,"logprobs":null,'
            '"finish_reason":FINISH,"token_ids":null}]}'
        )
        .replace("DELTA", delta)
        .replace("FINISH", finish)
    )


VLLM_CHAT: Final = Stream(
    "chat",
    (
        ("-", _vllm_chat('{"role":"assistant","content":"","reasoning":null}')),
        ("t", _vllm_chat('{"reasoning":"Hm"}')),
        ("t", _vllm_chat('{"reasoning":", über"}')),
        ("v", _vllm_chat('{"content":"It\'s"}')),
        ("v", _vllm_chat('{"content":" \\"so\\"\\n"}')),
        ("v", _vllm_chat('{"content":" 日本 🦜"}')),
        ("-", _vllm_chat('{"content":""}', '"stop"')),
        (
            "-",
            (
                'data: {"id":"chatcmpl-8d2f","object":"chat.completion.chunk","created":1763899200,'
                '"choices":[],"usage":{"prompt_tokens":812,"total_tokens":821,"completion_tokens":9,'
                '"prompt_tokens_details":{"cached_tokens":544},"completion_tokens_details":'
                '{"reasoning_tokens":3}}}'
            ),
        ),
        ("-", "data: [DONE]"),
    ),
    {"input_tokens": 812, "output_tokens": 9, "cached_tokens": 544, "reasoning_tokens": 3},
)


def _vllm_text(text: str, finish: str = "null") -> str:
    return (
        'data: {"id":"cmpl-77","object":"text_completion","created":1763899200,"choices":[{"index":0,'
        f'"text":"{text}","logprobs":null,"finish_reason":{finish},"stop_reason":null,"token_ids":null,'
        '"prompt_token_ids":null}],"usage":null}'
    )


VLLM_COMPLETIONS: Final = Stream(
    "completions",
    (
        ("v", _vllm_text("Once")),
        ("v", _vllm_text(" upon")),
        ("-", _vllm_text("")),
        ("v", _vllm_text(" a", '"length"')),
        (
            "-",
            (
                'data: {"id":"cmpl-77","object":"text_completion","created":1763899200,"choices":[],'
                '"usage":{"prompt_tokens":5,"total_tokens":9,"completion_tokens":4,"prompt_tokens_details":null}}'
            ),
        ),
        ("-", "data: [DONE]"),
    ),
    {"input_tokens": 5, "output_tokens": 4, "cached_tokens": 0},
)


def _openai_chat(delta: str, finish: str = "null", padding: str = "x7Q") -> str:
    return (
        (
            'data: {"id":"chatcmpl-Cf3","object":"chat.completion.chunk","created":1763899200,'
            '"model":"gpt-5.1-2025-11-13","service_tier":"default","system_fingerprint":null,"choices":'
            '[{"index":0,"delta":DELTA,"finish_reason":FINISH}],"usage":null,"obfuscation":"PADDING"}'
        )
        .replace("DELTA", delta)
        .replace("FINISH", finish)
        .replace("PADDING", padding)
    )


def _openai_call(piece: str, padding: str) -> str:
    return _openai_chat(
        f'{{"tool_calls":[{{"index":0,"function":{{"arguments":"{piece}"}}}}]}}', padding=padding
    )


OPENAI_TOOLS: Final = Stream(
    "chat",
    (
        ("-", _openai_chat('{"role":"assistant","content":null,"refusal":null}', padding="")),
        ("v", _openai_chat('{"content":"Looking"}', padding="kP2eR")),
        (
            "v",
            _openai_chat(
                '{"tool_calls":[{"index":0,"id":"call_a1","type":"function","function":'
                '{"name":"read_file","arguments":""}}]}'
            ),
        ),
        ("v", _openai_call('{\\"id\\":', "a8")),
        ("v", _openai_call('\\"7\\"}', "")),
        (
            "v",
            _openai_chat(
                '{"tool_calls":[{"index":1,"id":"call_a2","type":"function","function":'
                '{"name":"list_file","arguments":"{}"}}]}'
            ),
        ),
        ("-", _openai_chat("{}", '"tool_calls"')),
        (
            "-",
            (
                'data: {"id":"chatcmpl-Cf3","object":"chat.completion.chunk","created":1763899200,'
                '"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,'
                '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":'
                '{"reasoning_tokens":0,"accepted_prediction_tokens":0}},"obfuscation":"Zk"}'
            ),
        ),
        ("-", "data: [DONE]"),
    ),
    {"input_tokens": 100, "output_tokens": 20, "cached_tokens": 0, "reasoning_tokens": 0, "tool_calls": 2},
)


def _named(kind: str, rest: str) -> str:
    return f'event: {kind}\ndata: {{"type":"{kind}"{rest}}}'


OPENAI_RESPONSES: Final = Stream(
    "responses",
    (
        ("-", _named("response.created", ',"sequence_number":0,"response":{"id":"resp_1","usage":null}')),
        ("-", _named("response.in_progress", ',"sequence_number":1,"response":{"id":"resp_1","error":null}')),
        (
            "-",
            _named(
                "response.output_item.added",
                ',"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[]}',
            ),
        ),
        ("t", _named("response.reasoning_summary_text.delta", ',"item_id":"rs_1","delta":"**Think"')),
        ("-", _named("response.reasoning_summary_text.done", ',"item_id":"rs_1","text":"**Think"')),
        (
            "-",
            _named(
                "response.output_item.added",
                ',"output_index":1,"item":{"id":"m","type":"message","status":"in_progress","content":[]}',
            ),
        ),
        ("v", _named("response.output_text.delta", ',"content_index":0,"delta":"Grüß","logprobs":[]')),
        ("v", _named("response.output_text.delta", ',"content_index":0,"delta":" Gott","logprobs":[]')),
        ("-", _named("response.output_text.done", ',"text":"Grüß Gott"')),
        (
            "v",
            _named(
                "response.output_item.added",
                ',"output_index":2,"item":{"id":"fc_1","type":"function_call","call_id":"c1","name":"f",'
                '"arguments":""}',
            ),
        ),
        ("v", _named("response.function_call_arguments.delta", ',"item_id":"fc_1","delta":"{}"')),
        (
            "-",
            _named(
                "response.completed",
                ',"response":{"id":"resp_1","status":"completed","error":null,"usage":{"input_tokens":37,'
                '"input_tokens_details":{"cached_tokens":32},"output_tokens":11,"output_tokens_details":'
                '{"reasoning_tokens":4},"total_tokens":48}}',
            ),
        ),
    ),
    {"input_tokens": 37, "output_tokens": 11, "cached_tokens": 32, "reasoning_tokens": 4, "tool_calls": 1},
)

VLLM_RESPONSES: Final = Stream(
    "responses",
    (
        ("-", _named("response.created", ',"response":{"id":"resp_v","usage":null},"sequence_number":0')),
        ("t", _named("response.reasoning_text.delta", ',"content_index":0,"delta":"Let","item_id":"i"')),
        ("-", _named("response.reasoning_text.done", ',"content_index":0,"text":"Let","item_id":"i"')),
        ("v", _named("response.output_text.delta", ',"content_index":0,"delta":"me","logprobs":[]')),
        (
            "-",
            _named(
                "response.incomplete",
                ',"response":{"id":"resp_v","status":"incomplete","incomplete_details":{"reason":'
                '"max_output_tokens"},"usage":{"input_tokens":8,"input_tokens_details":{"cached_tokens":0},'
                '"output_tokens":2,"output_tokens_details":{"reasoning_tokens":1,"tool_output_tokens":0},'
                '"total_tokens":10}}',
            ),
        ),
        ("-", "data: [DONE]"),
    ),
    {"input_tokens": 8, "output_tokens": 2, "reasoning_tokens": 1},
)

ANTHROPIC: Final = Stream(
    "messages",
    (
        (
            "-",
            _named(
                "message_start",
                ',"message":{"id":"msg_01","type":"message","role":"assistant","model":"claude-sonnet-4-6",'
                '"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,'
                '"cache_creation_input_tokens":40,"cache_read_input_tokens":1000,"cache_creation":'
                '{"ephemeral_5m_input_tokens":40,"ephemeral_1h_input_tokens":0},"output_tokens":1}}',
            ),
        ),
        ("-", _named("content_block_start", ',"index":0,"content_block":{"type":"thinking","thinking":""}')),
        ("-", _named("ping", "")),
        (
            "t",
            _named(
                "content_block_delta", ',"index":0,"delta":{"type":"thinking_delta","thinking":"First"}'
            ),
        ),
        (
            "-",
            _named(
                "content_block_delta", ',"index":0,"delta":{"type":"signature_delta","signature":"EqQBC"}'
            ),
        ),
        ("-", _named("content_block_stop", ',"index":0')),
        ("-", _named("content_block_start", ',"index":1,"content_block":{"type":"text","text":""}')),
        ("v", _named("content_block_delta", ',"index":1,"delta":{"type":"text_delta","text":"Okay 👋"}')),
        ("-", _named("content_block_stop", ',"index":1')),
        (
            "v",
            _named(
                "content_block_start",
                ',"index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"get_weather",'
                '"input":{}}',
            ),
        ),
        (
            "-",
            _named(
                "content_block_delta", ',"index":2,"delta":{"type":"input_json_delta","partial_json":""}'
            ),
        ),
        (
            "v",
            _named(
                "content_block_delta",
                ',"index":2,"delta":{"type":"input_json_delta","partial_json":"{\\"location\\":"}',
            ),
        ),
        (
            "v",
            _named(
                "content_block_delta",
                ',"index":2,"delta":{"type":"input_json_delta","partial_json":" \\"SF\\"}"}',
            ),
        ),
        (
            "-",
            _named(
                "message_delta",
                ',"delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89}',
            ),
        ),
        ("-", _named("message_stop", "")),
    ),
    {"input_tokens": 1065, "cached_tokens": 1000, "cache_written_tokens": 40, "output_tokens": 89,
     "tool_calls": 1},
)  # fmt: skip

VLLM_MESSAGES: Final = Stream(
    "messages",
    (
        (
            "-",
            _named(
                "message_start",
                ',"message":{"id":"chatcmpl-1","type":"message","role":"assistant","content":[],"model":"m",'
                '"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":16,"output_tokens":0}}',
            ),
        ),
        ("-", _named("content_block_start", ',"content_block":{"type":"text","text":""},"index":0')),
        ("v", _named("content_block_delta", ',"delta":{"type":"text_delta","text":"Hi"},"index":0')),
        ("v", _named("content_block_delta", ',"delta":{"type":"text_delta","text":" there"},"index":0')),
        ("-", _named("content_block_stop", ',"index":0')),
        (
            "-",
            _named(
                "message_delta",
                ',"delta":{"stop_reason":"max_tokens","stop_sequence":null},"usage":{"input_tokens":16,'
                '"output_tokens":2,"cache_read_input_tokens":8}',
            ),
        ),
        ("-", _named("message_stop", "")),
    ),
    # With the usage of the end, in which what was cached is no part of input_tokens.
    {"input_tokens": 24, "cached_tokens": 8, "output_tokens": 2},
)

STREAMS: Final = {
    "vLLM chat": VLLM_CHAT,
    "vLLM completions": VLLM_COMPLETIONS,
    "vLLM responses": VLLM_RESPONSES,
    "vLLM messages": VLLM_MESSAGES,
    "OpenAI chat with tools": OPENAI_TOOLS,
    "OpenAI responses": OPENAI_RESPONSES,
    "Anthropic messages": ANTHROPIC,
}


# --------------------------------------------------------------------------- on the wire


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Wire(NamedTuple):
    """A whole answer, and where each event of it is complete."""

    data: bytes
    kinds: str
    """A letter for each event."""
    complete_at: tuple[int, ...]
    """Bytes after which each event is complete."""

    def times(self, kinds: str, arrived: Sequence[tuple[int, float]]) -> tuple[float, ...]:
        """When events of these kinds were complete, of (bytes so far, time) of each segment."""
        return tuple(
            next(time for so_far, time in arrived if so_far >= at)
            for kind, at in zip(self.kinds, self.complete_at, strict=True)
            if kind in kinds and at <= arrived[-1][0]
        )


def wire_of(stream: Stream, *, line_end: str = "\n", head: bytes = HEAD) -> Wire:
    """Each event in a chunk of its own, as uvicorn writes them."""
    data, complete_at = bytearray(head), []
    for _, event in stream.events:
        body = event.replace("\n", line_end).encode() + 2 * line_end.encode()
        framed = chunk(body)
        complete_at.append(len(data) + len(framed) - 2)  # What is left of it is the chunk's line end.
        data += framed
    return Wire(bytes(data + LAST), "".join(kind for kind, _ in stream.events), tuple(complete_at))


class Owner:
    """Stands where the client stands, and keeps what it hears."""

    def __init__(self) -> None:
        self.selector: Any = SimpleNamespace(stamp=0.0)
        self.buffer = memoryview(bytearray(64 * 1024))
        self.ends: list[tuple[str | None, str]] = []
        self.released = 0

    def adopt(self, connection: Connection) -> None:
        """Never asked: nothing connects here."""

    def release(self, connection: Connection) -> None:
        self.released += 1

    def forget(self, connection: Connection) -> None:
        """Nothing to forget."""

    def end(self, exchange: Exchange, error: str | None, detail: str = "") -> None:
        self.ends.append((error, detail))
        exchange.error, exchange.detail = error, detail


class Line:
    """A connection whose bytes come from the test, through the code that reads sockets."""

    def __init__(self, *, whole: bool = False) -> None:
        self.owner = Owner()
        self.exchange = Exchange(b"", index=7, due=0.0, whole=whole)
        self.exchange.sent = 0.0
        with socket.socket() as sock:
            self.connection = Connection(self.owner, sock)
        self.connection.exchange = self.exchange

    def receive(self, *segments: bytes) -> Line:
        """Segments, one a second from 1 on or from the last."""
        for segment in segments:
            self.owner.buffer[: len(segment)] = segment
            self.owner.selector.stamp += 1.0
            self.connection.buffer_updated(len(segment))
        return self

    def lose(self, error: Exception | None = None) -> Line:
        self.connection.lost(error)
        return self

    def record(self, endpoint: Endpoint) -> RequestRecord:
        stream = decoder(endpoint)
        if self.exchange.status == 200:
            for _ in decode(self.exchange, stream):
                pass
        return to_record(self.exchange, stream, 0.0)

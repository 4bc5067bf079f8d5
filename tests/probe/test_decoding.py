"""Streams kept raw and understood afterwards: the short way must say what the long way says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qwenhost.probe.decoding import decode, pattern_of
from qwenhost.probe.endpoints import StreamDecoder, decoder
from qwenhost.probe.exchange import Exchange

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str, *, key: str = "content", **more: Any) -> bytes:
    delta = {"index": 0, "delta": {key: text}, "finish_reason": None}
    body = {"id": "chat-1", "choices": [delta], **more}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}\n\ndata: [DONE]\n\n'
END = chunk(USAGE) + LAST


def played(segments: list[bytes], *, whole: bool, endpoint: Any = "chat") -> tuple[Exchange, StreamDecoder]:
    """An exchange that received these segments at 1, 2, 3... s, decoded."""
    exchange = Exchange(b"", due=0.0, whole=whole)
    for second, segment in enumerate(segments, 1):
        if exchange.streaming:
            exchange.raw.append(segment)
            exchange.times.append(second)
            exchange.complete = exchange.ends_with(segment)
        else:
            exchange.feed(segment)
            exchange.times.append(second)
            exchange.ends.append(len(exchange.body))
    stream = decoder(endpoint)
    for _ in decode(exchange, stream):
        pass
    return exchange, stream


def facts(stream: StreamDecoder) -> dict[str, Any]:
    return {name: value for name, value in vars(stream).items() if name != "detail"}


WORDS = ["one", " two", " wörter", ' "quoted"', "\n", "", "日本", " back\\slash", " 0\r\n", "end"] * 3
SINGLE = [HEAD, *(chunk(event(word)) for word in WORDS), chunk(USAGE), LAST]
JOINED = b"".join(SINGLE[1:])
THINKING = [
    HEAD, *(chunk(event("hm", key="reasoning")) for _ in range(5)), *(chunk(event("so")) for _ in range(5)),
    chunk(USAGE), LAST,
]  # fmt: skip


@pytest.mark.parametrize(
    "segments",
    [
        SINGLE,
        THINKING,
        [HEAD, JOINED],
        [HEAD, *(JOINED[i : i + 100] for i in range(0, len(JOINED), 100))],
        [HEAD, *(JOINED[i : i + 1000] for i in range(0, len(JOINED), 1000))],
        [HEAD, chunk(event("a")), chunk(event("b")) * 3, chunk(event("c")) + chunk(event("d")), END],
        [HEAD, chunk(event("a")), chunk(b": a comment\n\n"), chunk(event("b")), chunk(USAGE) + LAST],
        [HEAD, chunk(event("a")), chunk(event("b")), chunk(b'data: {"choices": [\n\n'), chunk(USAGE), LAST],
        [HEAD, chunk(event("a")), chunk(event("b", obfuscation='x"y')), chunk(event("c")), END],
        [HEAD, chunk(event("a")), chunk(event("b")), chunk(event("zz").replace(b"zz", b"\xff\xfe")), LAST],
    ],
    ids=["plain", "thinking", "at once", "cut every 100", "cut every 1000", "several", "comment", "malformed",
         "other fields", "not utf-8"],
)  # fmt: skip
def test_the_short_way_says_what_the_long_way_says(segments: list[bytes]) -> None:
    """Every time, count and error of the stream, parsed as it came or kept raw and matched."""
    _, long = played(segments, whole=True)
    _, short = played(segments, whole=False)
    assert facts(short) == facts(long)
    assert short.chunk_times


def test_a_chunk_of_the_wrong_size_is_malformed() -> None:
    """The events look right, the size line is one too large: the parser reads into the next chunk."""
    wrong = b"%x\r\n%b\r\n" % (len(event("b")) + 1, event("b"))
    exchange, _ = played([HEAD, chunk(event("a")), wrong, chunk(event("c")), LAST], whole=False)
    assert exchange.error == "malformed_http"


def test_an_end_within_a_chunk_is_found_out() -> None:
    """The bytes of a last chunk came, but as data: what seemed complete is not."""
    exchange, _ = played([HEAD, chunk(event("a")), b"20\r\nabc\r\n0\r\n\r\n"], whole=False)
    assert (exchange.error, exchange.detail) == ("malformed_http", "the chunks of the body do not add up")


@pytest.mark.parametrize(
    ("endpoint", "data"),
    [
        ("chat", event("word")),
        ("chat", event("word", key="reasoning_content")),
        ("completions", b'data: {"choices": [{"index": 0, "text": "word"}]}\n\n'),
        ("responses", b'event: x\ndata: {"type":"response.output_text.delta","delta":"word"}\n\n'),
        (
            "messages",
            b'event: x\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"word"}}\n\n',
        ),
    ],
)
def test_each_dialect_has_its_pattern(endpoint: Any, data: bytes) -> None:
    """What surrounds the word."""
    pattern = pattern_of(chunk(data), decoder(endpoint))
    assert pattern is not None
    longer = chunk(data.replace(b"word", b"another word"))
    assert longer.startswith(pattern.head(len(longer)))
    assert longer.endswith(pattern.tail)


@pytest.mark.parametrize(
    "segment",
    [
        chunk(event("word"))[:-1],
        chunk(event("word")).replace(b"\r\n", b";extension\r\n", 1),
        chunk(event("word")).upper(),
        chunk(b'data: {"choices": [{"delta": {"tool_calls": [{"text": "x"}]}}]}\n\n'),
        chunk(b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}\n\n'),
        chunk(b'data: {"choices": [{"delta": {"content": "x"}}], "usage": {"completion_tokens": 3}}\n\n'),
    ],
    ids=["cut", "chunk extension", "other hex digits", "a tool call", "the end", "usage"],
)
def test_what_is_not_just_a_token_makes_no_pattern(segment: bytes) -> None:
    """Its like must be decoded in full each time."""
    assert pattern_of(segment, decoder("chat")) is None

"""Real servers' streams, cut by the network wherever it likes: the record says the same, to the second."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from px_streams import HEAD, LAST, STREAMS, Line, Stream, Wire, chunk, wire_of

from qwenhost.probe.endpoints import decoder

if TYPE_CHECKING:
    from qwenhost.measurements import RequestRecord

NAMES = list(STREAMS)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]


def arrivals(segments: list[bytes]) -> list[tuple[int, float]]:
    """(bytes so far, second) of each segment."""
    so_far, found = 0, []
    for second, segment in enumerate(segments, 1):
        so_far += len(segment)
        found.append((so_far, float(second)))
    return found


def check(stream: Stream, wire: Wire, segments: list[bytes], *, whole: bool) -> RequestRecord:
    """Hold the record of an answer that came in these segments to what was sent."""
    line = Line(whole=whole).receive(*segments)
    record = line.record(stream.endpoint)
    seen = arrivals(segments)
    assert record.error is None, record.error_detail
    assert {name: getattr(record, name) for name in stream.says} == stream.says
    assert record.token_times_s == wire.times("tv", seen)
    assert record.first_visible_s == wire.times("v", seen)[0]
    assert (record.first_byte_s, record.http_status) == (1.0, 200)
    assert line.owner.ends == [(None, "")]
    assert line.owner.released == 1
    return record


@pytest.mark.parametrize("whole", [False, True], ids=["kept raw", "parsed as it comes"])
@pytest.mark.parametrize("name", NAMES)
def test_one_segment_says_it_all(name: str, *, whole: bool) -> None:
    """Everything at once: every chunk has the same instant."""
    stream = STREAMS[name]
    record = check(stream, wire_of(stream), [wire_of(stream).data], whole=whole)
    assert set(record.token_times_s) == {1.0}
    assert (record.first_token_s, record.last_s, record.sent_s) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_an_event_a_segment(name: str) -> None:
    """As a server writes: the head, each event, the last chunk; TTFT and gaps are those of the events."""
    stream = STREAMS[name]
    segments = [HEAD, *(chunk(event.encode() + b"\n\n") for _, event in stream.events), LAST]
    record = check(stream, wire_of(stream), segments, whole=False)
    places = [place for place, (kind, _) in enumerate(stream.events, 2) if kind != "-"]
    assert record.token_times_s == tuple(map(float, places))


@pytest.mark.parametrize("whole", [False, True], ids=["kept raw", "parsed as it comes"])
@pytest.mark.parametrize("name", NAMES)
def test_a_cut_at_every_byte_changes_nothing_but_the_instants(name: str, *, whole: bool) -> None:
    """An event has arrived with the last byte of its blank line, and not one byte sooner."""
    stream = STREAMS[name]
    wire = wire_of(stream)
    for at in range(1, len(wire.data)):
        check(stream, wire, cut(wire.data, [at]), whole=whole)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_small_pieces_all_the_way(name: str, size: int) -> None:
    """Down to a byte a segment, the head included."""
    stream = STREAMS[name]
    wire = wire_of(stream)
    check(stream, wire, cut(wire.data, list(range(size, len(wire.data), size))), whole=False)


@settings(max_examples=40)
@given(name=st.sampled_from(NAMES), data=st.data(), whole=st.booleans())
def test_any_cuts_at_all(name: str, data: st.DataObject, *, whole: bool) -> None:
    """Up to thirty cuts wherever chance puts them."""
    stream = STREAMS[name]
    wire = wire_of(stream)
    cuts = data.draw(st.lists(st.integers(1, len(wire.data) - 1), max_size=30, unique=True))
    check(stream, wire, cut(wire.data, sorted(cuts)), whole=whole)


@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
@pytest.mark.parametrize("name", NAMES)
def test_the_other_line_ends_of_the_standard(name: str, line_end: str) -> None:
    """CR LF, as .NET servers write, and CR alone, in pieces of five bytes."""
    stream = STREAMS[name]
    wire = wire_of(stream, line_end=line_end)
    check(stream, wire, cut(wire.data, list(range(5, len(wire.data), 5))), whole=False)


@pytest.mark.parametrize("name", NAMES)
def test_keep_alives_and_fields_that_nobody_asked_for(name: str) -> None:
    """Comments, ids and retry times between events carry nothing."""
    stream = STREAMS[name]
    noisy = [("-", ": keep-alive"), ("-", "id: 4\nretry: 3000")]
    events = tuple(entry for event in stream.events for entry in (*noisy, event))
    noisy_stream = stream._replace(events=events)
    wire = wire_of(noisy_stream)
    check(noisy_stream, wire, cut(wire.data, list(range(11, len(wire.data), 11))), whole=False)


@pytest.mark.parametrize("name", NAMES)
def test_many_events_in_few_chunks(name: str) -> None:
    """A proxy that gathers 300 bytes a chunk, whatever the events are: the same words, other frames."""
    stream = STREAMS[name]
    body = b"".join(event.encode() + b"\n\n" for _, event in stream.events)
    frames = [chunk(body[at : at + 300]) for at in range(0, len(body), 300)]
    record = Line().receive(HEAD, *frames, LAST).record(stream.endpoint)
    assert record.error is None
    assert {field: getattr(record, field) for field in stream.says} == stream.says
    assert len(record.token_times_s) == sum(kind != "-" for kind, _ in stream.events)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_without_chunks_ends_with_its_connection(name: str) -> None:
    """HTTP/1.0 style: no length, no chunks; the close is the regular end."""
    stream = STREAMS[name]
    body = b"".join(event.encode() + b"\n\n" for _, event in stream.events)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    line = Line().receive(head, body[:200], body[200:]).lose()
    record = line.record(stream.endpoint)
    assert (record.error, line.owner.ends, line.owner.released) == (None, [(None, "")], 0)
    assert {field: getattr(record, field) for field in stream.says} == stream.says


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_of_a_stated_length(name: str) -> None:
    """Content-Length in place of chunks; the connection may carry another request."""
    stream = STREAMS[name]
    body = b"".join(event.encode() + b"\n\n" for _, event in stream.events)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    line = Line().receive(head + body[:-1], body[-1:])
    assert line.record(stream.endpoint).error is None
    assert line.owner.released == 1


# --------------------------------------------------------------------------- cut short


@pytest.mark.parametrize("name", NAMES)
def test_a_connection_lost_after_every_byte(name: str) -> None:
    """Always a cut stream, with the tokens that had arrived; never an answer that looks whole."""
    stream = STREAMS[name]
    wire = wire_of(stream)
    for at in range(1, len(wire.data), 3):
        line = Line().receive(wire.data[:at]).lose()
        record = line.record(stream.endpoint)
        assert record.error == "cut_stream"
        assert record.error_detail == "the server closed the connection before the answer was complete"
        assert record.token_times_s == wire.times("tv", [(at, 1.0)])
        assert line.owner.released == 0


def test_a_connection_that_says_nothing_is_said_so() -> None:
    """Closed before a byte: the reader learns that the server never answered."""
    record = Line().lose().record("chat")
    assert (record.error, record.http_status, record.first_byte_s) == ("cut_stream", None, None)
    assert record.error_detail == "the server closed the connection before it answered"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "reset"),
        (BrokenPipeError(32, "Broken pipe"), "reset"),
        (OSError(110, "Connection timed out"), "cut_stream"),
    ],
)
def test_a_reset_in_the_middle_keeps_what_came(error: Exception, kind: str) -> None:
    """Three events and a reset: one chunk of thinking had arrived, then two."""
    stream = STREAMS["vLLM chat"]
    wire = wire_of(stream)
    record = Line().receive(wire.data[: wire.complete_at[2]]).lose(error).record("chat")
    assert (record.error, record.error_detail) == (kind, str(error))
    assert len(record.token_times_s) == 2
    assert record.output_tokens == 2  # No usage came: chunks are all there is to count.


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_stops_before_its_end_marker_is_cut(name: str) -> None:
    """HTTP ended well, the stream did not: no event after the last text."""
    stream = STREAMS[name]
    last = max(place for place, (kind, _) in enumerate(stream.events) if kind != "-")
    shorter = stream._replace(events=stream.events[: last + 1])
    if name == "vLLM completions":  # There the last text brings the finish reason.
        shorter = stream._replace(events=stream.events[:2])
    record = Line().receive(wire_of(shorter).data).record(stream.endpoint)
    assert (record.error, record.error_detail) == (
        "cut_stream", "the stream ended without its end marker",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_without_text_is_no_answer(name: str) -> None:
    """The frame of an answer with nothing in it."""
    stream = STREAMS[name]
    empty = tuple(event for event in stream.events if event[0] == "-")
    if name == "vLLM completions":
        empty = (("-", stream.events[3][1].replace('" a"', '""')), *empty)
    record = Line().receive(wire_of(stream._replace(events=empty)).data).record(stream.endpoint)
    assert (record.error, record.error_detail) == ("zero_tokens", "the answer carried no text")


# --------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "damage",
    ["data: {", "data: nonsense", "data: [1, 2]", "data: \x00", 'data: "text"', "data: " + "[" * 5000],
)
def test_a_damaged_event_is_an_error_and_not_a_crash(name: str, damage: str) -> None:
    """After the third event of each stream; the record keeps the usage that came after it."""
    stream = STREAMS[name]
    events = (*stream.events[:3], ("-", damage), *stream.events[3:])
    record = Line().receive(wire_of(stream._replace(events=events)).data).record(stream.endpoint)
    assert record.error == "malformed_event"
    assert record.error_detail is not None
    assert len(record.error_detail) <= 300
    assert record.output_tokens == stream.says["output_tokens"]


@settings(max_examples=150)
@given(name=st.sampled_from(NAMES), data=st.data())
def test_no_damage_escapes_as_an_exception(name: str, data: st.DataObject) -> None:
    """A few bytes anywhere become others: some record comes out, and an error is one that is listed."""
    stream = STREAMS[name]
    damaged = bytearray(wire_of(stream).data)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    line = Line().receive(*cut(bytes(damaged), [len(damaged) // 3, len(damaged) // 2]))
    if not line.owner.ends:
        line.lose()
    record = line.record(stream.endpoint)
    listed = {None, "malformed_http", "malformed_event", "cut_stream", "server_error", "zero_tokens"}
    assert record.error in listed or str(record.error).startswith("http_")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed_http"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "malformed_http"),
        (HEAD + b"zz\r\n", "malformed_http"),
        (HEAD + chunk(b"data: {}\n\n")[:-2] + b"XX" + LAST, "malformed_http"),
        (b"\x15\x03\x01\x00\x02\x02P", "malformed_http"),
    ],
    ids=["ssh", "status", "chunk size", "chunk end", "tls alert"],
)
def test_what_is_not_http(answer: bytes, said: str) -> None:
    """Another protocol on the port is one kind of error, with the parser's own words."""
    line = Line().receive(answer)
    if not line.owner.ends:
        line.lose()
    record = line.record("chat")
    assert record.error == said
    assert record.error_detail


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, '{"error":{"message":"max_tokens is too large: 99999.","type":"BadRequestError","code":400}}'),
        (401, '{"error":"Unauthorized"}'),
        (404, '{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}'),
        (429, '{"type":"error","error":{"type":"rate_limit_error","message":"Number of requests"}}'),
        (500, ""),
        (503, "<html><body>Service Unavailable</body></html>"),
        (529, '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'),
    ],
)
@pytest.mark.parametrize("at", [1, 30, 60])
def test_a_refusal_is_kept_in_the_servers_words(status: int, body: str, at: int) -> None:
    """``http_STATUS`` and what the server said, however the answer is cut."""
    data = f"HTTP/1.1 {status} No\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    record = Line().receive(*cut(data, [min(at, len(data) - 1)])).record("chat")
    assert (record.error, record.http_status) == (f"http_{status}", status)
    assert (record.error_detail or "") == body
    assert record.token_times_s == ()


def test_a_long_refusal_is_shortened() -> None:
    """300 bytes of a page of HTML tell enough, and half a character at the end does no harm."""
    body = ("é" * 400).encode()
    data = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    record = Line().receive(data).record("chat")
    assert record.error_detail == "é" * 150


def test_an_interim_answer_is_not_the_answer() -> None:
    """100 Continue and 103 Early Hints come before; the 200 that follows is what counts."""
    stream = STREAMS["vLLM chat"]
    wire = wire_of(stream, head=b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + HEAD)
    check(stream, wire, cut(wire.data, [20, 60]), whole=True)


def test_bytes_nobody_asked_for_close_the_connection() -> None:
    """A late 408 on an idle connection ends no request and raises nothing."""
    line = Line()
    line.connection.exchange = None
    line.receive(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert line.owner.ends == []


def test_trailers_after_the_last_chunk() -> None:
    """A chunked body may end in header lines: found by the parser, in whatever pieces they come."""
    stream = STREAMS["vLLM chat"]
    data = wire_of(stream).data.removesuffix(LAST) + b"0\r\nx-tokens: 9\r\n\r\n"
    for at in range(len(data) - 24, len(data)):
        line = Line().receive(*cut(data, [at]))
        assert line.owner.ends == [(None, "")]
        assert line.record("chat").error is None


def test_the_last_chunk_within_a_text_is_no_end() -> None:
    """A token event may be cut so that a segment ends in CR LF CR LF without being the end."""
    text = 'data: {"choices":[{"delta":{"content":"x"},"finish_reason":null}]}'
    first, second = chunk(text.encode() + b"\r\n\r\n"), chunk(b"data: [DONE]\r\n\r\n")
    line = Line().receive(HEAD, first[:-2], first[-2:], second, LAST)
    assert line.owner.ends == [(None, "")]
    assert line.record("chat").token_times_s == (2.0,)


# --------------------------------------------------------------------------- what single events say


@pytest.mark.parametrize(
    ("endpoint", "event", "expected"),
    [
        # Text and the beginning of a call in one chunk: one chunk, one call.
        ("chat", '{"choices":[{"delta":{"content":"so","tool_calls":[{"function":{"name":"f"}}]}}]}',
         {"tool_calls": 1, "chunks": 1}),
        # Two calls at once.
        ("chat",
         '{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f"}},{"function":{"name":"g"}}]}}]}',
         {"tool_calls": 2, "chunks": 1}),
        # Arguments alone begin no call.
        ("chat", '{"choices":[{"delta":{"tool_calls":[{"function":{"name":null,"arguments":"{"}}]}}]}',
         {"tool_calls": 0, "chunks": 1}),
        # Thinking and speaking in one chunk: it is visible.
        ("chat", '{"choices":[{"delta":{"content":"so","reasoning":"hm"}}]}', {"visible": True, "chunks": 1}),
        # A null in every place where one may stand.
        ("chat", '{"choices":[{"delta":{"content":null,"tool_calls":null,"reasoning":null}}],"usage":null}',
         {"chunks": 0}),
        ("chat", '{"choices":null,"error":null}', {"chunks": 0, "error": None}),
        # Two choices, two chunks.
        ("chat", '{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}', {"chunks": 2}),
        # Usage without its parts leaves what is not known open.
        ("chat", '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":null}}',
         {"prompt_tokens": 3, "output_tokens": None}),
        ("chat", '{"choices":[],"usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":null}}}',
         {"prompt_tokens": 3, "cached_tokens": 0}),
        ("completions", '{"choices":[{"text":null,"finish_reason":"stop"}]}', {"chunks": 0, "ended": True}),
        ("responses", '{"type":"response.refusal.delta","delta":"I cannot"}', {"visible": True, "chunks": 1}),
        ("responses", '{"type":"response.output_text.delta","delta":""}', {"chunks": 0}),
        ("responses", '{"type":"response.output_item.added"}', {"chunks": 0, "tool_calls": 0}),
        ("responses", '{"type":"response.completed","response":null}',
         {"ended": True, "output_tokens": None}),
        ("responses", '{"type":"error","code":"server_error","message":"The model overheated","param":null}',
         {"error": "server_error", "detail": "The model overheated"}),
        ("responses", '{"type":"error"}', {"error": "server_error", "detail": '{"type":"error"}'}),
        ("messages", '{"type":"message_start"}', {"prompt_tokens": None}),
        ("messages", '{"type":"message_start","message":{"usage":null}}', {"prompt_tokens": None}),
        ("messages", '{"type":"content_block_delta"}', {"chunks": 0}),
        ("messages", '{"type":"content_block_start","content_block":{"type":"server_tool_use","id":"s"}}',
         {"tool_calls": 0, "chunks": 0}),
        ("messages", '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
         {"error": "overloaded"}),
        ("messages", '{"type":"error","error":{"type":"api_error","message":"Internal"}}',
         {"error": "server_error"}),
        ("messages", '{"type":"error"}', {"error": "server_error"}),
        ("messages", '{"type":"some_day_new","anything":{"deep":[1]}}', {"chunks": 0, "error": None}),
        ("messages", "[DONE]", {"ended": False, "error": None}),
    ],
)  # fmt: skip
def test_one_event(endpoint: Any, event: str, expected: dict[str, Any]) -> None:
    """What a single event adds, in each dialect."""
    stream = decoder(endpoint)
    stream.feed(4.0, event.encode())
    found = vars(stream) | {
        "chunks": len(stream.chunk_times),
        "visible": stream.first_visible is not None,
    }
    assert {name: found[name] for name in expected} == expected


def test_the_first_error_is_kept() -> None:
    """What went wrong first explains the rest; a second error does not paint over it."""
    stream = decoder("messages")
    stream.feed(1.0, b'{"type":"error","error":{"type":"overloaded_error","message":"first"}}')
    stream.feed(2.0, b'{"type":"error","error":{"type":"api_error","message":"second"}}')
    stream.feed(3.0, b"not json")
    assert stream.error == "overloaded"
    assert "first" in stream.detail

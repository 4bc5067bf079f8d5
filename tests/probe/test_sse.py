"""Events from timed segments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qwenhost.probe.sse import events


def parse(*segments: tuple[float, bytes]) -> list[tuple[float, bytes]]:
    """Events of a body received in timed segments."""
    body, times, ends = bytearray(), [], []
    for time, data in segments:
        body += data
        times.append(time)
        ends.append(len(body))
    return list(events(body, times, ends))


def test_an_event_arrives_with_its_blank_line() -> None:
    """Two events in two segments carry the arrival of each."""
    assert parse((1.0, b"data: a\n\n"), (2.0, b"data: b\n\n")) == [(1.0, b"a"), (2.0, b"b")]


def test_an_event_split_inside_data_arrives_with_its_last_piece() -> None:
    """Cut inside "data:", the event is there when the rest is."""
    assert parse((1.0, b"da"), (2.0, b"ta: a\n"), (3.0, b"\n")) == [(3.0, b"a")]


def test_a_multi_byte_character_may_be_split() -> None:
    """Bytes are joined before they are read as text."""
    half = "é".encode()
    assert parse((1.0, b"data: " + half[:1]), (2.0, half[1:] + b"\n\n")) == [(2.0, "é".encode())]


def test_events_of_one_segment_arrive_together() -> None:
    """Three events in one TCP segment carry one arrival."""
    assert parse((1.0, b"data: a\n\ndata: b\n\ndata: c\n\n")) == [(1.0, b"a"), (1.0, b"b"), (1.0, b"c")]


def test_an_event_without_its_blank_line_has_not_arrived() -> None:
    """A cut stream's last half event is left out."""
    assert parse((1.0, b"data: a\n\ndata: b\n")) == [(1.0, b"a")]


def test_comments_and_named_events_are_understood() -> None:
    """A keep-alive comment is no event; the event's name is not its data."""
    assert parse((1.0, b": ping\n\nevent: x\ndata: a\nid: 7\n\n")) == [(1.0, b"a")]


def test_data_lines_are_joined() -> None:
    """Two data lines of one event are two lines of data."""
    assert parse((1.0, b"data: a\ndata:b\n\n")) == [(1.0, b"a\nb")]


def test_all_line_ends_of_the_standard_are_understood() -> None:
    """CRLF and CR end lines as LF does."""
    assert parse((1.0, b"data: a\r\n\r\n"), (2.0, b"data: b\r\r")) == [(1.0, b"a"), (2.0, b"b")]


@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)),
    cuts=st.lists(st.integers(1, 7), min_size=1),
)
def test_the_cuts_of_the_network_change_no_event(texts: list[str], cuts: list[int]) -> None:
    """However a stream is cut into segments, its events are the same, and arrive in order."""
    stream = b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)
    segments, at, i = [], 0, 0
    while at < len(stream):
        size = cuts[i % len(cuts)]
        segments.append((float(i), stream[at : at + size]))
        at, i = at + size, i + 1
    found = parse(*segments)
    assert [data.decode() for _, data in found] == texts
    assert [time for time, _ in found] == sorted(time for time, _ in found)

"""Streams that have ended and wait to be decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.probe.exchange import Exchange
from qwenhost.probe.recording import Recorder

if TYPE_CHECKING:
    from qwenhost.measurements import RequestRecord


def waiting(index: int, segments: int) -> Exchange:
    """An exchange that ended; a refused one is not decoded, so any segments do."""
    exchange = Exchange(b"", index=index, due=0.0)
    exchange.raw = [b"x"] * segments
    exchange.error = "reset"
    return exchange


def test_ended_streams_wait_for_a_slice_of_time() -> None:
    """Below the bound nothing is decoded before its turn."""
    done: list[int] = []
    recorder = Recorder("chat", 0.0, lambda record, _: done.append(record.index), most_segments=10)
    recorder.add(waiting(0, 5))
    recorder.add(waiting(1, 5))
    assert done == []
    while recorder.pending:
        recorder.work()
    assert done == [0, 1]


def test_past_the_bound_each_new_one_ends_an_old_one() -> None:
    """Ten segments may wait: of five streams of five two do, the oldest are done."""
    done: list[int] = []
    recorder = Recorder("chat", 0.0, lambda record, _: done.append(record.index), most_segments=10)
    for index in range(5):
        recorder.add(waiting(index, 5))
    assert done == [0, 1, 2]
    while recorder.pending:
        recorder.work()
    recorder.add(waiting(5, 10))
    assert done == [0, 1, 2, 3, 4]


def test_a_request_that_fails_while_a_record_is_made_waits() -> None:
    """What a record leads to may end at once: decoding does not start within decoding."""
    done: list[int] = []

    def keep(record: RequestRecord, _: Exchange) -> None:
        done.append(record.index)
        if record.index == 0:
            recorder.add(waiting(1, 5))

    recorder = Recorder("chat", 0.0, keep, most_segments=1)
    recorder.add(waiting(0, 5))
    assert done == [0]
    recorder.work()
    assert done == [0, 1]

"""Going on with a run that was killed or interrupted, from the file of its records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.probe.course import Earlier, Indices
from qwenhost.probe.records import Head, Tail, read_recording
from qwenhost.probe.store import RecordStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qwenhost.measurements import RequestRecord, Server
    from qwenhost.probe.config import ProbeConfig

FREE = frozenset({"api_key", "extra_headers", "records", "gpus", "slo"})
"""Settings that a resumed run may have otherwise: they change nothing of what is sent."""


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run that is to go on."""

    head: Head
    earlier: Earlier
    times: int
    """How often it was resumed already."""
    keep_bytes: int
    """Of the file: what follows is half a line."""
    tail: Tail | None
    """None where it was killed."""

    def require_same_server(self, server: Server) -> None:
        """Refuse to mix two models or two versions in one run.

        Raises:
            BadInputError: another one answers.
        """
        was = self.head.server
        if (was.name, was.version, was.model) != (server.name, server.version, server.model):
            raise BadInputError(
                f"the run was of {was.model} on {was.name} {was.version or ''}, but {server.model} on "
                f"{server.name} {server.version or ''} answers".replace("  ", " "),
                remedy="Start a run of its own.",
            )

    def joined(self, tail: Tail) -> Tail:
        """Both parts' ends in one: counters added, the client at its worst."""
        if self.tail is None:
            return Tail(lag=tail.lag, counters={}, interrupted=tail.interrupted)
        return self.tail.joined(tail)


def read_resumption(path: Path) -> Resumption:
    """A run to go on with.

    Raises:
        BadInputError: not a file of records, or a run that is complete.
    """
    store, done, until_s = RecordStore(), Indices(), 0.0

    def take(record: RequestRecord) -> None:
        nonlocal until_s
        if record.error == "interrupted":  # Sent again, and billed again.
            store.totals.bill.add(record)
        else:
            store.add(record)
            done.add(record.index)
            until_s = max(until_s, record.sent_s if record.last_s is None else record.last_s)

    recording = read_recording(path, take)
    if recording.tail is not None and not recording.tail.interrupted:
        raise BadInputError(
            f"{path}: the run is complete, there is nothing to resume",
            remedy=f"Look at it with: qwenhost probe --from-records {path}",
        )
    earlier = Earlier(store=store, done=done, until_s=until_s)
    return Resumption(
        head=recording.head, earlier=earlier, times=recording.resumed, keep_bytes=recording.whole_bytes,
        tail=recording.tail,
    )  # fmt: skip


def require_same_settings(recorded: ProbeConfig, given: Mapping[str, Any]) -> None:
    """Refuse options that differ from the run's.

    Args:
        recorded: settings of the run.
        given: settings that the user named again.

    Raises:
        BadInputError: the first that differs.
    """
    for name, value in given.items():
        if name not in FREE and getattr(recorded, name) != value:
            raise BadInputError(
                f"the run was begun with {name} = {getattr(recorded, name)}, not {value}",
                remedy="A run goes on as it began: leave the option out, or start a run of its own.",
            )

"""A run's JSONL file: a head, a record for each request, a tail; and the run made anew from it."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeVar

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.files import NOT_JSON, require_schema
from qwenhost.measurements import Measurements, RequestRecord, Server
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.config import ProbeConfig
from qwenhost.probe.content import TokenFit
from qwenhost.probe.counters import summed, with_rates
from qwenhost.probe.results import Run, machine, measurements_of
from qwenhost.probe.store import RecordStore

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.facts import Slo

SCHEMA: Final = "qwenhost.records/1"
_T = TypeVar("_T")
_REMEDY: Final = "Write one with: qwenhost probe URL --records run.jsonl"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What was known when the load began."""

    schema: str = SCHEMA
    config: ProbeConfig
    """Without the key."""
    server: Server
    fit: TokenFit | None
    seed: int
    exact: bool
    started_at: dt.datetime
    machine: Mapping[str, Any]
    about: str = ""
    """How the prompts are made."""
    notes: tuple[str, ...] = ()
    image_tokens: float | None = None
    worst_request_usd: float | None = None


class Resumed(msgspec.Struct, frozen=True, kw_only=True):
    """Stands where a run was taken up again."""

    resumed_at: dt.datetime


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """What was known when it had ended."""

    lag: LoopLag
    counters: Mapping[str, float]
    interrupted: bool
    stopped_by_cap: bool = False

    def joined(self, later: Tail) -> Tail:
        """Two parts of a run in one: counters added, the client at its worst."""
        worst = {
            name: max(getattr(self.lag, name), getattr(later.lag, name)) for name in LoopLag.__struct_fields__
        }
        both = self.counters and later.counters
        return Tail(
            lag=LoopLag(**worst),
            counters=with_rates(summed([self.counters, later.counters])) if both else {},
            interrupted=later.interrupted,
            stopped_by_cap=later.stopped_by_cap,
        )


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A file of records, read."""

    head: Head
    store: RecordStore
    tail: Tail | None
    """None where the last part was cut off."""
    resumed: int
    """How often it was taken up again."""
    whole_bytes: int
    """Up to the end of the last whole line."""


_UNKNOWN: Final = Tail(lag=LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0), counters={}, interrupted=True)
"""Of a part that was killed."""


class RecordWriter:
    """Appends to a JSONL file; without a file it does nothing.

    Args:
        path: of the file.
        after: go on behind so many bytes of it, with a mark of when; None begins it anew.

    Raises:
        BadInputError: the file cannot be written.
    """

    def __init__(self, path: Path | None, *, after: int | None = None) -> None:
        self._file: BinaryIO | None = None
        if path is not None:
            try:
                self._file = path.open("wb" if after is None else "r+b")
                if after is not None:
                    self._file.seek(after)
                    self._file.truncate()
                    self.write(Resumed(resumed_at=dt.datetime.now(dt.UTC)))
            except OSError as error:
                raise BadInputError(
                    f"--records {path}: {error.strerror}", remedy="Name a file in a folder you may write to."
                ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, line: Head | RequestRecord | Resumed | Tail) -> None:
        """Append one line."""
        if self._file is not None:
            self._file.write(msgspec.json.encode(line, enc_hook=str) + b"\n")

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()


def head_of(config: ProbeConfig, **known: Any) -> Head:
    """The head of a run; the key and the values of extra headers stay out of it."""
    names = tuple((name, "") for name, _ in config.extra_headers)
    kept = msgspec.structs.replace(config, api_key=None, extra_headers=names)
    return Head(config=kept, machine=machine(), **known)


def measurements_from(path: Path, slo: Slo | None) -> Measurements:
    """The figures of a recorded run, drawn anew.

    Args:
        path: file written with ``--records``; one cut off by a crash or a full disk will do.
        slo: to judge by, in place of the run's own; None keeps that.

    Raises:
        BadInputError: unreadable, or not such a file; names the line.
    """
    recording = read_recording(path)
    head, store, tail = recording.head, recording.store, recording.tail
    config = head.config if slo is None else msgspec.structs.replace(head.config, slo=slo)
    found = measurements_of(
        Run(
            config=config,
            store=store,
            server=head.server,
            fit=head.fit,
            seed=head.seed,
            exact=head.exact,
            counters=tail.counters if tail else {},
            lag=tail.lag if tail else LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0),
            started_at=head.started_at,
            interrupted=tail.interrupted if tail else True,
            about=head.about,
            notes=head.notes,
            image_tokens=head.image_tokens,
            worst_request_usd=head.worst_request_usd,
            stopped_by_cap=tail.stopped_by_cap if tail else False,
            resumed=recording.resumed,
        )
    )
    found = msgspec.structs.replace(found, machine=head.machine)
    if tail is None:
        said = "the recording was cut off: whether the client kept up is unknown but for its send lag"
        found = msgspec.structs.replace(found, client={}, warnings=(said, *found.warnings))
    return found


def read_recording(path: Path, take: Callable[[RequestRecord], None] | None = None) -> Recording:
    """A file of records; one that ends within a line will do.

    Args:
        path: of the file.
        take: is given each record, which then is not put into the recording's store.

    Raises:
        BadInputError: unreadable, or not such a file; names the line.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
            version = _decode(path, 1, first, dict[str, Any]).get("schema")
            require_schema(version, SCHEMA, name=str(path), remedy=_REMEDY)
            head = _decode(path, 1, first, Head)
            return _rest(path, head, file, len(first), take)
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}", remedy=_REMEDY) from error


def _rest(
    path: Path, head: Head, lines: Iterable[bytes], whole: int, take: Callable[[RequestRecord], None] | None
) -> Recording:
    store, tails, resumed = RecordStore(), list[Tail](), 0
    take = take or store.add
    for number, line in enumerate(lines, 2):
        if not line.endswith(b"\n"):  # The writer died within it.
            break
        whole += len(line)
        if line.startswith(b'{"lag"'):
            tails.append(_decode(path, number, line, Tail))
        elif line.startswith(b'{"resumed_at"'):
            resumed += 1
            if len(tails) < resumed:
                tails.append(_UNKNOWN)
        else:
            take(_decode(path, number, line, RequestRecord))
    ended = len(tails) > resumed
    tail = functools.reduce(Tail.joined, tails) if ended else None
    return Recording(head=head, store=store, tail=tail, resumed=resumed, whole_bytes=whole)


def _decode(path: Path, number: int, line: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(line, type=kind, dec_hook=lambda wanted, value: wanted(value))
    except NOT_JSON as error:
        raise BadInputError(f"{path}, line {number}: {error}", remedy=_REMEDY) from error

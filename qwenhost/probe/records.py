"""A run's JSONL file: a head, a record for each request, a tail; and the run made anew from it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.measurements import Measurements, RequestRecord, Server
from qwenhost.probe.clock import LoopLag
from qwenhost.probe.config import ProbeConfig
from qwenhost.probe.content import TokenFit
from qwenhost.probe.gaps import RecordStore
from qwenhost.probe.results import Run, machine, measurements_of

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


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """What was known when it had ended."""

    lag: LoopLag
    counters: Mapping[str, float]
    interrupted: bool


class RecordWriter:
    """Appends to a JSONL file; without a file it does nothing.

    Raises:
        BadInputError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: BinaryIO | None = None
        if path is not None:
            try:
                self._file = path.open("wb")
            except OSError as error:
                raise BadInputError(
                    f"--records {path}: {error.strerror}", remedy="Name a file in a folder you may write to."
                ) from error

    def write(self, line: Head | RequestRecord | Tail) -> None:
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


def head_of(
    config: ProbeConfig, *, server: Server, fit: TokenFit | None, seed: int, exact: bool,
    started_at: dt.datetime,
) -> Head:  # fmt: skip
    """The head of a run; the key stays out of it."""
    return Head(
        config=msgspec.structs.replace(config, api_key=None), server=server, fit=fit, seed=seed, exact=exact,
        started_at=started_at, machine=machine(),
    )  # fmt: skip


def measurements_from(path: Path, slo: Slo | None) -> Measurements:
    """The figures of a recorded run, drawn anew.

    Args:
        path: file written with ``--records``; one cut off by a crash or a full disk will do.
        slo: to judge by, in place of the run's own; None keeps that.

    Raises:
        BadInputError: unreadable, or not such a file; names the line.
    """
    head, store, tail = _read(path)
    config = head.config if slo is None else msgspec.structs.replace(head.config, slo=slo)
    found = measurements_of(
        Run(
            config=config,
            records=store.records,
            dropped=store.dropped,
            server=head.server,
            fit=head.fit,
            seed=head.seed,
            exact=head.exact,
            counters=tail.counters if tail else {},
            lag=tail.lag if tail else LoopLag(p95_ms=0, p99_ms=0, max_ms=0, busy_share=0),
            started_at=head.started_at,
            interrupted=tail.interrupted if tail else True,
        )
    )
    found = msgspec.structs.replace(found, machine=head.machine)
    if tail is None:
        said = "the recording was cut off: whether the client kept up is unknown but for its send lag"
        found = msgspec.structs.replace(found, client={}, warnings=(said, *found.warnings))
    return found


def _read(path: Path) -> tuple[Head, RecordStore, Tail | None]:
    try:
        with path.open("rb") as file:
            head = _decode(path, 1, file.readline(), Head)
            if head.schema != SCHEMA:
                raise BadInputError(f"{path}: schema is {head.schema!r}, expected {SCHEMA!r}", remedy=_REMEDY)
            store = RecordStore()
            for number, line in enumerate(file, 2):
                if line.startswith(b'{"lag"'):
                    return head, store, _decode(path, number, line, Tail)
                if line.endswith(b"\n"):  # Else the writer died within it.
                    store.add(_decode(path, number, line, RequestRecord))
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}", remedy=_REMEDY) from error
    return head, store, None


def _decode(path: Path, number: int, line: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(line, type=kind, dec_hook=lambda wanted, value: wanted(value))
    except msgspec.DecodeError as error:
        raise BadInputError(f"{path}, line {number}: {error}", remedy=_REMEDY) from error

"""Recorded traffic as rows: JSON lines and lists, usage reports, CSV files, Claude Code's session files.

Below the peers that use it: the simulator and the probe replay the requests, the cost model prices them.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.files import NOT_JSON

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

MOONCAKE_BLOCK_TOKENS = 512
_ROW_FAULTS = (KeyError, ValueError, TypeError, AttributeError, OverflowError)
"""What reading a row raises where a column is missing or a cell is not what its column says."""
Row = tuple[int, Any]
"""(line, or place in a list; what stands there)."""


class TracedRequest(NamedTuple):
    """One request of a trace."""

    at_s: float
    """Seconds since the trace began or since 1970: differences count."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    session: str | None = None
    hash_ids: tuple[int, ...] = ()
    """Mooncake: names each 512 tokens of the prompt together with all before them."""


REMEDY = (
    'A line is {"arrival_s": 0.5, "input_tokens": 900, "output_tokens": 120, "session": "a"}; '
    "Mooncake's JSON lines, the CSV files of Azure (TIMESTAMP,ContextTokens,GeneratedTokens) and BurstGPT, "
    "and Claude Code's session files (~/.claude/projects/*/*.jsonl) are read as well."
)


def read_requests(path: Path, *, limit: int | None = None) -> list[TracedRequest]:
    """The requests of a trace in order of time; those without tokens in or out had failed and are left out.

    Args:
        path: JSON lines, CSV or a session file.
        limit: take only so many, the first in the file, and look at no line behind them.

    Raises:
        BadInputError: missing, not a trace, or without a request; names the line.
    """
    rows = read_rows(path, remedy=REMEDY)
    if any(_is_transcript_row(row) for _, row in rows):
        found = _of_transcript(rows, path)
    else:
        found = (_request_at(path, number, row) for number, row in rows)
    served = (request for request in found if request.input_tokens > 0 and request.output_tokens > 0)
    kept = list(itertools.islice(served, limit))
    if not kept:
        raise BadInputError(f"{path}: the trace holds no request", remedy=REMEDY)
    return sorted(kept, key=lambda request: request.at_s)


def _request_at(path: Path, number: int, row: Any) -> TracedRequest:
    try:
        return request_of(row)
    except _ROW_FAULTS as error:
        raise _line_error(path, number, error) from error


def _line_error(path: Path, number: int, error: Exception) -> BadInputError:
    reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
    return BadInputError(f"{path}: line {number}: {reason}", remedy=REMEDY)


def _is_transcript_row(row: Any) -> bool:
    """Whether a row is one of Claude Code's session files."""
    return isinstance(row, dict) and "sessionId" in row and isinstance(row.get("message"), dict)


def _of_transcript(rows: Iterable[Row], path: Path) -> Iterator[TracedRequest]:
    """An answer is logged once for each part of its content, with the same id and usage: it counts once."""
    seen = set()
    for number, row in rows:
        message = row.get("message") if isinstance(row, dict) else None
        if (
            not isinstance(message, dict)
            or "usage" not in message
            or (name := str(message.get("id"))) in seen
        ):
            continue
        seen.add(name)
        usage = message["usage"]
        try:
            read = int(usage.get("cache_read_input_tokens") or 0)
            written = int(usage.get("cache_creation_input_tokens") or 0)
            yield TracedRequest(
                at_s=seconds(row["timestamp"]),
                input_tokens=int(usage["input_tokens"]) + read + written,
                output_tokens=int(usage["output_tokens"]),
                cached_tokens=read,
                session=str(row["sessionId"]),
            )
        except _ROW_FAULTS as error:
            raise _line_error(path, number, error) from error


def read_rows(path: Path, *, remedy: str) -> list[Row]:
    """Every row of a file, numbers in CSV cells as numbers.

    Raises:
        BadInputError: missing, not text, or not JSON (named by line).
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(f"{path}: cannot be read: {reason}", remedy=remedy) from error
    start = text.lstrip()[:1]
    if start == "[" or (start == "{" and _is_report(text)):
        try:
            found = msgspec.json.decode(text)
        except NOT_JSON as error:
            raise BadInputError(f"{path}: not JSON: {error}", remedy=remedy) from error
        return list(enumerate(found if start == "[" else _results(found), 1))
    if start == "{" or not start:
        return _json_lines(text, path, remedy)
    try:
        return _csv_rows(text)
    except csv.Error as error:
        raise BadInputError(f"{path}: not CSV: {error}", remedy=remedy) from error


def is_trace_row(row: Mapping[str, Any]) -> bool:
    """Whether a row speaks a trace's words: Mooncake's, Azure's, BurstGPT's or our own ``arrival_s``."""
    return any(name in row for name in ("input_length", "ContextTokens", "Request tokens", "arrival_s"))


def request_of(row: Mapping[str, Any]) -> TracedRequest:
    """The request of a row in a trace's words; ``timestamp`` will do for ``arrival_s``.

    Raises:
        KeyError: a column is missing.
        ValueError, TypeError: a cell is not what its column says.
    """
    session = session_of(row)
    if "input_length" in row:  # Mooncake; milliseconds
        return TracedRequest(
            at_s=seconds(row["timestamp"]) / 1000,
            input_tokens=int(row["input_length"]),
            output_tokens=int(row["output_length"]),
            session=session,
            hash_ids=tuple(map(int, row.get("hash_ids") or ())),
        )
    if "ContextTokens" in row:  # Azure
        return TracedRequest(
            seconds(row["TIMESTAMP"]), int(row["ContextTokens"]), int(row["GeneratedTokens"]), 0, session
        )
    if "Request tokens" in row:  # BurstGPT; seconds
        return TracedRequest(
            seconds(row["Timestamp"]), int(row["Request tokens"]), int(row["Response tokens"]), 0, session
        )
    at = row["arrival_s"] if "arrival_s" in row else row["timestamp"]
    cached = int(row.get("cached_tokens", 0))
    return TracedRequest(seconds(at), int(row["input_tokens"]), int(row["output_tokens"]), cached, session)


def seconds(value: float | str) -> float:
    """Seconds as a number, or since 1970 of an ISO time (more than six decimals are cut)."""
    try:
        at = float(value)
    except ValueError:
        whole, dot, fraction = str(value).partition(".")
        digits = len(fraction) - len(fraction.lstrip("0123456789"))
        text = whole + dot + fraction[: min(digits, 6)] + fraction[digits:]
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    if not math.isfinite(at):
        raise ValueError(f"{value!r} is no time")
    return at


def session_of(row: Mapping[str, Any]) -> str | None:
    """Which session a row belongs to, if it says so."""
    found = next((row[key] for key in ("session_id", "Session ID", "session") if key in row), None)
    return None if found in (None, "") else str(found)


def _is_report(text: str) -> bool:
    """A usage report is one document with ``data`` near its top, not a document a line."""
    return '"data"' in text[:2000] and '"results"' in text[:4000]


def _results(report: Any) -> Iterator[Any]:
    """Rows of OpenAI's and Anthropic's usage reports: pages of buckets of results, with the bucket's time."""
    for bucket in _dicts(report, "data"):
        at = bucket.get("start_time", bucket.get("starting_at"))
        for result in _dicts(bucket, "results"):
            yield {"bucket_start": at, **result}


def _dicts(parent: Any, name: str) -> list[dict[str, Any]]:
    found = parent.get(name) if isinstance(parent, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _json_lines(text: str, path: Path, remedy: str) -> list[Row]:
    if "\n\n" not in text:
        try:
            return list(enumerate(msgspec.json.Decoder().decode_lines(text), 1))
        except NOT_JSON:
            pass  # read again line by line, to name the line
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append((number, msgspec.json.decode(line)))
            except NOT_JSON as error:
                raise BadInputError(f"{path}: line {number}: not JSON: {error}", remedy=remedy) from error
    return rows


def _csv_rows(text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""))
    names = [name.strip() for name in next(reader, [])]
    return [
        (number, dict(zip(names, map(_cell, cells), strict=False)))
        for number, cells in enumerate(reader, 2)
        if cells
    ]


def _cell(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text

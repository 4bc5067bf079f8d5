"""Recorded traffic: our own JSON lines, Mooncake's, and the CSV files of Azure and BurstGPT."""

from __future__ import annotations

import csv
import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.simulate.engine import Request
from qwenhost.simulate.load import Arrival

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOONCAKE_BLOCK_TOKENS = 512
REMEDY = (
    'A line is {"arrival_s": 0.5, "input_tokens": 900, "output_tokens": 120}; Mooncake\'s JSON lines and '
    "the CSV files of Azure (TIMESTAMP,ContextTokens,GeneratedTokens) and BurstGPT are read as well."
)


def read_trace(path: Path, *, block_size: int, limit: int | None = None) -> list[Arrival]:
    """Arrivals in order of time, the first at zero.

    Args:
        path: ``.jsonl`` or ``.csv``.
        block_size: tokens per block of the engine, to carry recorded prefixes over.
        limit: read no more requests than this.

    Raises:
        BadInputError: missing file, or a line that is not understood (named by number).
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            rows = _json_rows(file) if first.lstrip().startswith("{") else _csv_rows(file)
            found = _arrivals(rows, path, block_size, limit)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: cannot read the trace: {error}", remedy=REMEDY) from error
    if not found:
        raise BadInputError(f"{path}: the trace holds no request", remedy=REMEDY)
    found.sort(key=lambda arrival: arrival.at_s)
    start = found[0].at_s
    return [Arrival(arrival.at_s - start, arrival.request) for arrival in found]


def _arrivals(
    rows: Iterator[tuple[int, Any]], path: Path, block_size: int, limit: int | None
) -> list[Arrival]:
    found: list[Arrival] = []
    line = 1
    try:
        for number, row in rows:
            line = number
            if limit is not None and len(found) >= limit:
                break
            arrival = _arrival(row, block_size)
            if arrival.request.prompt_tokens > 0 and arrival.request.output_tokens > 0:
                found.append(arrival)
    except (KeyError, ValueError, TypeError, AttributeError, msgspec.DecodeError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        raise BadInputError(f"{path}: line {line}: {reason}", remedy=REMEDY) from error
    return found


def _json_rows(lines: Any) -> Iterator[tuple[int, Any]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, decoder.decode(line)
            except msgspec.DecodeError as error:
                yield number, error


def _csv_rows(lines: Any) -> Iterator[tuple[int, Any]]:
    yield from enumerate(csv.DictReader(lines), start=2)


def _arrival(row: Any, block_size: int) -> Arrival:
    if isinstance(row, Exception):
        raise row
    if "input_length" in row:  # Mooncake; milliseconds
        hashes = _hashes(row.get("hash_ids") or [], int(row["input_length"]), block_size)
        request = Request(int(row["input_length"]), int(row["output_length"]), 0, hashes)
        return Arrival(float(row["timestamp"]) / 1000, request)
    if "ContextTokens" in row:  # Azure
        request = Request(int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        return Arrival(_seconds(row["TIMESTAMP"]), request)
    if "Request tokens" in row:  # BurstGPT; seconds
        request = Request(int(row["Request tokens"]), int(row["Response tokens"]))
        return Arrival(float(row["Timestamp"]), request)
    at = row["arrival_s"] if "arrival_s" in row else row["timestamp"]
    request = Request(int(row["input_tokens"]), int(row["output_tokens"]), int(row.get("cached_tokens", 0)))
    return Arrival(_seconds(at), request)


def _seconds(value: float | str) -> float:
    """Seconds as a number, or since 1970 of an ISO time (more than six decimals are cut)."""
    try:
        return float(value)
    except ValueError:
        whole, dot, fraction = str(value).partition(".")
        digits = len(fraction) - len(fraction.lstrip("0123456789"))
        text = whole + dot + fraction[: min(digits, 6)] + fraction[digits:]
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _hashes(ids: list[int], prompt_tokens: int, block_size: int) -> tuple[int, ...]:
    """Identity of the prefix at the end of each of the engine's full blocks.

    A Mooncake id names its 512 tokens together with all before them, so the id of the piece in which an
    engine block ends names that block's prefix (and up to 511 tokens more: equal means equal).
    """
    full = prompt_tokens // block_size
    pieces = [((index + 1) * block_size - 1) // MOONCAKE_BLOCK_TOKENS for index in range(full)]
    return tuple(ids[piece] for piece in pieces if piece < len(ids))

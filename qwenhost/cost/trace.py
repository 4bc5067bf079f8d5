"""Recorded requests with what they used: usage rows and reports of OpenAI and Anthropic, and traces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.cost.prompt_cache import Turn
from qwenhost.cost.usage import Usage
from qwenhost.errors import BadInputError
from qwenhost.traces import MOONCAKE_BLOCK_TOKENS, is_trace_row, read_rows, request_of, seconds, session_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_REMEDY = (
    "Give one JSON object a line with OpenAI's (prompt_tokens, completion_tokens) or Anthropic's "
    "(input_tokens, output_tokens, cache_read_input_tokens) usage fields, their usage reports, or a trace: "
    "arrival_s with input_tokens and output_tokens, Mooncake's JSON lines, Azure's or BurstGPT's CSV."
)

# Anthropic's console writes its usage report as CSV under these names.
_COLUMNS_OF_CONSOLE = {
    "usage_input_tokens_no_cache": "uncached_input_tokens",
    "usage_input_tokens_cache_write_5m": "cache_write_5m_tokens",
    "usage_input_tokens_cache_write_1h": "cache_write_1h_tokens",
    "usage_input_tokens_cache_read": "cache_read_tokens",
    "usage_output_tokens": "output_tokens",
    "web_search_count": "web_searches",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Requests as recorded."""

    usages: list[Usage]
    turns: list[Turn]
    """The same requests with time and session or prefix, where every row tells them; else empty."""
    times_s: list[float]
    """Arrival times where every row has one; else empty."""
    summed: bool = False
    """Rows of a usage report, each the sum of many requests."""

    @property
    def records_cache(self) -> bool:
        """Whether any row says what was read from or written to a cache."""
        return any(usage.cache_read_tokens or usage.cache_write_tokens for usage in self.usages)


def load_usage(path: Path) -> list[Usage]:
    """What every request of a file used, as recorded.

    Raises:
        BadInputError: as :func:`load_trace`.
    """
    return load_trace(path).usages


def load_trace(path: Path) -> Trace:
    """Read a usage file, a usage report or a trace.

    Raises:
        BadInputError: missing, empty, not JSON, or a row without usage fields; names file and row.
    """
    rows = [row for _, row in read_rows(path, remedy=_REMEDY)]
    if not rows:
        raise BadInputError(f"{path}: no usage rows", remedy=_REMEDY)
    if isinstance(rows[0], dict) and is_trace_row(rows[0]):
        return _of_trace(rows, str(path))
    usages = [usage_of_row(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)]
    if "bucket_start" in rows[0] or _COLUMNS_OF_CONSOLE.keys() & rows[0].keys():
        sums = [
            msgspec.structs.replace(usage, long_context=_is_long(row))
            for usage, row in zip(usages, rows, strict=True)
        ]
        return Trace(usages=sums, turns=[], times_s=[], summed=True)
    times = [_time(row) for row in rows]
    known = [at for at in times if at is not None]
    if len(known) < len(rows):
        return Trace(usages=usages, turns=[], times_s=[])
    sessions = [session_of(row) for row in rows]
    turns = [
        Turn(session, at, usage.prompt_tokens, usage.output_tokens)
        for session, at, usage in zip(sessions, known, usages, strict=True)
        if session is not None
    ]
    return Trace(usages=usages, turns=turns if len(turns) == len(rows) else [], times_s=known)


def usage_of_row(row: Any, where: str) -> Usage:
    """One row, flat or with its fields under ``usage``.

    OpenAI counts cached tokens within the input, Anthropic beside it.

    Raises:
        BadInputError: no usage fields, or a count that is not a number from 0; names the row.
    """
    if not isinstance(row, dict):
        raise BadInputError(f"{where}: expected an object, got {type(row).__name__}", remedy=_REMEDY)
    nested = row.get("usage")
    fields = nested if isinstance(nested, dict) else row
    if "prompt_tokens" in fields:
        details = _object(fields, "prompt_tokens_details")
        return _openai(fields, "prompt_tokens", "completion_tokens", details, where)
    if "uncached_input_tokens" in fields:
        return _anthropic(fields, where, plain="uncached_input_tokens")
    if "input_cached_tokens" in fields:
        details = {"cached_tokens": fields["input_cached_tokens"]}
        return _openai(fields, "input_tokens", "output_tokens", details, where)
    if _COLUMNS_OF_CONSOLE.keys() & fields.keys():
        counts = {field: _count(fields, name, where) for name, field in _COLUMNS_OF_CONSOLE.items()}
        return msgspec.convert(counts, Usage)
    if "input_tokens" not in fields:
        raise BadInputError(f"{where}: no prompt_tokens and no input_tokens", remedy=_REMEDY)
    if "input_tokens_details" in fields:
        details = _object(fields, "input_tokens_details")
        return _openai(fields, "input_tokens", "output_tokens", details, where)
    return _anthropic(fields, where)


def _of_trace(rows: list[Any], name: str) -> Trace:
    """Failed requests (no tokens in or out) are left out, as their sources do."""
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(request_of(row))
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
            raise BadInputError(f"{name}: row {number}: {reason}", remedy=_REMEDY) from error
    kept = [request for request in found if request.input_tokens > 0 and request.output_tokens > 0]
    if not kept:
        raise BadInputError(f"{name}: no request with tokens in and out", remedy=_REMEDY)
    usages = [
        Usage(
            uncached_input_tokens=max(0, request.input_tokens - request.cached_tokens),
            cache_read_tokens=min(request.cached_tokens, request.input_tokens),
            output_tokens=request.output_tokens,
        )
        for request in kept
    ]
    told = all(request.session is not None or request.hash_ids for request in kept)
    turns = [
        Turn(
            request.session, request.at_s, request.input_tokens, request.output_tokens,
            request.hash_ids, MOONCAKE_BLOCK_TOKENS,
        )
        for request in kept
    ]  # fmt: skip
    return Trace(usages=usages, turns=turns if told else [], times_s=[request.at_s for request in kept])


def _is_long(row: Mapping[str, Any]) -> bool:
    """Whether a row of a usage report sums requests above the long-context threshold.

    Anthropic's report says so where it is grouped by ``context_window`` (``0-200k``, ``200k-1M``); other rows
    count as short, since a sum has no prompt length.
    """
    return str(row.get("context_window") or "").startswith("200k")


def _time(row: Mapping[str, Any]) -> float | None:
    at = row.get("timestamp", row.get("created_at", row.get("created")))
    try:
        return None if at is None else seconds(at)
    except (ValueError, TypeError, OverflowError):
        return None


def _openai(
    fields: Mapping[str, Any], prompt: str, completion: str, details: Mapping[str, Any], where: str
) -> Usage:
    total, cached = _count(fields, prompt, where), _count(details, "cached_tokens", where)
    if cached > total:
        raise BadInputError(f"{where}: cached_tokens {cached:g} exceed {prompt} {total:g}", remedy=_REMEDY)
    return Usage(
        uncached_input_tokens=total - cached,
        cache_read_tokens=cached,
        output_tokens=_count(fields, completion, where),
        batch=fields.get("service_tier") == "batch" or fields.get("batch") is True,
    )


def _anthropic(fields: Mapping[str, Any], where: str, *, plain: str = "input_tokens") -> Usage:
    written = _count(fields, "cache_creation_input_tokens", where)
    by_ttl = _object(fields, "cache_creation")
    written_1h = _count(by_ttl, "ephemeral_1h_input_tokens", where)
    geo = fields.get("inference_geo")
    return Usage(
        uncached_input_tokens=_count(fields, plain, where),
        cache_write_5m_tokens=max(written - written_1h, _count(by_ttl, "ephemeral_5m_input_tokens", where)),
        cache_write_1h_tokens=written_1h,
        cache_read_tokens=_count(fields, "cache_read_input_tokens", where),
        output_tokens=_count(fields, "output_tokens", where),
        web_searches=_count(_object(fields, "server_tool_use"), "web_search_requests", where),
        batch=fields.get("service_tier") == "batch",
        inference_geo=geo if isinstance(geo, str) else None,
    )


def _object(fields: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}


def _count(fields: Mapping[str, Any], key: str, where: str) -> float:
    value = fields.get(key)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise BadInputError(f"{where}: {key} is {value!r}, expected a number from 0", remedy=_REMEDY)
    return float(value)

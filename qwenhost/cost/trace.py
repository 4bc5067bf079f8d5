"""Usage files: one request a line (or a JSON list), with OpenAI's or Anthropic's usage fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.cost.usage import Usage
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_REMEDY = (
    "Give one JSON object a line with OpenAI's (prompt_tokens, completion_tokens) or Anthropic's "
    "(input_tokens, output_tokens, cache_read_input_tokens) usage fields."
)


def load_usage(path: Path) -> list[Usage]:
    """Read a usage file.

    Raises:
        BadInputError: missing, empty, not JSON, or a row without usage fields; names file and row.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}", remedy=_REMEDY) from error
    rows = _rows(data, str(path))
    if not rows:
        raise BadInputError(f"{path}: no usage rows", remedy=_REMEDY)
    return [usage_of_row(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)]


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
    if "input_tokens" not in fields:
        raise BadInputError(f"{where}: no prompt_tokens and no input_tokens", remedy=_REMEDY)
    if "input_tokens_details" in fields:
        details = _object(fields, "input_tokens_details")
        return _openai(fields, "input_tokens", "output_tokens", details, where)
    return _anthropic(fields, where)


def _rows(data: bytes, name: str) -> list[Any]:
    text = data.strip()
    try:
        if text.startswith(b"["):
            return msgspec.json.decode(text, type=list[Any])
    except msgspec.DecodeError as error:
        raise BadInputError(f"{name}: not JSON: {error}", remedy=_REMEDY) from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(msgspec.json.decode(line))
        except msgspec.DecodeError as error:
            raise BadInputError(f"{name}: line {number}: not JSON: {error}", remedy=_REMEDY) from error
    return rows


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
        batch=fields.get("service_tier") == "batch",
    )


def _anthropic(fields: Mapping[str, Any], where: str) -> Usage:
    written = _count(fields, "cache_creation_input_tokens", where)
    by_ttl = _object(fields, "cache_creation")
    written_1h = _count(by_ttl, "ephemeral_1h_input_tokens", where)
    geo = fields.get("inference_geo")
    return Usage(
        uncached_input_tokens=_count(fields, "input_tokens", where),
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
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadInputError(f"{where}: {key} is {value!r}, expected a number from 0", remedy=_REMEDY)
    return float(value)

"""Recorded traffic: our own JSON lines, Mooncake's, and the CSV files of Azure and BurstGPT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.errors import BadInputError
from qwenhost.simulate.engine import Request
from qwenhost.simulate.load import Arrival
from qwenhost.traces import MOONCAKE_BLOCK_TOKENS, read_rows, request_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from qwenhost.traces import Row

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
    found = _arrivals(read_rows(path, remedy=REMEDY), path, block_size, limit)
    if not found:
        raise BadInputError(f"{path}: the trace holds no request", remedy=REMEDY)
    found.sort(key=lambda arrival: arrival.at_s)
    start = found[0].at_s
    return [arrival._replace(at_s=arrival.at_s - start) for arrival in found]


def _arrivals(rows: Iterable[Row], path: Path, block_size: int, limit: int | None) -> list[Arrival]:
    found: list[Arrival] = []
    for line, row in rows:
        if limit is not None and len(found) >= limit:
            break
        try:
            traced = request_of(row)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
            raise BadInputError(f"{path}: line {line}: {reason}", remedy=REMEDY) from error
        if traced.input_tokens > 0 and traced.output_tokens > 0:
            hashes = _hashes(traced.hash_ids, traced.input_tokens, block_size)
            request = Request(traced.input_tokens, traced.output_tokens, traced.cached_tokens, hashes)
            found.append(Arrival(traced.at_s, request, traced.session))
    return found


def _hashes(ids: Sequence[int], prompt_tokens: int, block_size: int) -> tuple[int, ...]:
    """Identity of the prefix at the end of each of the engine's full blocks.

    A Mooncake id names its 512 tokens together with all before them, so the id of the piece in which an
    engine block ends names that block's prefix (and up to 511 tokens more: equal means equal).
    """
    full = prompt_tokens // block_size
    pieces = [((index + 1) * block_size - 1) // MOONCAKE_BLOCK_TOKENS for index in range(full)]
    return tuple(ids[piece] for piece in pieces if piece < len(ids))

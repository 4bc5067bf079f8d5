"""Recorded traffic as arrivals at the simulated engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.simulate.engine import Request
from qwenhost.simulate.load import Arrival
from qwenhost.traces import MOONCAKE_BLOCK_TOKENS, read_requests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qwenhost.traces import TracedRequest


def read_trace(path: Path, *, block_size: int, limit: int | None = None) -> list[Arrival]:
    """Arrivals in order of time, the first at zero.

    Args:
        path: as for :func:`qwenhost.traces.read_requests`.
        block_size: tokens per block of the engine, to carry recorded prefixes over.
        limit: read no more requests than this.

    Raises:
        BadInputError: missing file, or a line that is not understood (named by number).
    """
    found = read_requests(path, limit=limit)
    start = found[0].at_s
    return [Arrival(one.at_s - start, _request(one, block_size), one.session) for one in found]


def _request(traced: TracedRequest, block_size: int) -> Request:
    hashes = _hashes(traced.hash_ids, traced.input_tokens, block_size)
    return Request(traced.input_tokens, traced.output_tokens, traced.cached_tokens, hashes)


def _hashes(ids: Sequence[int], prompt_tokens: int, block_size: int) -> tuple[int, ...]:
    """Identity of the prefix at the end of each of the engine's full blocks.

    A Mooncake id names its 512 tokens together with all before them, so the id of the piece in which an
    engine block ends names that block's prefix (and up to 511 tokens more: equal means equal).
    """
    full = min(prompt_tokens, len(ids) * MOONCAKE_BLOCK_TOKENS) // block_size
    pieces = [((index + 1) * block_size - 1) // MOONCAKE_BLOCK_TOKENS for index in range(full)]
    return tuple(ids[piece] for piece in pieces)

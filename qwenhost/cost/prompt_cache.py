"""A prompt cache over the gaps of sessions: what is written, read and forgotten, request by request.

The rules are those of an API that caches exact prefixes: a request reads the longest live prefix it
shares, writes what follows, and both the entry read (where reads refresh) and the one written live for
the TTL from then on. Prompts below the minimum are plain input.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, NamedTuple

from qwenhost.cost.usage import CACHE_TTL_S, CachePolicy, Usage
from qwenhost.facts import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qwenhost.facts import CacheRules, Workload

SESSIONS, SEED = 100, 20_261_123
Z_95 = 1.6448536269514722
"""Standard normal quantile at 0.95."""


MODEL = (
    "drawn sessions: the preset's mean number of requests, prompts that grow by equal steps, log-normal gaps "
    "through the published median and 95th percentile"
)


class Turn(NamedTuple):
    """One request of a session; its prompt begins with every shorter prompt of the session before it."""

    session: object
    at_s: float
    prompt_tokens: float
    output_tokens: float
    prefix_hashes: tuple[int, ...] = ()
    """Identity of each full piece of the prompt with all before it, where a trace records them."""
    piece_tokens: int = 0


class CacheTraffic(Value, frozen=True, kw_only=True):
    """What a simulated cache did with a trace."""

    policy: CachePolicy
    requests: int
    hit: float
    """Share of prompt tokens read."""
    written: float
    """Share of prompt tokens written."""
    expired: float
    """Share of requests after a session's first whose every shared prefix had been forgotten."""


class CacheCheck(Value, frozen=True, kw_only=True):
    """A cache lifetime at the baseline: the published hit share beside the simulated one."""

    policy: CachePolicy
    published_hit: float | None
    simulated_hit: float
    simulated_expired: float
    """Share of later requests of a session that found everything forgotten."""
    usd_per_request_published: float | None
    usd_per_request_simulated: float
    requests: int
    model: str = MODEL


class IdleSessions(Value, frozen=True, kw_only=True):
    """Sessions whose prompts one node's cache would have to keep between requests, and how many it can."""

    requests_per_s: float
    """Of one serving node at peak."""
    gap_s: float
    """Mean time from an answer to the next request of its session."""
    end_to_end_s: float
    mean_prompt_tokens: float
    cache_tokens: int
    """All replicas of the node."""
    needed: float
    """requests_per_s * (gap_s + end_to_end_s), Little's law."""
    held: float
    """cache_tokens / mean_prompt_tokens."""


def cached_usages(turns: Iterable[Turn], rules: CacheRules, policy: CachePolicy) -> Iterator[Usage]:
    """The bill's buckets of every request, in order of time.

    Args:
        turns: requests of any number of sessions.
        rules: smallest prefix, and whether a read starts the lifetime anew.
        policy: lifetime of what is written; ``none`` bills all of it as input.
    """
    ttl_s = CACHE_TTL_S[policy]
    live: dict[object, float] = {}
    by_session: dict[object, dict[float, float]] = {}
    for turn in sorted(turns, key=lambda turn: turn.at_s):
        prompt = turn.prompt_tokens
        if policy == "none" or prompt < rules.min_prefix_tokens:
            yield Usage(uncached_input_tokens=prompt, output_tokens=turn.output_tokens)
            continue
        refresh = rules.read_refreshes_ttl
        if turn.prefix_hashes:
            read = _read_pieces(live, turn, ttl_s, refresh=refresh, least=rules.min_prefix_tokens)
        else:
            read = _read_session(by_session.setdefault(turn.session, {}), turn, ttl_s, refresh=refresh)
        written = prompt - read
        yield Usage(
            cache_read_tokens=read,
            cache_write_5m_tokens=written if policy == "5m" else 0.0,
            cache_write_1h_tokens=written if policy == "1h" else 0.0,
            output_tokens=turn.output_tokens,
        )


def simulate_cache(turns: Iterable[Turn], rules: CacheRules, policy: CachePolicy) -> CacheTraffic:
    """Totals of :func:`cached_usages`."""
    ordered = sorted(turns, key=lambda turn: turn.at_s)
    prompt = read = written = 0.0
    seen: set[object] = set()
    later = lost = 0
    for turn, usage in zip(ordered, cached_usages(ordered, rules, policy), strict=True):
        prompt += turn.prompt_tokens
        read += usage.cache_read_tokens
        written += usage.cache_write_tokens
        later += turn.session in seen
        lost += turn.session in seen and usage.cache_read_tokens == 0
        seen.add(turn.session)
    return CacheTraffic(
        policy=policy,
        requests=len(ordered),
        hit=read / prompt if prompt else 0.0,
        written=written / prompt if prompt else 0.0,
        expired=lost / later if later else 0.0,
    )


def drawn_sessions(workload: Workload, *, sessions: int = SESSIONS, seed: int = SEED) -> list[Turn]:
    """Sessions drawn from what a preset publishes; empty where it publishes no gaps.

    A model, not a recording: every session has the preset's mean number of requests, its prompt grows by
    equal steps from one step to twice the mean (so that the mean is the preset's), and the gaps are
    log-normal through the published median and 95th percentile: ln gap ~ N(ln p50, (ln p95/p50 / 1.645)^2).
    """
    count = round(workload.requests_per_session)
    if workload.gap_s_p50 is None or workload.gap_s_p95 is None or count < 2:
        return []
    generator = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    mu, sigma = math.log(workload.gap_s_p50), _sigma(workload.gap_s_p50, workload.gap_s_p95)
    step = 2 * workload.input_tokens.mean / (count + 1)
    turns = []
    for session in range(sessions):
        at_s = 0.0
        for i in range(1, count + 1):
            turns.append(Turn(session, at_s, step * i, workload.output_tokens.mean))
            at_s += generator.lognormvariate(mu, sigma)
    return turns


def mean_gap_s(workload: Workload) -> float | None:
    """Mean of the log-normal through the published median and 95th percentile: p50 * exp(sigma^2 / 2)."""
    if workload.gap_s_p50 is None or workload.gap_s_p95 is None:
        return None
    return workload.gap_s_p50 * math.exp(_sigma(workload.gap_s_p50, workload.gap_s_p95) ** 2 / 2)


def _sigma(p50: float, p95: float) -> float:
    return math.log(p95 / p50) / Z_95


def _read_session(entries: dict[float, float], turn: Turn, ttl_s: float, *, refresh: bool) -> float:
    """Tokens of the longest live earlier prompt that is no longer than this one; writes this one."""
    for length in [length for length, ends_s in entries.items() if ends_s < turn.at_s]:
        del entries[length]
    read = max((length for length in entries if length <= turn.prompt_tokens), default=0.0)
    if read and refresh:
        entries[read] = turn.at_s + ttl_s
    entries[turn.prompt_tokens] = turn.at_s + ttl_s
    return read


def _read_pieces(
    live: dict[object, float], turn: Turn, ttl_s: float, *, refresh: bool, least: float
) -> float:
    """Tokens of the leading pieces that live; a prefix below the minimum is not read. Writes all pieces."""
    found = 0
    for piece in turn.prefix_hashes:
        if live.get(piece, -math.inf) < turn.at_s:
            break
        found += 1
    read = min(float(found * turn.piece_tokens), turn.prompt_tokens)
    read = read if read >= least else 0.0
    kept = 0 if refresh or not read else found
    for piece in turn.prefix_hashes[kept:]:
        live[piece] = turn.at_s + ttl_s
    return read

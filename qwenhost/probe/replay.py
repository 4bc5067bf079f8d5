"""Recorded traffic as load: its sizes, its instants, its sessions and its shared prefixes.

A trace holds no texts. The prompts are made so that what was shared is shared again: blocks with the
same Mooncake id hold the same text, a session's longer prompt begins with the shorter one before it,
and a recorded number of cached tokens is a common beginning.
"""

from __future__ import annotations

from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.probe.content import POOL_WORDS, Prompt, TextPool, TokenFit, nonce
from qwenhost.probe.course import Follow, Label
from qwenhost.traces import MOONCAKE_BLOCK_TOKENS, TracedRequest, read_requests

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from qwenhost.measurements import RequestRecord
    from qwenhost.probe.exchange import Exchange
    from qwenhost.probe.requests import Encoder
    from qwenhost.probe.spread import Spread

_ID_TOKENS: Final = 12
"""About what a nonce of 16 hexadecimal digits takes."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A trace made ready: in order of time from zero, cut to what is asked for."""

    requests: tuple[TracedRequest, ...]
    left_out: int
    """Requests that the server's context cannot hold."""

    @property
    def mean_input_tokens(self) -> float:
        """Of all requests."""
        return sum(request.input_tokens for request in self.requests) / len(self.requests)

    @property
    def mean_output_tokens(self) -> float:
        """Of all requests."""
        return sum(request.output_tokens for request in self.requests) / len(self.requests)


def read_replay(
    path: Path, *, scale: float, most: int | None, until_s: float | None, context: int | None
) -> Replay:
    """A trace as load.

    Args:
        path: of the trace; JSON lines or CSV, see :mod:`qwenhost.traces`.
        scale: how many times as fast as recorded.
        most: requests; None takes all.
        until_s: of the run, after scaling; None takes all.
        context: tokens the server can hold; None: unknown.

    Raises:
        BadInputError: unreadable, or nothing of it can be sent.
    """
    found = read_requests(path)
    start = found[0].at_s
    scaled = (request._replace(at_s=(request.at_s - start) / scale) for request in found)
    cut = list(islice((r for r in scaled if until_s is None or r.at_s < until_s), most))
    kept = [r for r in cut if context is None or r.input_tokens + r.output_tokens <= context]
    if not kept:
        raise BadInputError(
            f"{path}: no request of it fits the server's context of {context:,} tokens",
            remedy="Serve with a longer --max-model-len, or take another trace.",
        )
    return Replay(requests=tuple(kept), left_out=len(cut) - len(kept))


class TracePrompts:
    """The prompt of each request of a trace.

    Args:
        requests: of the trace.
        fit: words to tokens.
        seed: of the texts.
        pool: of which they are cut.
        unique: begin with a nonce of the run, so that no earlier run is found in the cache.
    """

    def __init__(
        self,
        requests: Sequence[TracedRequest],
        *,
        fit: TokenFit,
        seed: int,
        pool: TextPool,
        unique: bool = True,
    ) -> None:
        self._requests, self._fit, self._seed, self._pool = requests, fit, seed, pool
        self._run = f"{nonce(seed, -1)} " if unique else ""
        self._shared = _shared_tokens(requests)

    def __getitem__(self, index: int) -> Prompt:
        """Of a request of the trace; negative numbers are for warm-up and share nothing."""
        request = self._requests[index % len(self._requests)]
        if index < 0:
            words = self._fit.words_for(request.input_tokens)
            text = f"{nonce(self._seed, index)} {self._cut(str(index), words)}"
        elif request.hash_ids:
            text = self._run + self._blocks(request, index)
        else:
            text = self._run + self._grown(request, index)
        return Prompt(text=text, max_tokens=request.output_tokens)

    def _grown(self, request: TracedRequest, index: int) -> str:
        """A beginning that the session (or, without one, the whole trace) shares, and what is new."""
        words, shared = self._fit.words_for(request.input_tokens), self._shared[index]
        common = min(words, round(shared / self._fit.per_word))
        stream = f"session/{request.session}"
        opening = f"{_tag(self._seed, stream)} " if request.session is not None else ""
        if common == 0 and request.session is None:
            return f"{nonce(self._seed, index)} {self._cut(str(index), words)}"
        start = opening + self._cut(stream, common)
        if common < words and self._is_own(index):
            return f"{start} {nonce(self._seed, index)} {self._cut(str(index), words - common)}"
        return opening + self._cut(stream, words)

    def _is_own(self, index: int) -> bool:
        """Whether what follows the shared beginning is no one else's beginning."""
        request = self._requests[index]
        return request.session is None or request.cached_tokens > 0

    def _blocks(self, request: TracedRequest, index: int) -> str:
        """A piece of text for each id, the last one cut to the prompt's length."""
        per_block = MOONCAKE_BLOCK_TOKENS / self._fit.per_word
        left = request.input_tokens / self._fit.per_word
        pieces = []
        for id_ in request.hash_ids:
            count = round(min(left, per_block))
            left -= per_block
            if count > 0:
                words = max(1, count - round(_ID_TOKENS / 2 / self._fit.per_word))
                pieces.append(f"{id_:x} {self._cut(f'block/{id_}', words)}")
        if left > 0:  # More tokens than ids: the rest is the request's own.
            pieces.append(f"{nonce(self._seed, index)} {self._cut(str(index), round(left))}")
        return "\n".join(pieces)

    def _cut(self, stream: str, words: int) -> str:
        at = Random(f"{self._seed}/{stream}").randrange(POOL_WORDS)  # noqa: S311 - texts, not secrets
        return self._pool.cut(max(0, words), at)


def _tag(seed: int, stream: str) -> str:
    return f"{Random(f'{seed}/tag/{stream}').getrandbits(64):016x}"  # noqa: S311 - uniqueness, not secrecy


def _shared_tokens(requests: Sequence[TracedRequest]) -> list[int]:
    """How much of each prompt stood in an earlier one: as recorded, else the session's last prompt.

    A prompt shorter than the one before it begins anew: its history was compacted.
    """
    before: dict[str, int] = {}
    found = []
    for request in requests:
        shared = request.cached_tokens
        if request.session is not None:
            last = before.get(request.session, 0)
            if not shared and request.input_tokens >= last:
                shared = last
            before[request.session] = request.input_tokens
        found.append(min(shared, request.input_tokens))
    return found


class ReplayCourse:
    """A trace's requests: on their instants, or as fast as a closed loop takes them.

    A session's next request waits for the answer to the one before.

    Args:
        requests: of the trace, in order of time.
        prompts: their texts.
        encode: makes the requests.
        spread: over several URLs.
        timed: keep the recorded instants; else the law of arrivals or the closed loop rules.
        think_s: pause after an answer where the instants are not kept.
    """

    def __init__(
        self,
        requests: Sequence[TracedRequest],
        prompts: TracePrompts,
        *,
        encode: Encoder,
        spread: Spread,
        timed: bool,
        think_s: float = 0.0,
    ) -> None:
        self.total: int | None = len(requests)
        self._requests, self._prompts, self._encode, self._spread = requests, prompts, encode, spread
        self._timed, self._think_s = timed, think_s
        self._session: list[int | None] = []
        self._turn: list[int | None] = []
        self._next: dict[int, int] = {}
        self._firsts = self._chain()
        self.starts_share = len(self._firsts) / len(requests)
        self.due_s: Sequence[float] | None = [requests[i].at_s for i in self._firsts] if timed else None

    def _chain(self) -> list[int]:
        """Link the requests of each session; returns those that no other precedes."""
        firsts, last, numbers = [], dict[str, int](), dict[str, int]()
        for index, request in enumerate(self._requests):
            if request.session is None:
                self._session.append(None)
                self._turn.append(None)
                firsts.append(index)
                continue
            before = last.get(request.session)
            if before is None:
                firsts.append(index)
            else:
                self._next[before] = index
            last[request.session] = index
            self._session.append(numbers.setdefault(request.session, len(numbers)))
            turn = 0 if before is None else (self._turn[before] or 0) + 1
            self._turn.append(turn)
        return firsts

    def starts(self, done: Collection[int] = ()) -> Iterator[int | None]:
        """Of each chain the first request that is not done."""
        for first in self._firsts:
            yield next((index for index in self._chain_from(first) if index not in done), None)

    def requests_in(self, starts: Sequence[int]) -> int:
        """With all that follow them."""
        return sum(sum(1 for _ in self._chain_from(index)) for index in starts)

    def payload(self, index: int) -> bytes:
        """Of a request of the trace."""
        replica = self._spread.replica(index, self._session[index])
        return self._encode(self._prompts[index], index, replica=replica)

    def label(self, index: int) -> Label:
        """Session, turn and URL."""
        session = self._session[index]
        return Label(session=session, turn=self._turn[index], replica=self._spread.replica(index, session))

    def follows(self, index: int) -> bool:
        """Until a session's last."""
        return index in self._next

    def follow(self, exchange: Exchange) -> Follow:
        """The session's next: not before its instant."""
        following = self._next[exchange.index]
        if self._timed:
            return Follow(following, 0.0, self._requests[following].at_s)
        return Follow(following, self._think_s)

    def admits(self, index: int) -> bool:
        """Always."""
        del index
        return True

    def note(self, record: RequestRecord) -> None:
        """Nothing to note."""

    def _chain_from(self, index: int) -> Iterator[int]:
        following: int | None = index
        while following is not None:
            yield following
            following = self._next.get(following)

"""What users say in the turns of a session, and how much of it a prefix cache can serve."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.probe.content import POOL_WORDS, TextPool, TokenFit, nonce
from qwenhost.probe.own_prompts import FilePrompts, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

_TEMPLATE_TOKENS: Final = 12
"""Assumed: what a chat template puts around a further question and its answer."""
_LEAST_TOKENS: Final = 8
"""Of what a user says in a further turn."""
_LEAST_FIRST: Final = 16
_MOST_SHARED: Final = 0.9
"""Of the first prompt, so that each session's own begins within it."""


class Talk(Protocol):
    """The user's side of all sessions."""

    mean_turns: float

    def turns(self, session: int) -> Sequence[Turn]:
        """What is said in a session, one turn at least."""

    def stand_in(self, session: int, turn: int, tokens: int) -> str:
        """About so many tokens in place of an answer that is not known any more."""


class SessionSizes(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a session's prompts: turn k has ``first + k * growth``."""

    first: float
    growth: float
    """Of the prompt from one turn to the next: an answer, the template, and what the user says."""
    shared: float
    """At the beginning of the first prompt, common to all sessions."""
    hit: float
    """Share of all prompt tokens that stood in an earlier prompt: the most a cache can serve."""


def session_sizes(input_tokens: float, output_tokens: float, turns: int, hit: float | None) -> SessionSizes:
    """Sizes whose prompts average ``input_tokens`` and of which ``hit`` stood in an earlier prompt.

    With prompts of F + k * G tokens in T turns the mean is I = F + (T - 1) / 2 * G. Each later prompt
    contains the one before, so that hit = (T - 1) * (I - G / 2) / (T * I), and a prefix of S tokens that
    all sessions share adds S / (T * I). Without a wanted share every question is as long as the first.

    Raises:
        BadInputError: sizes that leave no room for a question; names the shares that can be had.
    """
    mean, more = input_tokens, turns - 1
    least = output_tokens + _TEMPLATE_TOKENS + _LEAST_TOKENS
    most = 2 * (mean - _LEAST_FIRST) / more
    if most < least:
        needed = least * more / 2 + _LEAST_FIRST
        raise BadInputError(
            f"{turns} turns with answers of {output_tokens:,.0f} tokens exceed prompts of {mean:,.0f}",
            remedy=f"Give --input-tokens {needed:,.0f} or more, or fewer --turns.",
        )
    if hit is None:
        # F = G - answer - template: as long as every further question.
        growth = min(most, max(least, 2 * (mean + output_tokens + _TEMPLATE_TOKENS) / (turns + 1)))
    else:
        growth = min(most, max(least, 2 * mean * (1 - hit * turns / more)))
    first = mean - more / 2 * growth
    own = more * (mean - growth / 2) / (turns * mean)
    shared = 0.0 if hit is None else max(0.0, hit - own) * turns * mean
    if hit is not None and (shared > _MOST_SHARED * first or own > hit + 0.005):
        highest = _highest(mean, least, turns)
        lowest = more * (mean - most / 2) / (turns * mean)
        raise BadInputError(
            f"--prefix-hit {hit:g} cannot be had with {turns} turns of these sizes",
            remedy=f"They allow {lowest:.2f} to {highest:.2f}; change --turns, --input-tokens or "
            "--output-tokens.",
        )
    return SessionSizes(first=first, growth=growth, shared=shared, hit=own + shared / (turns * mean))


def _highest(mean: float, least: float, turns: int) -> float:
    first = mean - (turns - 1) / 2 * least
    return ((turns - 1) * (mean - least / 2) + _MOST_SHARED * first) / (turns * mean)


class SyntheticTalk:
    """Sessions of wanted sizes; the same seed says the same.

    Args:
        sizes: of the prompts.
        turns: of each session.
        output_tokens: of each answer.
        fit: words to tokens.
        seed: of the texts.
        pool: of which they are cut.
        unique: open each session with a nonce.
    """

    def __init__(
        self,
        sizes: SessionSizes,
        *,
        turns: int,
        output_tokens: float,
        fit: TokenFit,
        seed: int,
        pool: TextPool,
        unique: bool = True,
    ) -> None:
        self.mean_turns = float(turns)
        self._turns, self._seed, self._pool, self._fit = turns, seed, pool, fit
        self._answer = max(1, round(output_tokens))
        self._unique = unique
        self._first_words = fit.words_for(sizes.first)
        asked = sizes.growth - output_tokens - _TEMPLATE_TOKENS
        self._more_words = max(1, round(asked / fit.per_word))
        self._shared_words = min(round(sizes.shared / fit.per_word), self._first_words - 1)
        self._prefix = (
            f"{self._nonce(-1)}{pool.cut(self._shared_words, at=0)}\n" if self._shared_words else ""
        )

    def turns(self, session: int) -> Sequence[Turn]:
        """Of one size each."""
        random_ = Random(f"{self._seed}/session/{session}")  # noqa: S311 - texts, not secrets
        own = self._pool.cut(self._first_words - self._shared_words, random_.randrange(POOL_WORDS))
        first = f"{self._prefix}{self._nonce(session)}{own}"
        more = [
            self._pool.cut(self._more_words, random_.randrange(POOL_WORDS)) for _ in range(self._turns - 1)
        ]
        return [Turn(text=text, max_tokens=self._answer) for text in (first, *more)]

    def stand_in(self, session: int, turn: int, tokens: int) -> str:
        """Of the same text."""
        at = Random(f"{self._seed}/stand-in/{session}/{turn}").randrange(POOL_WORDS)  # noqa: S311
        return self._pool.cut(max(1, round(tokens / self._fit.per_word)), at)

    def _nonce(self, session: int) -> str:
        return f"{nonce(self._seed, session)} " if self._unique else ""


class FileTalk:
    """The user's own conversations; the model's answers are its own."""

    def __init__(self, prompts: FilePrompts, *, most_turns: int) -> None:
        self._prompts, self._most = prompts, most_turns
        lengths = [len(prompts.turns(session, most_turns)) for session in range(len(prompts.entries))]
        self.mean_turns = sum(lengths) / len(lengths)

    def turns(self, session: int) -> Sequence[Turn]:
        """Of the line whose turn it is."""
        return self._prompts.turns(session, self._most)

    def stand_in(self, session: int, turn: int, tokens: int) -> str:
        """The recorded answer."""
        del tokens
        return self.turns(session)[turn].answer or "(no answer recorded)"

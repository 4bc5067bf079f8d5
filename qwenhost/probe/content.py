"""What is sent: prompts of a wanted token count that no cache has seen.

A synthetic prompt begins with a nonce, so that prefix caching cannot serve it from an earlier request
or run, and goes on with English-like sentences. Where a share of cached tokens is wanted, all prompts
of the run begin with the same text, itself opened by a nonce of the run.
"""

from __future__ import annotations

import math
import random
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from qwenhost.facts import Basis, TokenStats
from qwenhost.probe import words

if TYPE_CHECKING:
    from collections.abc import Sequence

POOL_WORDS = 120_000
_ASSUMED_TOKENS_PER_WORD = 1.15  # A word or its full stop; of Qwen's and GPT's tokenizers, on this text.
_MAX_FACTOR = 20.0
"""No drawn length exceeds the mean by more than this factor."""

_ROOM = 0.95
"""Of a context that a drawn prompt may fill; its token count is fitted, not exact."""

Distribution = Literal["fixed", "preset"]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One request's content."""

    text: str
    max_tokens: int
    messages: list[dict[str, Any]] | None = None


class TokenFit(msgspec.Struct, frozen=True, kw_only=True):
    """tokens = per_prompt + per_word * words, for this server, endpoint and text."""

    per_prompt: float = 20.0
    """The nonce's and the chat template's share."""
    per_word: float = _ASSUMED_TOKENS_PER_WORD
    basis: Basis = "assumed"
    source: str = "typical of this text"

    def words_for(self, tokens: float) -> int:
        """Words that make a prompt of so many tokens, one at least."""
        return max(1, round((tokens - self.per_prompt) / self.per_word))


def fit_tokens(few: tuple[int, int], many: tuple[int, int], source: str) -> TokenFit:
    """The line through two observations of (words, tokens)."""
    per_word = (many[1] - few[1]) / (many[0] - few[0])
    if per_word <= 0:
        return TokenFit()
    per_prompt = max(0.0, few[1] - per_word * few[0])
    return TokenFit(per_prompt=per_prompt, per_word=per_word, basis="measured", source=source)


class TextPool:
    """A long English-like text of which prompts are cuts; its order depends on the seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - text, not secrets
        pool: list[str] = []
        while len(pool) < POOL_WORDS:
            pool += self._sentence()
        self._words = pool

    def cut(self, count: int, at: int) -> str:
        """``count`` words from position ``at``, wrapping around."""
        pool = self._words
        at %= len(pool)
        taken = pool[at : at + count]
        while len(taken) < count:
            taken += pool[: count - len(taken)]
        return " ".join(taken)

    def _sentence(self) -> list[str]:
        pick = self._random.choice
        clause = self._clause()
        if self._random.random() < 0.4:
            clause[-1] += ","
            clause += [pick(words.JOINERS), *self._clause()]
        clause[0] = clause[0].capitalize()
        clause[-1] += "."
        return clause

    def _clause(self) -> list[str]:
        pick = self._random.choice
        clause = [pick(words.DETERMINERS), pick(words.ADJECTIVES), pick(words.NOUNS), pick(words.VERBS)]
        clause += [pick(words.DETERMINERS), pick(words.NOUNS)]
        if self._random.random() < 0.5:
            clause += [pick(words.PREPOSITIONS), pick(words.DETERMINERS), pick(words.NOUNS)]
        return clause


class SyntheticPrompts:
    """Prompts of wanted token counts; the same seed gives the same prompts.

    Args:
        input_tokens: whole prompt, chat template included.
        output_tokens: answer.
        distribution: ``fixed`` at the mean, or ``preset``: lognormal with the mean and median given.
        prefix_hit: share of the prompt that all requests have in common.
        max_model_len: what the server takes; longer prompts are shortened. None: unknown.
        fit: words to tokens.
        seed: of the texts and sizes.
        unique: open each prompt with a nonce; without it a second run of the seed is served from the cache.
    """

    def __init__(
        self,
        *,
        input_tokens: TokenStats,
        output_tokens: TokenStats,
        distribution: Distribution = "fixed",
        prefix_hit: float = 0.0,
        max_model_len: int | None = None,
        fit: TokenFit | None = None,
        seed: int,
        pool: TextPool | None = None,
        unique: bool = True,
    ) -> None:
        self._input, self._output = input_tokens, output_tokens
        self._distribution, self._prefix_hit = distribution, prefix_hit
        self._max_model_len = max_model_len
        self._fit = fit or TokenFit()
        self._seed, self._unique = seed, unique
        self._pool = pool or TextPool(seed)
        self._prefix, self._shared_words = "", 0
        if prefix_hit > 0:
            self._shared_words = self._fit.words_for(prefix_hit * input_tokens.mean)
            self._prefix = f"{self._nonce(-1)}{self._pool.cut(self._shared_words, at=0)}\n"

    def __getitem__(self, index: int) -> Prompt:
        """Prompt number ``index``; negative numbers are for warm-up."""
        wanted_in, wanted_out = self.sizes(index)
        count = max(1, self._fit.words_for(wanted_in) - self._shared_words)
        own = f"{self._nonce(index)}{self._pool.cut(count, self._random(index).randrange(POOL_WORDS))}"
        return Prompt(text=self._prefix + own, max_tokens=max(1, round(wanted_out)))

    def sizes(self, index: int) -> tuple[float, float]:
        """Wanted tokens of a prompt and its answer."""
        random_ = self._random(f"{index}/sizes")
        fixed = self._distribution == "fixed"
        wanted_in = self._input.mean if fixed else draw_lognormal(self._input, random_)
        wanted_out = self._output.mean if fixed else draw_lognormal(self._output, random_)
        if self._max_model_len is not None and not fixed:
            wanted_out = min(wanted_out, self._max_model_len / 2)
            wanted_in = min(wanted_in, (self._max_model_len - wanted_out) * _ROOM)
        return wanted_in, wanted_out

    def _random(self, of: object) -> random.Random:
        return random.Random(f"{self._seed}/{of}")  # noqa: S311 - texts and sizes, not secrets

    def _nonce(self, index: int) -> str:
        return f"{nonce(self._seed, index)} " if self._unique else ""


def nonce(seed: int, index: int) -> str:
    """Sixteen hexadecimal digits that open a prompt and occur in no other."""
    random_ = random.Random(f"nonce/{seed}/{index}")  # noqa: S311 - uniqueness, not secrecy
    return f"{random_.getrandbits(64):016x}"


def draw_lognormal(stats: TokenStats, random_: random.Random) -> float:
    """A length with the given mean, and the given median or 90th percentile where there is one.

    For a lognormal, mean = median * exp(sigma^2 / 2) and p90 = median * exp(1.2816 * sigma). With a
    mean alone sigma is 0 and every length is the mean.
    """
    sigma = _sigma(stats)
    median = stats.mean / math.exp(sigma**2 / 2)
    drawn = median * math.exp(sigma * random_.gauss(0.0, 1.0))
    return max(1.0, min(drawn, _MAX_FACTOR * stats.mean))


def _sigma(stats: TokenStats) -> float:
    if stats.p50 is not None and 0 < stats.p50 < stats.mean:
        return math.sqrt(2 * math.log(stats.mean / stats.p50))
    if stats.p90 is not None and stats.p90 > stats.mean:
        # log(p90 / mean) = z * sigma - sigma^2 / 2, the smaller root; z itself where there is none.
        z = NormalDist().inv_cdf(0.9)
        return z - math.sqrt(max(0.0, z**2 - 2 * math.log(stats.p90 / stats.mean)))
    return 0.0


def sample_words(pool: TextPool, seed: int, counts: Sequence[int]) -> list[tuple[int, str]]:
    """Texts of the given lengths in words, nonce first and not counted, to fit tokens to."""
    return [
        (count, f"{nonce(seed, -100 - i)} {pool.cut(count, at=i * 5000)}") for i, count in enumerate(counts)
    ]

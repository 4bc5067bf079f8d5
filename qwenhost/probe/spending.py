"""What a run against a paid API may cost: said beforehand, and kept to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from qwenhost.measurements import RequestRecord

_SAFETY: Final = 1.3
"""A prompt is fitted to its token count, not counted: none is taken to be longer than this."""


class Prices(Value, frozen=True, kw_only=True):
    """USD per million tokens."""

    input: float
    output: float
    cache_write: float
    cache_read: float
    source: str
    """Where they are from and since when they hold."""
    long_context_above_tokens: int | None = None
    """Prompts of more tokens, cached ones included, are billed at ``long_context`` as a whole."""
    long_context: Prices | None = None

    def of_prompt(self, input_tokens: float) -> Prices:
        """What holds for a request with so long a prompt."""
        above = self.long_context_above_tokens
        if above is None or self.long_context is None or input_tokens <= above:
            return self
        return self.long_context


class Budget(Value, frozen=True, kw_only=True):
    """A spending cap and what it is reckoned with."""

    max_usd: float
    prices: Prices


class Cost(Value, frozen=True, kw_only=True):
    """Of a run, reckoned before it."""

    expected_usd: float
    """Prompts and answers of the wanted mean sizes, nothing cached."""
    worst_usd: float
    """Longest prompts and answers, all of it written to the cache where caching is asked for."""
    requests: int


def cost_beforehand(
    prices: Prices, *, requests: int, input_tokens: float, output_tokens: float, most_input: float,
    most_output: float, caching: bool,
) -> Cost:  # fmt: skip
    """What a run can cost.

    Args:
        prices: of the API.
        requests: warm-up included.
        input_tokens: mean prompt.
        output_tokens: mean answer.
        most_input: longest prompt that is wanted; a margin is added.
        most_output: longest answer that is allowed (``max_tokens``).
        caching: whether prompts are marked for the cache, whose writes cost more.
    """
    return Cost(
        expected_usd=requests * usd(prices, input_tokens, output_tokens),
        worst_usd=requests * worst_usd(prices, most_input, most_output, caching=caching),
        requests=requests,
    )


def worst_usd(prices: Prices, input_tokens: float, most_output: float, *, caching: bool) -> float:
    """Of one request."""
    written = _SAFETY * input_tokens if caching else 0.0
    return usd(prices, _SAFETY * input_tokens, most_output, written=written)


def usd(
    prices: Prices, input_tokens: float, output_tokens: float, *, read: float = 0.0, written: float = 0.0
) -> float:
    """Of one request; ``read`` and ``written`` are the parts of its input that the cache served or took."""
    return usd_at(prices.of_prompt(input_tokens), input_tokens, output_tokens, read=read, written=written)


def usd_at(
    prices: Prices, input_tokens: float, output_tokens: float, *, read: float = 0.0, written: float = 0.0
) -> float:
    """Of token counts of one or many requests at these very prices, however long the prompts were."""
    plain = input_tokens - read - written
    return (
        plain * prices.input
        + written * prices.cache_write
        + read * prices.cache_read
        + output_tokens * prices.output
    ) / 1e6


class Purse:
    """Lets a request go only while it could be paid for even at its worst.

    Args:
        budget: the cap.
        worst_request_usd: what one request may cost.
        spent_usd: by the part of the run that is resumed.
    """

    def __init__(self, budget: Budget, worst_request_usd: float, spent_usd: float = 0.0) -> None:
        self._budget, self.worst_request_usd = budget, worst_request_usd
        self.spent_usd = spent_usd
        """Measured from the answers' usage; an answer without usage counts at its worst."""
        self._open = 0
        self.stopped = False

    def admits(self) -> bool:
        """Whether the next request is within the cap together with all that are under way."""
        if self.spent_usd + (self._open + 1) * self.worst_request_usd > self._budget.max_usd * (1 + 1e-9):
            self.stopped = True
            return False
        self._open += 1
        return True

    def note(self, record: RequestRecord) -> None:
        """Book an ended request; one dearer than was thought possible makes all others held for as dear."""
        self._open -= 1
        cost = spent_on(record, self._budget.prices, self.worst_request_usd)
        self.spent_usd += cost
        self.worst_request_usd = max(self.worst_request_usd, cost)


def spent_on(record: RequestRecord, prices: Prices, worst_request_usd: float) -> float:
    """What a request was billed, by its usage; refused requests are free, others without it at their worst.

    A stream that was cut has told of its prompt and not of its answer: the worst, too.
    """
    if was_told(record):
        written = record.cache_written_tokens
        read = record.cached_tokens
        return usd(prices, record.input_tokens, record.output_tokens, read=read, written=written)
    return 0.0 if was_refused(record) else worst_request_usd


def was_told(record: RequestRecord) -> bool:
    """Whether the answer's usage is whole: it comes with the end of the stream."""
    return bool(record.input_tokens) and record.error in (None, "zero_tokens")


def was_refused(record: RequestRecord) -> bool:
    """Whether it failed before the server did anything that is billed."""
    return record.error is not None and record.error.startswith(("http_", "refused", "tls", "unreachable"))


def require_within(cost: Cost, budget: Budget) -> None:
    """Refuse a run that could cost more than its cap.

    Raises:
        BadInputError: the worst case is above it.
    """
    if cost.worst_usd > budget.max_usd:
        raise BadInputError(
            f"the run could cost {cost.worst_usd:.2f} USD ({cost.requests} requests at worst), "
            f"more than --max-usd {budget.max_usd:g}",
            remedy=f"Expected are {cost.expected_usd:.2f} USD. Lower --requests, --input-tokens or "
            "--output-tokens, or raise --max-usd.",
        )

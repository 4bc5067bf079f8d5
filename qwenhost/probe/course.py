"""Which requests a run consists of, in which order, and what follows an answer.

The traffic asks a course and knows nothing of prompts, sessions, traces or prices. An index names a
request for good: the same course gives the same request for it, so that a run can be resumed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from qwenhost.probe.store import RecordStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.measurements import RequestRecord
    from qwenhost.probe.content import Prompt
    from qwenhost.probe.exchange import Exchange
    from qwenhost.probe.requests import Encoder
    from qwenhost.probe.spending import Purse
    from qwenhost.probe.spread import Spread


class Follow(NamedTuple):
    """What comes after an answer."""

    request: int
    think_s: float
    """From the answer's last byte to the next request's due time."""
    not_before_s: float = 0.0
    """Since the start of the run; recorded traffic keeps its instants where the server lets it."""


class Label(NamedTuple):
    """Where a request belongs, for its record."""

    session: int | None = None
    turn: int | None = None
    replica: int | None = None


class Indices:
    """A set of requests, a byte for each index up to the highest."""

    def __init__(self) -> None:
        self._flags = bytearray()

    def add(self, index: int) -> None:
        """Put one in."""
        if index >= len(self._flags):
            self._flags.extend(bytes(index + 1 - len(self._flags)))
        self._flags[index] = 1

    def __contains__(self, index: object) -> bool:
        """Whether it is there."""
        return isinstance(index, int) and 0 <= index < len(self._flags) and bool(self._flags[index])

    def __iter__(self) -> Iterator[int]:
        """Ascending."""
        return (index for index, there in enumerate(self._flags) if there)

    def __len__(self) -> int:
        """How many."""
        return self._flags.count(1)


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What a run that is resumed had already done."""

    store: RecordStore | None = None
    """The run goes on filling it."""
    done: Collection[int] = frozenset()
    until_s: float = 0.0
    """Where its clock stood; the run goes on from there."""


class Prompts(Protocol):
    """A prompt for each index; negative ones are for warm-up."""

    def __getitem__(self, index: int, /) -> Prompt:
        """The prompt."""


class Course(Protocol):
    """The requests of a run."""

    total: int | None
    """Requests there are; None: without end."""
    due_s: Sequence[float] | None
    """Recorded instants of the starts, ascending; None: the law of arrivals gives them."""

    starts_share: float
    """Of all requests, those that wait for no answer: a rate of requests leads to that share of starts."""

    def starts(self, done: Collection[int] = ()) -> Iterator[int | None]:
        """Requests that wait for no answer, in order; None for one of which everything is done."""

    def requests_in(self, starts: Sequence[int]) -> int:
        """How many requests so many starts lead to."""

    def payload(self, index: int) -> bytes:
        """A request as it goes on the wire; all before it in its session have been answered."""

    def label(self, index: int) -> Label:
        """Where it belongs."""

    def follows(self, index: int) -> bool:
        """Whether another request waits for this one's answer."""

    def follow(self, exchange: Exchange) -> Follow:
        """What comes after this good answer; asked once, and only where something follows."""

    def admits(self, index: int) -> bool:
        """Whether it may be sent; False ends the run."""

    def note(self, record: RequestRecord) -> None:
        """Take notice of an ended request."""


class Singles:
    """Requests that have nothing to do with one another, without end.

    Args:
        prompts: of each index.
        encode: makes the requests.
        spread: over several URLs.
    """

    total: int | None = None
    due_s: Sequence[float] | None = None
    starts_share = 1.0

    def __init__(self, prompts: Prompts, encode: Encoder, spread: Spread) -> None:
        self._prompts, self._encode, self._spread = prompts, encode, spread

    def starts(self, done: Collection[int] = ()) -> Iterator[int | None]:
        """Every index."""
        return (None if index in done else index for index in count())

    def requests_in(self, starts: Sequence[int]) -> int:
        """As many."""
        return len(starts)

    def payload(self, index: int) -> bytes:
        """Of the prompt with that index."""
        return self._encode(self._prompts[index], index, replica=self._spread.replica(index))

    def label(self, index: int) -> Label:
        """The URL."""
        return Label(replica=self._spread.replica(index))

    def follows(self, index: int) -> bool:
        """Never."""
        del index
        return False

    def follow(self, exchange: Exchange) -> Follow:
        """Never asked."""
        raise NotImplementedError(exchange)

    def admits(self, index: int) -> bool:
        """Always."""
        del index
        return True

    def note(self, record: RequestRecord) -> None:
        """Nothing to note."""


class Capped:
    """A course that ends when its purse would not pay for the next request at its worst."""

    def __init__(self, course: Course, purse: Purse) -> None:
        self.total, self.due_s, self.starts_share = course.total, course.due_s, course.starts_share
        self._purse, self._course = purse, course
        self.starts, self.requests_in, self.payload = course.starts, course.requests_in, course.payload
        self.label, self.follows, self.follow = course.label, course.follows, course.follow

    def admits(self, index: int) -> bool:
        """Whether it can be paid for."""
        del index
        return self._purse.admits()

    def note(self, record: RequestRecord) -> None:
        """Book it."""
        self._purse.note(record)
        self._course.note(record)

"""What is counted of every request of a run, however many there are, in a bounded number of figures."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final

from qwenhost.probe.spending import usd_at, was_refused, was_told

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qwenhost.measurements import RequestRecord
    from qwenhost.probe.spending import Prices

OPEN_SESSIONS: Final = 100_000
"""Sessions whose last prompt is remembered; of more, those that were silent longest are forgotten."""


class Totals:
    """Counts and sums over all requests, and the first and last instants among them.

    Requests dropped at an interruption are counted in ``interrupted`` and nowhere else.
    """

    def __init__(self) -> None:
        self.sent = self.interrupted = self.completed = self.rate_limited = 0
        self.by_error: Counter[str] = Counter()
        self.input_tokens = self.output_tokens = self.cached_tokens = self.tool_calls = 0
        """Of requests that ended well."""
        self.first_due_s = self.first_sent_s = self.first_completed_s = math.inf
        self.last_due_s = self.last_sent_s = self.end_s = self.longest_lag_ms = -math.inf
        self.sessions = SessionTotals()
        self.bill = Bill()

    @classmethod
    def of(cls, records: Iterable[RequestRecord]) -> Totals:
        """Of records that are all there."""
        totals = cls()
        for record in records:
            totals.add(record)
        return totals

    @property
    def failed(self) -> int:
        """Requests that ended badly."""
        return self.sent - self.completed

    @property
    def duration_s(self) -> float:
        """First due time to last token; to the last send where no token came. 0 without a request."""
        return max(0.0, self.end_s - self.first_due_s) if self.sent else 0.0

    def add(self, record: RequestRecord) -> None:
        """Count a request."""
        self.bill.add(record)  # Those dropped are billed all the same.
        if record.error == "interrupted":
            self.interrupted += 1
            return
        self._note_times(record)
        self.rate_limited += record.http_status == 429
        if record.error is not None:
            self.by_error[record.error] += 1
            return
        self.completed += 1
        self.input_tokens += record.input_tokens
        self.output_tokens += record.output_tokens
        self.cached_tokens += record.cached_tokens
        self.tool_calls += record.tool_calls
        if record.last_s is not None:
            self.first_completed_s = min(self.first_completed_s, record.last_s)
        self.sessions.add(record)

    def _note_times(self, record: RequestRecord) -> None:
        due, sent = record.scheduled_s, record.sent_s
        self.sent += 1
        self.longest_lag_ms = max(self.longest_lag_ms, record.send_lag_ms)
        self.first_due_s, self.last_due_s = min(self.first_due_s, due), max(self.last_due_s, due)
        self.first_sent_s, self.last_sent_s = min(self.first_sent_s, sent), max(self.last_sent_s, sent)
        self.end_s = max(self.end_s, sent if record.last_s is None else record.last_s)


class SessionTotals:
    """Requests of sessions that ended well; a session's turns end in their order."""

    def __init__(self, most_open: int = OPEN_SESSIONS) -> None:
        self.sessions = self.requests = self.input_tokens = self.cached_tokens = 0
        self.repeated_tokens = 0
        """Prompt tokens that stood in the prompt of the turn before; its answer is not counted."""
        self._most_open = most_open
        self._last: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def add(self, record: RequestRecord) -> None:
        """Count a request, if it belongs to a session."""
        if record.session is None:
            return
        turn = record.turn or 0
        known = self._last.pop(record.session, None)
        self.sessions += known is None
        self.requests += 1
        self.input_tokens += record.input_tokens
        self.cached_tokens += record.cached_tokens
        if known is not None and known[0] == turn - 1:
            self.repeated_tokens += min(record.input_tokens, known[1])
        self._last[record.session] = (turn, record.input_tokens)
        if len(self._last) > self._most_open:
            self._last.popitem(last=False)


class Bill:
    """Tokens that a paid API's usage named, and requests of which it said nothing.

    They are summed by the length of the prompt in thousands, because some prices depend on it.
    """

    def __init__(self) -> None:
        self.unknown = 0
        self._by_length: dict[int, list[int]] = {}
        """Thousands of prompt tokens, rounded up: sums of prompt, answer, read and written tokens."""

    def add(self, record: RequestRecord) -> None:
        """Book a request: refused ones are free."""
        if was_told(record):
            sums = self._by_length.setdefault(math.ceil(record.input_tokens / 1000), [0, 0, 0, 0])
            sums[0] += record.input_tokens
            sums[1] += record.output_tokens
            sums[2] += record.cached_tokens
            sums[3] += record.cache_written_tokens
        elif not was_refused(record):
            self.unknown += 1

    def usd(self, prices: Prices, worst_request_usd: float) -> float:
        """The sum; a request without usage counts at its worst."""
        known = 0.0
        for thousands, (prompt, answer, read, written) in self._by_length.items():
            # Thresholds are whole thousands; of another the length that it lies in counts as above it.
            prices_there = prices.of_prompt(thousands * 1000)
            known += usd_at(prices_there, prompt, answer, read=read, written=written)
        return known + self.unknown * worst_request_usd

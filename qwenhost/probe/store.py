"""The records of a run in memory that stays flat: all of them up to a bound, an even sample beyond it."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.probe.gaps import GapHistogram
from qwenhost.probe.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qwenhost.measurements import RequestRecord

KEPT_RECORDS: Final = 100_000
"""Requests whose records are held, about 50 MB."""
KEPT_TIMES: Final = 2_000_000
"""Token times held as they are, about 64 MB."""


def rank_error(sample: int) -> float:
    """How far, as a share, the rank of any percentile of an even sample may be off, at 95 %.

    sqrt(ln(2 / 0.05) / (2 n)): Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990). It holds
    for all percentiles at once.
    """
    return math.sqrt(math.log(2 / 0.05) / (2 * sample))


class RecordStore:
    """Records of a run, its totals, and the gaps of token times that were not kept.

    Up to ``kept_records`` every record is there. Of more, each request has the same chance to be (reservoir
    sampling: Vitter 1985, algorithm R). Token times are kept until there are ``kept_times``. Totals and
    gaps are of all requests in either case; a file of ``--records`` has everything.

    Args:
        kept_times: bound on token times.
        kept_records: bound on records.
        seed: of the sample.
    """

    def __init__(self, kept_times: int = KEPT_TIMES, kept_records: int = KEPT_RECORDS, seed: int = 0) -> None:
        self.dropped = GapHistogram()
        self.totals = Totals()
        self.by_replica: dict[int, Totals] = {}
        self.added = 0
        """Records that came, those dropped at an interruption included."""
        self._kept: list[tuple[int, RequestRecord]] = []
        self._most, self._times_left = kept_records, kept_times
        self._random = Random(seed)  # noqa: S311 - chance, not secrets

    @property
    def records(self) -> list[RequestRecord]:
        """In the order in which they came."""
        if self.added > self._most:
            return [record for _, record in sorted(self._kept, key=lambda kept: kept[0])]
        return [record for _, record in self._kept]

    @property
    def complete(self) -> bool:
        """Whether every record is there."""
        return self.added == len(self._kept)

    def add(self, record: RequestRecord) -> None:
        """Count a record, and keep it if it is drawn."""
        self.added += 1
        self.totals.add(record)
        if record.replica is not None:
            self.by_replica.setdefault(record.replica, Totals()).add(record)
        if len(self._kept) < self._most:
            self._kept.append((self.added, self._with_times(record)))
            return
        place = self._random.randrange(self.added)
        if place >= self._most:
            self.dropped.add(record)
            return
        _, gone = self._kept[place]
        self.dropped.add(gone)
        self._times_left += len(gone.token_times_s)
        self._kept[place] = (self.added, self._with_times(record))

    def _with_times(self, record: RequestRecord) -> RequestRecord:
        """The record, without its token times where there is no room for them."""
        if len(record.token_times_s) <= self._times_left:
            self._times_left -= len(record.token_times_s)
            return record
        self.dropped.add(record)
        return msgspec.structs.replace(record, token_times_s=())


def store_of(records: Iterable[RequestRecord]) -> RecordStore:
    """A store with these records."""
    store = RecordStore()
    for record in records:
        store.add(record)
    return store

"""How long the gaps between chunks were, in memory that does not grow with their number."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from qwenhost.measurements import Percentiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qwenhost.measurements import RequestRecord

_RATIO: Final = 1.01
"""Width of a bucket: a percentile read from it is off by at most half a percent."""
_LOG_RATIO: Final = math.log(_RATIO)
_ZERO_MS: Final = 1e-4
"""Shorter gaps lie within one reading of the clock and count as zero."""


class GapHistogram:
    """Gaps between chunks in logarithmic buckets, and the chunks they lay between."""

    def __init__(self) -> None:
        self.count = self.chunks = 0
        self.sum_ms = 0.0
        self.buckets: dict[int | None, int] = {}

    def add(self, record: RequestRecord) -> None:
        """Take the gaps of a request that ended well; others have none that count."""
        if not record.ok:
            return
        self.chunks += len(record.token_times_s)
        self.add_gaps((b - a) * 1000 for a, b in pairwise(record.token_times_s))

    def add_gaps(self, gaps_ms: Iterable[float]) -> None:
        """Take gaps in ms."""
        buckets, log = self.buckets, math.log
        for gap in gaps_ms:
            key = None if gap < _ZERO_MS else round(log(gap) / _LOG_RATIO)
            buckets[key] = buckets.get(key, 0) + 1
            self.count += 1
            self.sum_ms += gap

    def with_gaps(self, gaps_ms: Iterable[float]) -> GapHistogram:
        """These and further gaps, in a new histogram."""
        both = copy.copy(self)
        both.buckets = dict(self.buckets)
        both.add_gaps(gaps_ms)
        return both

    def percentiles(self) -> Percentiles:
        """Of all gaps: mean exact, percentiles by nearest rank to half a percent."""
        if not self.count:
            return Percentiles(mean=None, p50=None, p90=None, p95=None, p99=None)
        return Percentiles(
            mean=self.sum_ms / self.count,
            p50=self._percentile(50),
            p90=self._percentile(90),
            p95=self._percentile(95),
            p99=self._percentile(99),
        )

    def _percentile(self, q: float) -> float:
        rank = round((self.count - 1) * q / 100) + 1
        seen = self.buckets.get(None, 0)
        if rank <= seen:
            return 0.0
        key = 0
        for key in sorted(key for key in self.buckets if key is not None):
            seen += self.buckets[key]
            if seen >= rank:
                break
        return _RATIO**key

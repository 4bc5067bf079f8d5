"""How far chance may have moved a run's figures: bootstrap intervals without resampling.

A bootstrap draws n of n values with replacement, again and again, and looks at how a figure varies. For
the k-th smallest value there is no need to draw them all: the k-th smallest of n uniform numbers is
Beta(k, n - k + 1), so the value sits at position floor(n * Beta) of the sorted sample. One draw gives
one resample, whatever n is.

Requests are taken as independent; those of one run share its queue, so the intervals are rather too
narrow than too wide. Gaps between tokens depend on each other within a request and get none.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.facts import Slo
    from qwenhost.measurements import RequestRecord

LEVEL: Final = 0.95
_DRAWS: Final = 2000
_FEWEST: Final = 10
_PERCENTILES: Final = (50, 90, 99)

Interval = tuple[float, float]


def intervals(records: Sequence[RequestRecord], slo: Slo | None, seed: int) -> dict[str, Interval]:
    """95 % intervals by name: ``ttft_ms_p50``, ``tpot_ms_p90``, ``e2e_ms_p99``, ``goodput_fraction``.

    A percentile has none where fewer than one request in the sample lies beyond it (p99 needs 100), or
    the sample is smaller than ten.
    """
    ok = [record for record in records if record.ok]
    found: dict[str, Interval] = {}
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        sample = sorted(value for record in ok if (value := getattr(record, name)) is not None)
        for q in _PERCENTILES:
            if len(sample) * (100 - q) >= 100 and len(sample) >= _FEWEST:
                found[f"{name}_p{q}"] = of_percentile(sample, q, seed)
    if slo is not None and len(records) >= _FEWEST:
        found["goodput_fraction"] = of_share(sum(r.meets(slo) for r in records), len(records), seed)
    return found


def of_percentile(ordered: Sequence[float], q: float, seed: int) -> Interval:
    """Of the percentile of an ascending sample."""
    n = len(ordered)
    k = round((n - 1) * q / 100) + 1
    return _middle([ordered[min(n - 1, int(n * x))] for x in _betas(k, n - k + 1, seed)])


def of_share(good: int, total: int, seed: int) -> Interval:
    """Of a share; its bounds are those of Clopper and Pearson, which are quantiles of Beta.

    Lower: Beta(good, total - good + 1). Upper: Beta(good + 1, total - good).
    """
    low = 0.0 if good == 0 else _middle(_betas(good, total - good + 1, seed))[0]
    high = 1.0 if good == total else _middle(_betas(good + 1, total - good, seed))[1]
    return low, high


def _betas(a: float, b: float, seed: int) -> list[float]:
    random_ = random.Random(seed)  # noqa: S311 - chance, not secrets
    return [random_.betavariate(a, b) for _ in range(_DRAWS)]


def _middle(drawn: list[float]) -> Interval:
    drawn.sort()
    cut = round(_DRAWS * (1 - LEVEL) / 2)
    return drawn[cut], drawn[-1 - cut]

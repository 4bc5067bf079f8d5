"""Whether a run under a constant load was in a steady state: do its first and its last third differ?

An open loop beyond capacity queues ever longer, a server that leaks or throttles grows slower; one figure
for the whole of such a run says nothing of either end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.measurements import RequestRecord, percentile
from qwenhost.probe.confidence import of_percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEWEST: Final = 20
"""Requests in a third: fewer tell a drift from chance too seldom."""
_SHARE: Final = 0.2
"""Smaller changes of a median are not worth a word."""


def drifts(records: Sequence[RequestRecord], *, since_s: float, seed: int) -> list[str]:
    """A sentence for each of TTFT and TPOT whose median moved by a fifth, surely.

    Args:
        records: of the run.
        since_s: when the server had filled up; requests due before are left out.
        seed: of the intervals.
    """
    ok = sorted(
        (record for record in records if record.ok and record.scheduled_s >= since_s),
        key=lambda record: record.scheduled_s,
    )
    third = len(ok) // 3
    if third < _FEWEST:
        return []
    found = []
    for name, label in (("ttft_ms", "TTFT"), ("tpot_ms", "TPOT")):
        first = sorted(v for r in ok[:third] if (v := getattr(r, name)) is not None)
        last = sorted(v for r in ok[-third:] if (v := getattr(r, name)) is not None)
        if min(len(first), len(last)) >= _FEWEST and _moved(first, last, seed):
            before, after = percentile(first, 50), percentile(last, 50)
            found.append(
                f"not in a steady state: {label} p50 {'rose' if after > before else 'fell'} from "
                f"{before:,.1f} ms in the first third to {after:,.1f} ms in the last"
            )
    return found


def _moved(first: Sequence[float], last: Sequence[float], seed: int) -> bool:
    """Whether the medians' 95 % intervals lie apart and the medians by a fifth."""
    (low, high), (later_low, later_high) = of_percentile(first, 50, seed), of_percentile(last, 50, seed + 1)
    before, after = percentile(first, 50), percentile(last, 50)
    return (later_low > high or later_high < low) and abs(after - before) > _SHARE * before

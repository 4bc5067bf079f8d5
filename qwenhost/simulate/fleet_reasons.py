"""Why a search chose what it chose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.simulate.fleet_search import Candidate, Load, Tried


def why(tried: Sequence[Tried], label: str, candidates: Sequence[Candidate], load: Load) -> tuple[str, ...]:
    """The reasons, for people."""
    said = [
        f"one replica of {c.pool.name} carries {c.rate:.3g} requests/s with {c.in_flight:.3g} in flight; the "
        f"peak is {load.peak_rate:.3g}"
        for c in candidates
    ]
    keeping = [t for t in tried if t.verdict in ("cheapest", "dearer") and t.usd_per_day is not None]
    keeping.sort(key=lambda t: t.usd_per_day or 0.0)
    if keeping:
        first = keeping[0].usd_per_day or 0.0
        said.append(f"{label} keeps the SLO for {first:,.0f} USD a day")
        for other in keeping[1:3]:
            more = (other.usd_per_day or 0.0) / first - 1 if first else 0.0
            said.append(f"{other.label} keeps it for {more:.0%} more")
    if any(t.sampled for t in tried):
        said.append("judged by samples of the load; the cheapest of them were run over all of it")
    missed = sum(t.verdict == "misses the SLO" for t in tried)
    skipped = sum(t.verdict == "not run" for t in tried)
    if missed or skipped:
        said.append(f"{missed} smaller or slower fleets missed it; {skipped} dearer ones were not run")
    return tuple(said)

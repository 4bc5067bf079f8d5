"""Comparisons to show: measured, simulated, predicted, without break-even, and one with hostile names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from cost_samples import CATALOG, CHAT, CODING_AGENT, DAY, NOON, plan, run, spread

from qwenhost.cost import CompareOptions, Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.facts import Workload
    from qwenhost.measurements import Measurements

HOSTILE = "<script>alert('x')</script>\"&<img src=http://evil.example/a.png onerror=alert(1)>"


def made(
    load: Workload = CHAT,
    measured: Measurements | None = None,
    *,
    rate: float = 10.0,
    runs: Sequence[Measurements] = (),
    **options: Any,
) -> Comparison:
    """Two H200 at ``rate`` requests a second."""
    chosen = CompareOptions(as_of=DAY, **options)
    return compare(CATALOG, load, plan(rate=rate), measured, options=chosen, generated_at=NOON, runs=runs)


def sweep() -> list[Measurements]:
    """Four runs, slower to answer the more they deliver."""
    return [
        run(rate=rate, ttft_ms=spread(100.0 * rate), tpot_ms=spread(10.0 + rate))
        for rate in (2.0, 5.0, 8.0, 10.0)
    ]


def hostile() -> Comparison:
    """Names and notes that try to break out."""
    found = made()
    api = tuple(
        msgspec.structs.replace(line, name=HOSTILE, source=HOSTILE, remarks=(HOSTILE,)) for line in found.api
    )
    return msgspec.structs.replace(
        found,
        api=api,
        workload=msgspec.structs.replace(found.workload, id=HOSTILE, description=HOSTILE),
        verdict=msgspec.structs.replace(
            found.verdict, headline=HOSTILE, sentence=HOSTILE, reasons=(HOSTILE,)
        ),
        quality=tuple(
            msgspec.structs.replace(row, benchmark=HOSTILE, remark=HOSTILE) for row in found.quality
        ),
        plan=msgspec.structs.replace(found.plan, repo_id=HOSTILE, notes=(HOSTILE,), vllm_argv=(HOSTILE,)),
    )


SAMPLES = {
    "predicted": made(requests_per_day=50_000),
    "measured": made(measured=run(), requests_per_day=200_000),
    "sweep": made(measured=run(), requests_per_day=200_000, runs=sweep()),
    "simulated": made(measured=run(simulated=True)),
    "coding": made(CODING_AGENT, rate=1.0),
    "no_break_even": made(rate=0.01, requests_per_day=1000),
    "bare": made(staff_fte=0.0, spare_nodes=0, mean_over_peak=1.0, token_ratio=1.0, output_ratio=1.0),
    "hostile": hostile(),
}

"""Step times per second: one at a time as a plan asks for them, and over arrays as sweeps and fits do.

CPU time of this process, the best of several, so that others on the machine do not count. Bar: 100,000 a
second, either way.
"""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from common import write_result
from speed_points import step_model
from strangers import records

from qwenhost.plan import StepShape
from qwenhost.planner.vectors import shapes_of, step_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 20_000
REPEATS = 9
BAR = 100_000
RECORDS = {
    "no drafts": "397b-nvidia-nvfp4-nomtp-4xrtxpro6000",
    "drafts": "397b-lukealonso-nvfp4-mtp-4xrtxpro6000",
}


def steps(count: int) -> list[StepShape]:
    """Decode steps, one in three with a chunk of a prompt."""
    chance = random.Random(1)  # noqa: S311 - no secret
    return [
        StepShape(
            decode_sequences=chance.randint(1, 256),
            decode_context_tokens=chance.randint(256, 1_000_000),
            prefill_tokens=chance.choice([0, 0, chance.randint(1, 8192)]),
            prefill_context_tokens=chance.randint(0, 65536),
        )
        for _ in range(count)
    ]


def per_second(work: Callable[[], object], count: int) -> float:
    """Of the best of several runs."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return count / min(times)


def main() -> int:
    """Print the rates, keep them, fail below the bar."""
    asked = steps(STEPS)
    arrays = shapes_of(asked)
    known = {record.id: record for record in records()}
    rows = {}
    for name, record in RECORDS.items():
        model = step_model(known[record])
        single = np.array([model.seconds(one) for one in asked])
        rows[name] = {
            "one_at_a_time_per_s": per_second(
                lambda model=model: [model.seconds(one) for one in asked], STEPS
            ),
            "arrays_per_s": per_second(lambda model=model: step_seconds(model, arrays), STEPS),
            "largest_relative_difference": float(np.abs(step_seconds(model, arrays) / single - 1).max()),
        }
        print(
            f"{name:<10} one at a time {rows[name]['one_at_a_time_per_s']:>10,.0f} /s, "
            f"arrays {rows[name]['arrays_per_s']:>12,.0f} /s, "
            f"differ by {rows[name]['largest_relative_difference']:.1e} at most"
        )
    slowest = min(row["one_at_a_time_per_s"] for row in rows.values())
    path = write_result("step_times", {"steps": STEPS, "rates": rows, "bar_per_s": BAR})
    print(f"kept {path.name}; bar {BAR:,} /s one at a time: {'met' if slowest >= BAR else 'MISSED'}")
    return int(slowest < BAR)


if __name__ == "__main__":
    sys.exit(main())

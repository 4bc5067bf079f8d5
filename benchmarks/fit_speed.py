"""Fit a few constants of the speed model to strangers' rows, each source left out in turn.

Every constant starts at what the kernel tables (or judgement) gave and is held there by a prior of
stated width, so that the few rows move it only where they agree. Rows of one source share an error of
their own, which is fitted beside the constants (``planner.fitting``). Prints what to write into
``profiles/calibration``; writes nothing there.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
from common import write_result
from speed_points import ONE_PROMPT, Point, points, predict

from qwenhost.planner.fitting import Trust
from qwenhost.planner.fitting import fit as map_fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Where each constant starts, and how far (as a factor, one standard deviation) it may go.
# The starts are those of the kernel tables and of the fit to 51 points of 2026-11; see common.yaml.
PRIORS: dict[str, tuple[float, float]] = {
    "common/t_fix_s": (1.04e-3, 1.3),
    "common/t_seq_s": (1.29e-5, 1.4),
    "common/elementwise_s": (2.64e-6, 1.2),
    "common/expert_skew_decay": (3.0, 1.3),
    "common/draft_token_s": (2.5e-3, 1.5),
    "common/eager_layer_s": (1.35e-3, 1.3),
    "blackwell_consumer/allreduce_pcie_t0_s_4": (2.0e-5, 1.4),
    "blackwell_consumer/moe_fp4.t0_s": (4.2e-5, 1.2),
    "blackwell_consumer/moe_fp4.bandwidth_efficiency": (0.65, 1.1),
    "gb10/step_time_multiplier": (0.97, 1.1),
    "gb10/allreduce_no_p2p_t0_s_2": (3.0e-5, 1.4),
    "rtx-3090/step_time_multiplier": (1.0, 1.15),
    ONE_PROMPT: (1.0, 1.3),
}
# The same with other beginnings: what the left-out errors owe to the priors.
OTHER_PRIORS: dict[str, dict[str, tuple[float, float]]] = {
    "every prior twice as wide": {name: (start, factor**2) for name, (start, factor) in PRIORS.items()},
    "all-reduce of four GPUs over PCIe at the kernel table's 13 us, known end to end from one source": PRIORS
    | {"blackwell_consumer/allreduce_pcie_t0_s_4": (1.3e-5, 1.6)},
}
Priors = dict[str, tuple[float, float]]
EXPECTED_ERROR = 0.10  # log error of a row that counts as one standard deviation
SOURCE_ERROR = 0.10  # the same of what all rows of a source share: its software, its clocks, its client


def fit(rows: Sequence[Point], priors: Priors = PRIORS) -> dict[str, float]:
    """Constants at the maximum a posteriori."""
    widths = [math.log(factor) for _, factor in priors.values()]
    found = map_fit(
        lambda shift: np.array([log_time_error(point, constants_at(shift, priors)) for point in rows]),
        Trust(widths, EXPECTED_ERROR, SOURCE_ERROR),
        sources=[point.source for point in rows],
        weights=_weights(rows),
    )
    return constants_at(found.shift, priors)


def constants_at(shift: Iterable[float], priors: Priors) -> dict[str, float]:
    """Constants moved by so many natural logarithms."""
    return {
        name: start * math.exp(move) for (name, (start, _)), move in zip(priors.items(), shift, strict=True)
    }


def left_out(rows: Sequence[Point], priors: Priors = PRIORS) -> dict[str, dict[str, float]]:
    """Constants fitted without each source."""
    sources = sorted({point.source for point in rows})
    return {name: fit([point for point in rows if point.source != name], priors) for name in sources}


def errors(point: Point, overrides: Mapping[str, float] | None = None) -> dict[str, float]:
    """Relative error of each measured figure."""
    found, got = {}, predict(point, overrides)
    for name in ("output_tok_s", "tpot_s", "ttft_s"):
        predicted, measured = getattr(got, name), getattr(point, name)
        if predicted is not None and measured is not None:
            found[name] = predicted / measured - 1
    return found


def log_time_error(point: Point, overrides: Mapping[str, float]) -> float:
    """Logarithm of predicted over measured time, of the first figure a row gives."""
    name, error = next(iter(errors(point, overrides).items()))
    return math.log1p(error) * (-1 if name == "output_tok_s" else 1)


def _weights(rows: Sequence[Point]) -> list[float]:
    """Sources with many rows count less per row: as the square root of their rows together."""
    counts = {name: sum(point.source == name for point in rows) for name in {p.source for p in rows}}
    return [counts[point.source] ** -0.25 for point in rows]


def main() -> int:
    """Print starts, fits and how far they move when a source is left out."""
    rows = [point for point in points()[0] if point.in_fit]
    found, without = fit(rows), left_out(rows)
    print(f"{len(rows)} rows, {len(without)} sources")
    for name, (start, _) in PRIORS.items():
        spread = [other[name] for other in without.values()]
        print(f"{name:<58} {start:>9.3g} -> {found[name]:>9.3g}  ({min(spread):.3g} to {max(spread):.3g})")
    write_result("fit_speed", {"rows": len(rows), "fitted": found, "without_source": without})
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Durations counted with weights, in little memory however long the run."""

from __future__ import annotations

import math

from qwenhost.measurements import Percentiles, percentiles

# Classes 0.3 % apart.
CLASSES_PER_OCTAVE = 256


class Weighted:
    """A sample of durations with weights, in classes of 0.3 %."""

    def __init__(self) -> None:
        self._classes: dict[int, list[float]] = {}

    def add(self, seconds: float, weight: int) -> None:
        """Count a duration ``weight`` times."""
        key = int(math.log2(seconds) * CLASSES_PER_OCTAVE) if seconds > 0 else -(1 << 30)
        entry = self._classes.get(key)
        if entry is None:
            self._classes[key] = [weight, weight * seconds]
        else:
            entry[0] += weight
            entry[1] += weight * seconds

    def percentiles_ms(self) -> Percentiles:
        """Mean (exact) and percentiles (mean of the class they fall in), in ms."""
        rows = [(total / weight, weight) for _, (weight, total) in sorted(self._classes.items())]
        count = sum(weight for _, weight in rows)
        if not count:
            return percentiles([])

        def at(q: float) -> float:
            seen = 0.0
            for value, weight in rows:
                seen += weight
                if seen >= count * q / 100:
                    return value * 1000
            return rows[-1][0] * 1000

        mean = math.fsum(value * weight for value, weight in rows) / count * 1000
        return Percentiles(mean=mean, p50=at(50), p90=at(90), p95=at(95), p99=at(99))

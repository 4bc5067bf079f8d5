"""Single runs of a fleet for the command line: simulate, one replica's curve, progress on a terminal."""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.cli.fleet_setup import Setup
    from qwenhost.simulate.fleet_config import Pool
    from qwenhost.simulate.fleet_rate import RateSearch
    from qwenhost.simulate.fleet_result import FleetRun

FEWEST_LOOKED_AT, MOST_LOOKED_AT = 400, 2000
"""Requests of each run that measures what a replica carries."""


def simulate(
    setup: Setup,
    pools: tuple[Pool, ...],
    options: dict[str, Any],
    *,
    misses_allowed: float = math.inf,
    on_progress: Callable[[float, int], None] | None = None,
) -> FleetRun:
    """The whole load against a fleet."""
    from qwenhost.simulate.fleet import Fleet
    from qwenhost.simulate.fleet_figures import FleetLabels, fleet_run

    config = msgspec.structs.replace(setup.config, pools=pools)
    by_name = dict(zip((pool.name for pool in setup.config.pools), setup.step_times, strict=True))
    started = time.perf_counter()
    fleet = Fleet(
        config, [by_name[pool.name] for pool in pools], seed=options["seed"], slo=setup.slo,
        misses_allowed=misses_allowed, on_progress=on_progress,
    )  # fmt: skip
    log = fleet.run(setup.work.calls(), horizon_s=setup.work.horizon_s)
    labels = FleetLabels(
        workload=setup.work.name, engines=setup.engines, gpus=setup.gpus, seed=options["seed"],
        assumptions=(*setup.work.notes, *setup.notes),
    )  # fmt: skip
    return fleet_run(config, log, labels, started)


def curves_of(setup: Setup, options: dict[str, Any]) -> dict[str, RateSearch]:
    """Latency against load of one replica of each pool."""
    from qwenhost.simulate.fleet_rate import Bench, find_rate

    # A short load is not worth a long look at its replicas.
    requests = round(min(MOST_LOOKED_AT, max(FEWEST_LOOKED_AT, setup.work.expected)))
    return {
        pool.name: find_rate(
            Bench(
                config=pool.config, workload=setup.work.sizes or setup.workload, requests=requests,
                seed=options["seed"],
            ),
            step_time, setup.slo, start=pool.weight,
        )
        for pool, step_time in zip(setup.config.pools, setup.step_times, strict=True)
    }  # fmt: skip


@contextmanager
def progress(
    expected: float, horizon_s: float, label: str = "simulating"
) -> Iterator[Callable[[float, int], None] | None]:
    """A bar on a terminal, with the time left."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=max(expected, 1))

        def tell(now: float, settled: int) -> None:
            bar.update(
                task,
                completed=settled,
                description=f"{label}: {now / 3600:.1f} of {horizon_s / 3600:.1f} h",
            )

        yield tell


@contextmanager
def line() -> Iterator[Callable[[str], None]]:
    """A line that changes in place on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.status import Status

    with Status("searching", console=console(stderr=True)) as status:
        yield status.update

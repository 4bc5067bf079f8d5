"""``qwenhost simulate --find-fleet``: samples on all cores, whole runs with a bar, a result on Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from bisect import bisect_left
from concurrent.futures import ProcessPoolExecutor
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.cli.fleet_trial import curves_of, line, progress, simulate
from qwenhost.cli.output import say
from qwenhost.simulate import fleet_search as searching
from qwenhost.simulate.fleet_config import DAY_S
from qwenhost.simulate.fleet_demand import calls_between
from qwenhost.simulate.fleet_reasons import why
from qwenhost.simulate.fleet_sample import (
    Sampled,
    Stretch,
    Worth,
    bin_seconds,
    lead_seconds,
    opening,
    sample,
    stretches,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from qwenhost.cli.fleet_setup import Setup
    from qwenhost.simulate.fleet_config import Pool
    from qwenhost.simulate.fleet_rate import RateSearch
    from qwenhost.simulate.fleet_result import FleetRun
    from qwenhost.simulate.load import Arrival

SLACK: Final = 1.2
"""A trial is given up once it has missed what this many times the expected requests would allow."""
SAMPLED_FROM: Final = 150_000
"""Requests from which a load is sampled."""
MOST_WORKERS: Final = 8
PARENT_EVERY_S: Final = 0.5


class Screening:
    """Samples of the load, judged in worker processes where there are several fleets and cores.

    Workers are forked, since step times are functions; nothing is sent to them but pools.
    """

    def __init__(self, setup: Setup, options: dict[str, Any], worth: Mapping[str, Worth]) -> None:
        self.allowed = 1 - setup.slo.percentile / 100
        self._setup, self._options, self._worth = setup, options, worth
        self._calls: dict[Stretch, list[Arrival]] = {}
        self._coming: dict[bytes, Future[Sampled]] = {}
        self._workers: ProcessPoolExecutor | None = None

    def __call__(self, pools: tuple[Pool, ...], /) -> Sampled:
        """What samples say of it."""
        coming = self._coming.pop(_key(pools), None)
        return self.judge(pools) if coming is None else coming.result()

    def prepare(self, shapes: Sequence[tuple[Pool, ...]], /) -> None:
        """Begin with them on other cores."""
        cores = min(len(os.sched_getaffinity(0)), MOST_WORKERS, len(shapes))
        if cores < 2:
            return
        for pools in shapes:  # drawn once, before the workers part
            for part in self._stretches(pools):
                self._sent_in(part)
        self._workers = ProcessPoolExecutor(
            cores,
            mp_context=multiprocessing.get_context("fork"),
            initializer=_begin_worker,
            initargs=(self, os.getpid()),
        )
        for pools in shapes:
            bare = tuple(msgspec.structs.replace(pool, spare=0) for pool in pools)
            self._coming[_key(bare)] = self._workers.submit(_judge, bare)

    def close(self) -> None:
        """End the workers, whatever they are at."""
        if self._workers is not None:
            processes = list((self._workers._processes or {}).values())  # noqa: SLF001 - no public way to end one at work
            self._workers.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            self._workers = None

    def judge(self, pools: tuple[Pool, ...]) -> Sampled:
        """Simulate its stretches here."""
        setup = self._setup
        by_name = dict(zip((pool.name for pool in setup.config.pools), setup.step_times, strict=True))
        parts = []
        for part in self._stretches(pools):
            rate = setup.work.rate_between(part.begin_s, part.begin_s + bin_seconds(setup.work.horizon_s))
            numbers = opening(pools, rate, part.begin_s, self._worth)
            parts.append((part, self._sent_in(part), numbers))
        return sample(
            msgspec.structs.replace(setup.config, pools=pools), [by_name[pool.name] for pool in pools], parts,
            slo=setup.slo, seed=self._options["seed"],
        )  # fmt: skip

    def _stretches(self, pools: tuple[Pool, ...]) -> tuple[Stretch, ...]:
        work = self._setup.work
        width = bin_seconds(work.horizon_s)
        counts = [
            work.rate_between(width * number, width * (number + 1)) * width
            for number in range(max(1, int(work.horizon_s // width)))
        ]
        longest = max(one.request_s for one in self._worth.values())
        return stretches(counts, width, lead_seconds(pools, longest))

    def _sent_in(self, part: Stretch) -> list[Arrival]:
        if part not in self._calls:
            setup, work = self._setup, self._setup.work
            if work.demand is not None:
                found = list(
                    calls_between(
                        setup.workload, setup.config.pools[0].config, work.demand, part.begin_s, part.until_s,
                        self._options["seed"],
                    )
                )  # fmt: skip
            else:
                recorded = list(work.calls())
                first, last = (
                    bisect_left(recorded, at, key=attrgetter("at_s")) for at in (part.begin_s, part.until_s)
                )
                found = recorded[first:last]
            self._calls[part] = found
        return self._calls[part]


_screening: list[Screening] = []


def _begin_worker(screening: Screening, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asked is told, and ends this one
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _screening.append(screening)


def _end_with(parent: int) -> None:
    """A parent that was killed can end nobody: go when another has taken its place."""
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY_S)
    os._exit(1)


def _key(pools: tuple[Pool, ...]) -> bytes:
    """Pools hold mappings, so that they have no hash of their own."""
    return msgspec.json.encode(pools)


def _judge(pools: tuple[Pool, ...]) -> Sampled:
    return _screening[-1].judge(pools)


def found_fleet(setup: Setup, options: dict[str, Any]) -> tuple[searching.FleetSearch, dict[str, RateSearch]]:
    """The cheapest fleet, run over the whole load with everything that may break.

    Interrupted, it gives what it has found until then.
    """
    with line() as tell:
        tell("what one replica carries...")
        curves = curves_of(setup, options)
    candidates = []
    for pool in setup.config.pools:
        point = curves[pool.name].found
        if point is not None:
            in_flight = point.rate * (point.e2e_ms.mean or 0.0) / 1000
            candidates.append(searching.Candidate(pool, point.rate, in_flight))
    work = setup.work
    # Hours of the day need a day to be known.
    hourly = work.rate_at if work.demand is not None or work.horizon_s >= DAY_S else None
    load = searching.Load(work.peak_rate, hourly)
    worth = {c.pool.name: Worth(c.in_flight, c.in_flight / c.rate) for c in candidates}
    sampled = work.expected >= SAMPLED_FROM and work.rate_at is not None and bool(worth)
    screening = Screening(setup, options, worth) if sampled else None
    trials = _Trials(setup, options)
    search = searching.Search(candidates, load, trials, trials.tell, screening)
    interrupted = False
    try:
        search.run()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if screening is not None:
            screening.close()
    pools, label, tried = search.so_far()
    chosen = None if pools is None else trials.kept(pools, interrupted=interrupted)
    reasons = why(tried, label, candidates, load)
    found = searching.FleetSearch(
        chosen=chosen, label=label, why=reasons, tried=tried, interrupted=interrupted
    )
    return found, curves


class _Trials:
    """Runs over the whole load, each with its bar; the cheapest that kept the service level is remembered."""

    def __init__(self, setup: Setup, options: dict[str, Any]) -> None:
        self._setup, self._options = setup, options
        self._label = ""
        self._runs: dict[bytes, FleetRun] = {}
        self._allowed = (1 - setup.slo.percentile / 100) * setup.work.expected * SLACK

    def tell(self, label: str) -> None:
        """What is tried next."""
        self._label = label
        if sys.stderr.isatty():
            say(f"trying {label}")

    def __call__(self, pools: tuple[Pool, ...], /) -> FleetRun | None:
        """With a spare replica, one that is down is made up for: capacity is judged without failures."""
        setup = self._setup
        spare = setup.config.pools[0].spare
        whole = tuple(msgspec.structs.replace(pool, failures=None) if spare else pool for pool in pools)
        with progress(setup.work.expected, setup.work.horizon_s, self._label) as on_progress:
            run = simulate(setup, whole, self._options, misses_allowed=self._allowed, on_progress=on_progress)
        if run.meets_slo:
            self._runs[_key(whole)] = run
            return run
        return None

    def kept(self, pools: tuple[Pool, ...], *, interrupted: bool) -> FleetRun:
        """The run of what was chosen: made already, unless spare replicas are to be added."""
        known = self._runs.get(_key(pools))
        bare = tuple(msgspec.structs.replace(pool, spare=0, failures=None) for pool in pools)
        if known is None and interrupted:
            known = self._runs.get(_key(bare))
        if known is not None:
            return known
        setup = self._setup
        with progress(setup.work.expected, setup.work.horizon_s, "with spare replicas") as on_progress:
            return simulate(setup, pools, self._options, on_progress=on_progress)

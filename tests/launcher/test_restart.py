"""Backoff and liveness as pure functions of a clock."""

from __future__ import annotations

import random

from qwenhost.launcher.health import Limits, Liveness, Pulse
from qwenhost.launcher.restart import RestartHistory, RestartPolicy


def dice(seed: int) -> random.Random:
    """Jitter that repeats."""
    return random.Random(seed)  # noqa: S311 - not for secrets


class Clock:
    """Stands still until told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_wait_doubles_up_to_the_ceiling() -> None:
    """1, 2, 4, 8, 10, 10 seconds without jitter."""
    policy = RestartPolicy(initial_s=1, factor=2, ceiling_s=10, jitter=0, max_restarts=9)
    waits = [policy.delay_s(n, dice(0)) for n in range(1, 7)]
    assert waits == [1, 2, 4, 8, 10, 10]


def test_jitter_stays_within_its_share() -> None:
    """20 % of 4 s: between 3.2 and 4.8 s, and not always the same."""
    policy = RestartPolicy(jitter=0.2)
    waits = [policy.delay_s(3, dice(seed)) for seed in range(200)]
    assert 3.2 <= min(waits) < 3.4
    assert 4.6 < max(waits) <= 4.8


def test_the_first_restart_comes_within_two_seconds() -> None:
    """The bar: engine death to ready is the start-up time plus at most 2 s."""
    policy = RestartPolicy()
    assert max(policy.delay_s(1, dice(seed)) for seed in range(200)) < 2


def test_enough_is_enough_within_the_window() -> None:
    """Two restarts in 100 s are allowed; the third waits until the first is forgotten."""
    policy = RestartPolicy(initial_s=1, jitter=0, max_restarts=2, window_s=100)
    history = RestartHistory(policy, dice(0))
    assert [history.next_delay_s(at) for at in (0, 50, 99, 101)] == [1, 2, None, 2]


def pulse(running: int, progress: str) -> Pulse:
    return Pulse(healthy=True, detail="", running=running, progress=progress)


def test_an_idle_engine_is_not_hung() -> None:
    """No request runs, so nothing needs to move."""
    clock = Clock()
    liveness = Liveness(Limits(stall_s=10), clock)
    for clock.now in (0.0, 100.0, 1000.0):
        assert liveness.judge(pulse(0, "tokens 5")) is None


def test_a_working_engine_is_not_hung() -> None:
    """The counter moves, slowly."""
    clock = Clock()
    liveness = Liveness(Limits(stall_s=10), clock)
    for clock.now in (0.0, 9.0, 18.0, 27.0):
        assert liveness.judge(pulse(1, f"tokens {clock.now}")) is None


def test_an_engine_that_stands_still_with_work_is_hung() -> None:
    """One request, the same counters for more than 10 s."""
    clock = Clock()
    liveness = Liveness(Limits(stall_s=10), clock)
    verdicts = []
    for clock.now in (0.0, 5.0, 10.0, 10.1):
        verdicts.append(liveness.judge(pulse(1, "tokens 5")))
    assert verdicts == [None, None, None, "hung"]


def test_one_bad_answer_is_forgiven_three_are_not() -> None:
    """A full event loop may miss a beat; 503 says outright that the engine is dead."""
    liveness = Liveness(Limits(unhealthy_pulses=3), Clock())
    missed = Pulse(healthy=False, detail="/health: timed out")
    assert [liveness.judge(p) for p in (missed, missed, pulse(0, ""), missed, missed, missed)] == [
        None, None, None, None, None, "unhealthy",
    ]  # fmt: skip
    dead = Pulse(healthy=False, detail="/health answered 503: {}")
    assert Liveness(Limits(), Clock()).judge(dead) == "unhealthy"

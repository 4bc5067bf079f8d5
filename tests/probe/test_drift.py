"""A steady state is tested, not believed."""

from __future__ import annotations

from random import Random

from qwenhost.measurements import RequestRecord
from qwenhost.probe.drift import drifts


def records(*ttfts_ms: float) -> list[RequestRecord]:
    """One request a second with these times to first token and 10 ms a token."""
    return [
        RequestRecord(
            index=i, scheduled_s=float(i), sent_s=float(i), first_token_s=i + ttft / 1000,
            last_s=i + ttft / 1000 + 0.1, output_tokens=11,
        )
        for i, ttft in enumerate(ttfts_ms)
    ]  # fmt: skip


def test_a_growing_queue_is_told() -> None:
    """From 100 ms, 10 ms more each second: medians of the thirds 245 and 845 ms."""
    told = drifts(records(*(100 + 10 * i for i in range(90))), since_s=0, seed=1)
    assert told == [
        "not in a steady state: TTFT p50 rose from 245.0 ms in the first third to 845.0 ms in the last"
    ]


def test_noise_is_no_drift() -> None:
    """Of 200 runs whose times vary by a third around the same mean, at most two are called unsteady."""
    random_ = Random(1)  # noqa: S311 - noise
    called = [
        bool(drifts(records(*(random_.gauss(300, 100) for _ in range(90))), since_s=0, seed=run))
        for run in range(200)
    ]
    assert sum(called) <= 2


def test_filling_up_is_no_drift() -> None:
    """Slow requests due before the first completion are left out."""
    assert drifts(records(*[900.0] * 30, *[100.0] * 60), since_s=30, seed=1) == []


def test_a_short_run_is_not_judged() -> None:
    """59 requests make thirds of 19."""
    assert drifts(records(*(100 + 10 * i for i in range(59))), since_s=0, seed=1) == []


def test_a_small_step_is_not_worth_a_word() -> None:
    """100 to 115 ms, sure as it is."""
    assert drifts(records(*[100.0] * 30, *[108.0] * 30, *[115.0] * 30), since_s=0, seed=1) == []

"""Several URLs: who gets which request, and whose figures are whose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.facts import TokenStats
from qwenhost.probe.spread import Spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.probe import ProbeResult

    Measure = Callable[..., ProbeResult]


def sent(truth: Any) -> dict[str, list[int]]:
    """Indices by the path they came to."""
    found: dict[str, list[int]] = {}
    for name, entry in truth.told().items():
        if name.startswith("qwenhost-"):
            found.setdefault(entry["prefix"].split(",")[0], []).append(int(name.rsplit("-", 1)[-1]))
    return {path: sorted(indices) for path, indices in found.items()}


def test_requests_go_round(truth: Any, measure: Measure) -> None:
    """Three URLs: 0, 3, 6 to the first, and so on."""
    urls = [truth.url(f"as={name}") for name in "abc"]
    truth.told()
    result = measure(urls[0], more_urls=tuple(urls[1:]), requests=9, concurrency=3)
    assert sent(truth) == {"/as=a": [0, 3, 6], "/as=b": [1, 4, 7], "/as=c": [2, 5, 8]}
    assert [one.requests.sent for one in result.measurements.by_url] == [3, 3, 3]
    assert [one.url for one in result.measurements.by_url] == urls


@pytest.mark.parametrize(("spread", "replicas_of_a_session"), [(None, 1), ("session", 1), ("round-robin", 2)])
def test_sessions_stay_where_their_cache_is(
    truth: Any, measure: Measure, spread: str | None, replicas_of_a_session: int
) -> None:
    """Unless asked to go round: then two turns meet two URLs."""
    result = measure(
        truth.url("as=a"), more_urls=(truth.url("as=b"),), turns=2, requests=8, concurrency=2, spread=spread,
        input_tokens=TokenStats(mean=200),
    )  # fmt: skip
    seen: dict[int | None, set[int | None]] = {}
    for record in result.records:
        seen.setdefault(record.session, set()).add(record.replica)
    assert {len(replicas) for replicas in seen.values()} == {replicas_of_a_session}


def test_a_slow_url_shows_in_its_own_figures(truth: Any, measure: Measure) -> None:
    """100 ms to the first token here, 10 there; the mean of both hides neither."""
    result = measure(
        truth.url("ttft=0.1,as=a"), more_urls=(truth.url("ttft=0.01,as=b"),), requests=12, concurrency=2
    )
    slow, fast = result.measurements.by_url
    assert slow.ttft_ms.p50 is not None
    assert fast.ttft_ms.p50 is not None
    assert slow.ttft_ms.p50 > 100 > fast.ttft_ms.p50


def test_a_dead_replica_fails_its_own_requests(truth: Any, measure: Measure) -> None:
    """Half of them, under its name."""
    result = measure(truth.url("as=a"), more_urls=(truth.url("fault=close,as=b"),), requests=8, concurrency=2)
    assert [one.requests.failed for one in result.measurements.by_url] == [0, 4]


def test_one_url_is_no_replica(truth: Any, measure: Measure) -> None:
    """Nothing by URL, and no number in the records."""
    result = measure(truth.url(), requests=4)
    assert result.measurements.by_url == ()
    assert {record.replica for record in result.records} == {None}


def test_the_spread_is_a_pure_function() -> None:
    """Index modulo URLs, or session modulo URLs."""
    assert [Spread(urls=3).replica(i, 0) for i in range(4)] == [0, 1, 2, 0]
    assert [Spread(urls=3, sticky=True).replica(i, 5) for i in range(4)] == [2, 2, 2, 2]

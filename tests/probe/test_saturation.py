"""The decisions of a saturation search, against servers whose limit is known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.probe.saturation import LOOKS, Rule, Search, Verdict, exact_interval, tail_below

RULE = Rule(required=0.9)


def test_bounds_of_a_textbook_case() -> None:
    """81 of 263 at 95 %, both sides: 0.2527 to 0.3676 (Newcombe 1998, table I, method 5)."""
    assert exact_interval(81, 263, 0.025) == pytest.approx((0.2527, 0.3676), abs=5e-5)


def test_a_tail_by_hand() -> None:
    """At most one head of three: (1 + 3) / 8."""
    assert tail_below(1, 3, 0.5) == pytest.approx(0.5)


def test_nothing_seen_says_nothing() -> None:
    """No request: anything between 0 and 1."""
    assert RULE.interval(0, 0) == (0.0, 1.0)
    assert RULE.verdict(0, 0) == "undecided"


def test_the_first_look_can_decide() -> None:
    """Risk 5 % / 4 looks: 0.9^42 = 1.20 % is rarer than 1.25 %, 0.9^41 = 1.33 % is not."""
    assert RULE.first_look == 50
    assert RULE.verdict(42, 42) == "meets"
    assert RULE.verdict(41, 41) == "undecided"
    assert RULE.verdict(0, 10) == "misses"


@settings(max_examples=40)
@given(total=st.integers(1, 300), data=st.data())
def test_the_verdict_is_what_the_interval_says(total: int, data: st.DataObject) -> None:
    """Meets where the lower bound reaches 90 %, misses where the upper one falls below."""
    good = data.draw(st.integers(0, total))
    low, high = RULE.interval(good, total)
    assert RULE.verdict(good, total) == ("meets" if low >= 0.9 else "misses" if high < 0.9 else "undecided")


def look_until_sure(share: float, draw: random.Random) -> Verdict:
    """What the driver does at a point, on a server that keeps the SLO for a known share of requests."""
    good = total = 0
    verdict: Verdict = "undecided"
    for look in range(LOOKS):
        requests = RULE.first_look * 2**look
        good += sum(draw.random() < share for _ in range(requests))
        total += requests
        verdict = RULE.verdict(good, total)
        if verdict != "undecided":
            break
    return verdict


def test_luck_is_rare_over_all_looks() -> None:
    """A point just below the required share is said to meet in at most 5 of 100 searches; so above it."""
    draw = random.Random(1)  # noqa: S311 - a model of chance
    below = [look_until_sure(0.8999, draw) for _ in range(1000)]
    above = [look_until_sure(0.9001, draw) for _ in range(1000)]
    assert below.count("meets") <= 50
    assert above.count("misses") <= 50


def test_clear_cases_are_decided_at_once_or_soon() -> None:
    """99 % good meets and 70 % good misses, nearly always."""
    draw = random.Random(2)  # noqa: S311 - a model of chance
    assert [look_until_sure(0.99, draw) for _ in range(300)].count("meets") >= 295
    assert [look_until_sure(0.70, draw) for _ in range(300)].count("misses") >= 295


def all_points(search: Search, limit: float) -> tuple[Search, list[float]]:
    """Search a server that meets up to ``limit``, without chance."""
    tried: list[float] = []
    while (at := search.next) is not None:
        tried.append(at)
        search = search.told(at, meets=at <= limit)
    return search, tried


def test_doubling_then_bisection() -> None:
    """A limit of 11: 1, 2, 4, 8, 16, then 11 (the root of 8 * 16), 13, 12."""
    found, tried = all_points(Search(start=1, whole=True), limit=11)
    assert tried == [1, 2, 4, 8, 16, 11, 13, 12]
    assert (found.low, found.high, found.closed) == (11, 12, True)


@given(limit=st.integers(1, 5000))
def test_every_whole_limit_is_bracketed(limit: int) -> None:
    """The found one meets and lies within 5 % of the limit; no point is tried twice."""
    found, tried = all_points(Search(start=1, whole=True), limit)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= limit < found.high
    assert limit - found.low <= 0.05 * limit
    assert len(tried) == len(set(tried)) <= 2 * math.log2(limit + 1) + 4


@pytest.mark.parametrize("limit", [0.02, 0.3, 1.0, 7.77, 512.0])
def test_every_rate_is_found_within_the_tolerance(limit: float) -> None:
    """From 0.5 requests/s, up or down."""
    found, _ = all_points(Search(start=0.5, whole=False), limit)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= limit < found.high <= found.low * 1.05


def test_a_server_that_never_meets_ends_the_search() -> None:
    """Below one in flight there is nothing; a rate is halved six times."""
    assert all_points(Search(start=8, whole=True), limit=0)[1] == [8, 4, 2, 1]
    found, tried = all_points(Search(start=64, whole=False), limit=0)
    assert tried == [64, 32, 16, 8, 4, 2, 1]
    assert (found.low, found.closed) == (None, False)


def test_the_highest_allowed_ends_the_search() -> None:
    """At most 12: 1, 2, 4, 8, 12."""
    found, tried = all_points(Search(start=1, whole=True, most=12), limit=100)
    assert tried == [1, 2, 4, 8, 12]
    assert (found.low, found.high) == (12, None)

"""The simulated prompt cache, by cases a reader can follow with a watch."""

from __future__ import annotations

import pytest
from cost_samples import CATALOG, CHAT, CODING_AGENT, DAY, NOON, SONNET, plan

from qwenhost.cost import ApiTerms, CompareOptions, compare
from qwenhost.cost.cache_checks import cache_checks
from qwenhost.cost.levers import own_prefix_hits
from qwenhost.cost.prompt_cache import Turn, cached_usages, drawn_sessions, mean_gap_s, simulate_cache
from qwenhost.facts import CacheRules
from qwenhost.profiles import load_catalog

RULES = CacheRules(min_prefix_tokens=1024, ttl_s=(300, 3600), read_refreshes_ttl=True)
NO_REFRESH = CacheRules(min_prefix_tokens=1024, ttl_s=(300, 3600), read_refreshes_ttl=False)


def reads(*turns: tuple[float, float], rules: CacheRules = RULES, policy: str = "5m") -> list[float]:
    """Tokens read by each (time, prompt) of one session."""
    made = [Turn("a", at, prompt, 10) for at, prompt in turns]
    return [usage.cache_read_tokens for usage in cached_usages(made, rules, policy)]  # type: ignore[arg-type]


def test_a_growing_prompt_reads_what_the_turn_before_wrote() -> None:
    """2,000 then 3,000 then 5,000 tokens within seconds: 0, 2,000 and 3,000 are read."""
    assert reads((0, 2000), (10, 3000), (20, 5000)) == [0, 2000, 3000]


def test_five_minutes_later_it_is_forgotten_and_an_hour_keeps_it() -> None:
    """A gap of 301 s loses the 5-minute cache, not the 1-hour one."""
    assert reads((0, 2000), (301, 3000)) == [0, 0]
    assert reads((0, 2000), (300, 3000)) == [0, 2000]
    assert reads((0, 2000), (301, 3000), policy="1h") == [0, 2000]
    assert reads((0, 2000), (3601, 3000), policy="1h") == [0, 0]


def test_a_read_starts_the_lifetime_anew() -> None:
    """Two shorter prompts share 2,000 tokens written at 0 s; read at 200 s, they live until 500 s."""
    turns = ((0, 2000), (200, 2500), (450, 2400))
    assert reads(*turns) == [0, 2000, 2000]
    assert reads(*turns, rules=NO_REFRESH) == [0, 2000, 0]


def test_below_the_minimum_prefix_all_is_plain_input() -> None:
    """1,000 tokens are under 1,024: nothing is written, so the next turn writes all of its own."""
    made = [Turn("a", 0, 1000, 10), Turn("a", 5, 2000, 10)]
    first, second = cached_usages(made, RULES, "5m")
    assert (first.uncached_input_tokens, first.cache_write_5m_tokens) == (1000, 0)
    assert (second.cache_read_tokens, second.cache_write_5m_tokens) == (0, 2000)


def test_sessions_do_not_read_each_other() -> None:
    """Without recorded prefixes only a session's own prompts are shared."""
    made = [Turn("a", 0, 2000, 10), Turn("b", 5, 3000, 10)]
    assert [usage.cache_read_tokens for usage in cached_usages(made, RULES, "5m")] == [0, 0]


def test_recorded_prefixes_are_shared_across_sessions() -> None:
    """Four pieces of 512 tokens, the first three as in the request before: 1,536 are read."""
    made = [
        Turn("a", 0, 2048, 10, (1, 2, 3, 4), 512),
        Turn("b", 5, 2048, 10, (1, 2, 3, 9), 512),
        Turn("c", 6, 2048, 10, (1, 8, 7, 6), 512),
    ]
    assert [usage.cache_read_tokens for usage in cached_usages(made, RULES, "5m")] == [0, 1536, 0]


def test_the_drawn_sessions_have_the_presets_sizes_and_gaps() -> None:
    """Mean prompt 122,379; a log-normal through 18 s and 309 s has a mean of 80 s."""
    load = load_catalog().workloads["coding_agent"]
    turns = drawn_sessions(load)
    assert len(turns) == 100 * 80
    assert sum(turn.prompt_tokens for turn in turns) / len(turns) == pytest.approx(122_379)
    assert mean_gap_s(load) == pytest.approx(80.2, abs=0.1)
    assert drawn_sessions(CHAT) == []


@pytest.mark.parametrize(("policy", "published"), [("5m", 0.916), ("1h", 0.9596)])
def test_the_simulation_comes_near_the_published_share(policy: str, published: float) -> None:
    """Within two points of what the traces behind the preset gave."""
    load = load_catalog().workloads["coding_agent"]
    traffic = simulate_cache(drawn_sessions(load), RULES, policy)  # type: ignore[arg-type]
    assert traffic.hit == pytest.approx(published, abs=0.02)


def test_the_check_stands_beside_the_published_share_and_does_not_replace_it() -> None:
    """The bill keeps the published 91.6 %; the simulated one is a line of its own."""
    load = load_catalog().workloads["coding_agent"]
    five, hour = cache_checks(SONNET, load, ApiTerms(as_of=DAY))
    assert (five.policy, hour.policy) == ("5m", "1h")
    assert five.usd_per_request_published == pytest.approx(0.0788, abs=5e-5)
    assert five.usd_per_request_simulated < 0.0788
    found = compare(CATALOG, load, plan(), None, options=CompareOptions(as_of=DAY), generated_at=NOON)
    assert found.baseline.usd_per_request == pytest.approx(0.0715, abs=5e-5)
    assert {line.id for line in found.assumptions} >= {"cache_check_5m", "cache_check_1h"}


def test_a_cache_too_small_for_the_sessions_is_said_with_both_numbers() -> None:
    """10 requests/s of 0.4 s + 440 * 20 ms and a mean gap of 80.2 s need 894; 4,000,000 tokens hold 32.7."""
    load = load_catalog().workloads["coding_agent"]
    found = compare(
        CATALOG, load, plan(rate=10.0), None, options=CompareOptions(as_of=DAY), generated_at=NOON
    )
    idle = found.idle_sessions
    assert idle is not None
    assert idle.needed == pytest.approx(10 * (80.16 + 0.4 + 440 * 0.020), rel=1e-3)
    assert idle.held == pytest.approx(4_000_000 / 122_379)
    assert any("894 sessions" in said and "holds 32.7" in said for said in found.verdict.cautions)
    assert found.verdict.choice == "self_host"
    assert found.verdict.confidence == "low"
    slow = compare(CATALOG, load, plan(rate=0.1), None, options=CompareOptions(as_of=DAY), generated_at=NOON)
    assert not any("sessions kept" in said for said in slow.verdict.cautions)
    unknown = compare(
        CATALOG, CODING_AGENT, plan(), None, options=CompareOptions(as_of=DAY), generated_at=NOON
    )
    assert unknown.idle_sessions is None


def test_missed_prefixes_are_prefilled_again_in_the_tornado_and_the_band() -> None:
    """At 96.3 % hits 4,528 tokens are fresh; at 96.3 % * 32.7 / 894 it is 118,069."""
    load = load_catalog().workloads["coding_agent"]
    found = compare(
        CATALOG, load, plan(rate=10.0), None, options=CompareOptions(as_of=DAY), generated_at=NOON
    )
    row = next(row for row in found.sensitivity if row.id == "own_prefix_hits")
    assert row.low == pytest.approx(0.963 * 32.69 / 893.6, rel=1e-3)
    assert found.scenario is not None
    weight = 8.0  # an output token's price in input tokens at both hosts
    work = [122_379 * (1 - hit) + weight * 440 for hit in (row.value, row.low)]
    moved = own_prefix_hits(row.value, row.low, 122_379 * 0.037 / work[0], "").apply(found.scenario, row.low)
    ratio = found.scenario.requests_per_s_per_node / moved.requests_per_s_per_node
    assert ratio == pytest.approx(work[1] / work[0])
    saved = row.saving_at_low
    assert saved < row.saving_at_high
    roomy = compare(CATALOG, load, plan(rate=0.1), None, options=CompareOptions(as_of=DAY), generated_at=NOON)
    assert "own_prefix_hits" not in {row.id for row in roomy.sensitivity}

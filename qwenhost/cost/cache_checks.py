"""Two checks of a published cache share: simulated session gaps, and whether our own cache can hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cost.api_cost import api_cost
from qwenhost.cost.api_lines import sold_terms, under_policy
from qwenhost.cost.prompt_cache import CacheCheck, IdleSessions, drawn_sessions, mean_gap_s, simulate_cache
from qwenhost.cost.usage import CACHE_TTL_S, CachePolicy, prefix_hit

if TYPE_CHECKING:
    from qwenhost.cost.api_lines import ApiTerms
    from qwenhost.cost.scenario import Scenario
    from qwenhost.facts import ApiPrice, Workload
    from qwenhost.measurements import Measurements
    from qwenhost.plan import Plan


def cache_checks(price: ApiPrice, workload: Workload, terms: ApiTerms) -> tuple[CacheCheck, ...]:
    """Every lifetime the API sells, where the workload publishes its gaps; else nothing."""
    turns = drawn_sessions(workload)
    if not turns or price.cache is None:
        return ()
    batch, residency, _ = sold_terms(price, terms)
    found = []
    policies: tuple[CachePolicy, ...] = ("5m", "1h")
    for policy in policies:
        if CACHE_TTL_S[policy] not in price.cache.ttl_s:
            continue
        traffic = simulate_cache(turns, price.cache, policy)
        published = prefix_hit(workload, policy)
        simulated = under_policy(price, workload, terms, policy, hit=traffic.hit)
        as_published = None if published is None else under_policy(price, workload, terms, policy)
        bill = api_cost(price, simulated.usage, as_of=terms.as_of, batch=batch, residency=residency)
        found.append(
            CacheCheck(
                policy=policy,
                published_hit=published,
                simulated_hit=traffic.hit,
                simulated_expired=traffic.expired,
                usd_per_request_published=as_published.breakdown.total if as_published else None,
                usd_per_request_simulated=bill.total,
                requests=traffic.requests,
            )
        )
    return tuple(found)


def idle_sessions(
    plan: Plan,
    workload: Workload,
    scenario: Scenario,
    measured: Measurements | None,
    *,
    requests_per_day: float,
) -> IdleSessions | None:
    """What the published share asks of one node's cache; None without gaps, a share or prefix caching."""
    gap_s = mean_gap_s(workload)
    cached = plan.chosen.engine_args.enable_prefix_caching and workload.prefix_hit_unbounded
    if gap_s is None or not cached:
        return None
    estimate = plan.chosen.estimate
    e2e_ms = (
        measured.e2e_ms.mean
        if measured is not None and measured.e2e_ms.mean
        else estimate.ttft_ms.value + estimate.tpot_ms.value * workload.output_tokens.mean
    )
    nodes = scenario.serving_nodes(requests_per_day)
    rate = requests_per_day / nodes / scenario.requests_per_day_per_node * scenario.requests_per_s_per_node
    tokens = plan.chosen.kv_cache.tokens * plan.chosen.parallelism.serving_groups
    return IdleSessions(
        requests_per_s=rate,
        gap_s=gap_s,
        end_to_end_s=e2e_ms / 1000,
        mean_prompt_tokens=workload.input_tokens.mean,
        cache_tokens=tokens,
        needed=rate * (gap_s + e2e_ms / 1000),
        held=tokens / workload.input_tokens.mean,
    )

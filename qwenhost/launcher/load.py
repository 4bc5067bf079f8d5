"""What an engine does right now and what it has cost so far, from two readings of its ``/metrics``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from qwenhost.facts import Value

_NUMBER: Final = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|Inf|NaN)"
_LINE: Final = re.compile(rf"^(vllm:\w+?)(?:_total)?(?:\{{(.*?)\}})? ({_NUMBER})$", re.MULTILINE)
_BUCKET: Final = re.compile(rf'(?:^|,)le="({_NUMBER})"')
_HISTOGRAMS: Final = {
    "ttft": "vllm:time_to_first_token_seconds",
    "inter_token": "vllm:inter_token_latency_seconds",
    "e2e": "vllm:e2e_request_latency_seconds",
}


class Reading(Value, frozen=True, kw_only=True):
    """One scrape, summed over engines."""

    at_s: float
    """Of any clock that only goes forward."""
    values: Mapping[str, float]
    """Gauges and counters, without ``_total``."""
    buckets: Mapping[str, Mapping[float, float]]
    """Cumulative counts by upper bound, by histogram."""

    def value(self, name: str) -> float:
        """0 where the engine does not tell."""
        return self.values.get(f"vllm:{name}", 0.0)


class Bill(Value, frozen=True, kw_only=True):
    """What the tokens since the engine's start cost here, and what they would have cost elsewhere."""

    hours: float
    usd_per_hour: float | None
    """Rent of the plan; None where the plan has no price."""
    prompt_mtok: float
    generation_mtok: float
    api_name: str
    api_usd_per_mtok_input: float
    api_usd_per_mtok_output: float

    @property
    def usd(self) -> float | None:
        """Rent so far."""
        return None if self.usd_per_hour is None else self.usd_per_hour * self.hours

    @property
    def usd_per_mtok(self) -> float | None:
        """Rent so far by million tokens of either kind; None before the first."""
        tokens = self.prompt_mtok + self.generation_mtok
        return None if self.usd is None or not tokens else self.usd / tokens

    @property
    def api_usd(self) -> float:
        """The same tokens at the API's list rates, without its cache."""
        return (
            self.prompt_mtok * self.api_usd_per_mtok_input
            + self.generation_mtok * self.api_usd_per_mtok_output
        )  # fmt: skip

    @property
    def api_usd_per_mtok(self) -> float | None:
        """The same by million tokens of either kind; None before the first."""
        tokens = self.prompt_mtok + self.generation_mtok
        return self.api_usd / tokens if tokens else None


class Load(Value, frozen=True, kw_only=True):
    """Between two readings."""

    seconds: float
    running: int
    waiting: int
    kv_cache_usage: float
    """0 to 1."""
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    requests_per_s: float
    prefix_hit: float | None
    """Share of prompt tokens found in the cache; None without requests."""
    latency_s: Mapping[str, Mapping[str, float]]
    """``p50`` and ``p90`` of ``ttft``, ``inter_token``, ``e2e``; absent without requests."""


def read_metrics(text: str, at_s: float) -> Reading:
    """Vllm's lines of a scrape."""
    values: dict[str, float] = {}
    buckets: dict[str, dict[float, float]] = {}
    for name, labels, number in _LINE.findall(text):
        if name.endswith("_bucket"):
            if bound := _BUCKET.search(labels):
                row = buckets.setdefault(name.removesuffix("_bucket"), {})
                row[float(bound[1])] = row.get(float(bound[1]), 0.0) + float(number)
        else:
            values[name] = values.get(name, 0.0) + float(number)
    return Reading(at_s=at_s, values=values, buckets=buckets)


def load_between(before: Reading, after: Reading) -> Load:
    """What went on; after a restart of the engine the counters begin anew, and so does this."""
    if after.value("generation_tokens") < before.value("generation_tokens"):
        before = Reading(at_s=before.at_s, values={}, buckets={})
    seconds = max(after.at_s - before.at_s, 1e-9)

    def moved(name: str) -> float:
        return after.value(name) - before.value(name)

    queries = moved("prefix_cache_queries")
    latency = {
        label: {f"p{q:g}": quantile(counts, q / 100) for q in (50, 90)}
        for label, name in _HISTOGRAMS.items()
        if (counts := _moved_buckets(before, after, name))
    }
    return Load(
        seconds=seconds,
        running=round(after.value("num_requests_running")),
        waiting=round(after.value("num_requests_waiting")),
        kv_cache_usage=after.value("kv_cache_usage_perc"),
        prompt_tokens_per_s=moved("prompt_tokens") / seconds,
        generation_tokens_per_s=moved("generation_tokens") / seconds,
        requests_per_s=moved("request_success") / seconds,
        prefix_hit=moved("prefix_cache_hits") / queries if queries else None,
        latency_s=latency,
    )


def quantile(counts: Mapping[float, float], q: float) -> float:
    """As Prometheus' ``histogram_quantile``: linear within a bucket; the last finite bound at most.

    Args:
        counts: cumulative, by upper bound, ``inf`` included; not empty.
        q: 0 to 1.
    """
    bounds = sorted(counts)
    wanted = q * counts[bounds[-1]]
    lower = below = 0.0
    for bound in bounds:
        if counts[bound] >= wanted:
            inside = counts[bound] - below
            if bound == float("inf") or not inside:
                return lower
            return lower + (bound - lower) * (wanted - below) / inside
        lower, below = bound, counts[bound]
    return lower


def _moved_buckets(before: Reading, after: Reading, name: str) -> dict[float, float]:
    earlier = before.buckets.get(name, {})
    moved = {bound: n - earlier.get(bound, 0.0) for bound, n in after.buckets.get(name, {}).items()}
    return moved if any(moved.values()) else {}

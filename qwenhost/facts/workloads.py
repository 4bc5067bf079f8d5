"""Workloads: what users send, and what they expect."""

from __future__ import annotations

from typing import Literal

from qwenhost.facts.base import Fraction, Percent, Positive, Share, Source, Value


class Slo(Value, frozen=True, kw_only=True):
    """A service level: limits at a percentile of requests."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    percentile: Percent = 90.0


class TokenStats(Value, frozen=True, kw_only=True):
    """Tokens per request."""

    mean: Positive
    p50: Positive | None = None
    p90: Positive | None = None
    p99: Positive | None = None


class Workload(Value, frozen=True, kw_only=True):
    """What the users send: sizes, reuse, rhythm and what they expect."""

    id: str
    description: str
    input_tokens: TokenStats
    """Whole prompt, cached prefix included, in Qwen3.5 tokens as measured by its source."""
    output_tokens: TokenStats
    """Thinking included."""
    prefix_hit_5m: Fraction | None = None
    """Share of input tokens found in a cache that forgets after 5 minutes; None = not published."""
    prefix_hit_1h: Fraction | None = None
    prefix_hit_unbounded: Fraction | None = None
    thinking_share: Fraction = 0.0
    """Share of output tokens spent thinking."""
    image_tokens: float = 0.0
    """Mean image tokens per request, part of ``input_tokens``."""
    requests_per_session: Positive = 1.0
    gap_s_p50: float | None = None
    """Median time between two requests of a session; None = not published."""
    gap_s_p95: float | None = None
    content: Literal["prose", "code", "other"] = "other"
    mean_over_peak: Share | None = None
    """Mean demand over peak demand; None = take the catalog's default for the kind of service."""
    slo: Slo
    synthetic: bool = False
    licence: str = ""
    source: Source

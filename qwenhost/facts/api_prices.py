"""Price sheets of hosted models, with the rules by which they bill."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Literal

from qwenhost.facts.base import Source, Value


class TokenRates(Value, frozen=True, kw_only=True):
    """USD per million tokens, by bucket."""

    input: float
    output: float
    cache_write_5m: float | None = None
    cache_write_1h: float | None = None
    cache_read: float | None = None
    """None: no cached-input price is published; cached tokens are billed as input."""


class RatePeriod(Value, frozen=True, kw_only=True):
    """Rates that held between two dates (both inclusive; None = open)."""

    since: dt.date | None = None
    until: dt.date | None = None
    usd_per_mtok: TokenRates
    long_context_threshold_tokens: int | None = None
    """Input tokens above which ``long_context_usd_per_mtok`` applies to the whole request."""
    long_context_usd_per_mtok: TokenRates | None = None
    source: Source


class CacheRules(Value, frozen=True, kw_only=True):
    """Prompt-cache mechanics of an API."""

    min_prefix_tokens: int
    ttl_s: tuple[int, ...]
    read_refreshes_ttl: bool
    max_breakpoints: int = 4


class ImageRule(Value, frozen=True, kw_only=True):
    """Image tokens = ceil(w/patch) * ceil(h/patch) after downscaling to the limits."""

    patch_px: int
    max_long_edge_px: int
    max_tokens: int


class TokenizerRatio(Value, frozen=True, kw_only=True):
    """Tokens this API counts for the same text, per Qwen3.5 token, by content."""

    prose: float
    prose_low: float
    prose_high: float
    code: float
    code_low: float
    code_high: float
    other: float = 1.0
    source: Source


class RateLimit(Value, frozen=True, kw_only=True):
    """A usage tier's limits."""

    tier: str
    requests_per_minute: int
    input_tokens_per_minute: int
    output_tokens_per_minute: int
    spend_cap_usd_per_month: float | None = None


class ApiPrice(Value, frozen=True, kw_only=True):
    """A hosted model's price sheet."""

    id: str
    name: str
    kind: Literal["claude", "hosted_qwen", "other"]
    provider: str
    model: str
    periods: tuple[RatePeriod, ...]
    batch_multiplier: float | None = None
    residency_multiplier: Mapping[str, float] = {}
    cache: CacheRules | None = None
    image: ImageRule | None = None
    tool_system_prompt_tokens: Mapping[str, int] = {}
    fees_usd: Mapping[str, float] = {}
    """Per-request fees by name, e.g. ``web_search_per_1000``."""
    tokenizer: TokenizerRatio | None = None
    """None: same tokenizer as Qwen3.5."""
    rate_limits: tuple[RateLimit, ...] = ()
    context_tokens: int
    max_output_tokens: int | None = None
    baseline: bool = False
    """Whether ``compare`` uses it unless told otherwise."""
    caveats: tuple[str, ...] = ()
    source: Source

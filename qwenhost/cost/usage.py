"""What one request uses, in the buckets an API bills: uncached, written, read, output, searches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from qwenhost.facts import Value

if TYPE_CHECKING:
    from qwenhost.facts import CacheRules, Workload

CachePolicy = Literal["none", "5m", "1h"]
CACHE_TTL_S: Final[dict[CachePolicy, int]] = {"none": 0, "5m": 300, "1h": 3600}


class Usage(Value, frozen=True, kw_only=True):
    """Tokens and events of one request (or their mean), in the billing API's own tokens."""

    uncached_input_tokens: float = 0.0
    cache_write_5m_tokens: float = 0.0
    cache_write_1h_tokens: float = 0.0
    cache_read_tokens: float = 0.0
    output_tokens: float = 0.0
    """Thinking included: it is billed as output."""
    web_searches: float = 0.0
    batch: bool = False
    inference_geo: str | None = None
    long_context: bool | None = None
    """Where a sum of many requests says so itself; None = by the prompt's length."""

    @property
    def prompt_tokens(self) -> float:
        """The whole prompt; long-context rules look at this."""
        return self.uncached_input_tokens + self.cache_write_tokens + self.cache_read_tokens

    @property
    def cache_write_tokens(self) -> float:
        """Written to a cache of either lifetime."""
        return self.cache_write_5m_tokens + self.cache_write_1h_tokens

    def scaled(self, tokens: float, *, output: float = 1.0) -> Usage:
        """All tokens times ``tokens``, output times ``output`` on top."""
        return msgspec.structs.replace(
            self,
            uncached_input_tokens=self.uncached_input_tokens * tokens,
            cache_write_5m_tokens=self.cache_write_5m_tokens * tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens * tokens,
            cache_read_tokens=self.cache_read_tokens * tokens,
            output_tokens=self.output_tokens * tokens * output,
        )

    def with_cache(self, policy: CachePolicy) -> Usage:
        """The same tokens under another policy: none bills all as input, 5m and 1h move the writes."""
        written, read, plain = self.cache_write_tokens, self.cache_read_tokens, self.uncached_input_tokens
        if policy == "none":
            written, read, plain = 0.0, 0.0, self.prompt_tokens
        return msgspec.structs.replace(
            self,
            uncached_input_tokens=plain,
            cache_write_5m_tokens=written if policy == "5m" else 0.0,
            cache_write_1h_tokens=written if policy == "1h" else 0.0,
            cache_read_tokens=read,
        )


def prefix_hit(workload: Workload, policy: CachePolicy) -> float | None:
    """Published share of input tokens that a cache of this lifetime serves; None = not published."""
    return {"none": 0.0, "5m": workload.prefix_hit_5m, "1h": workload.prefix_hit_1h}[policy]


def workload_usage(
    workload: Workload,
    policy: CachePolicy,
    cache: CacheRules | None,
    *,
    added_tokens: float = 0.0,
    hit: float | None = None,
) -> Usage:
    """The mean request of a workload under a caching policy.

    With caching, ``hit`` of the prompt is read and the rest is written (the next turn of the session
    reads it); nothing is billed as plain input. Without a published hit share, a cache, the TTL or the
    minimum prefix, all of it is plain input.

    Args:
        workload: sizes and published hit shares.
        policy: lifetime of the cache.
        cache: the API's cache mechanics; None = no cache.
        added_tokens: to the prompt, in the workload's tokens: the API's own tool prompt.
        hit: share to use in place of the published one.
    """
    prompt = workload.input_tokens.mean + added_tokens
    share = prefix_hit(workload, policy) if hit is None else hit
    caches = (
        policy != "none"
        and cache is not None
        and CACHE_TTL_S[policy] in cache.ttl_s
        and prompt >= cache.min_prefix_tokens
        and share is not None
    )
    if not caches or share is None:
        return Usage(uncached_input_tokens=prompt, output_tokens=workload.output_tokens.mean)
    written = prompt * (1 - share)
    return Usage(
        cache_read_tokens=prompt * share,
        cache_write_5m_tokens=written if policy == "5m" else 0.0,
        cache_write_1h_tokens=written if policy == "1h" else 0.0,
        output_tokens=workload.output_tokens.mean,
    )

"""What a request carries beside its text: tools, pictures, searches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from qwenhost.cost.api_cost import image_tokens
from qwenhost.facts import ImageRule, TokenStats, Value, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.facts import ApiPrice

Size = tuple[int, int]
"""Width and height in pixels."""
QWEN_PATCH_PX: Final = 32
"""16-pixel patches merged two by two; vLLM counts a token for each (``tests/e2e/test_claude_clients.py``)."""
QWEN_IMAGE_TOKENS: Final = (64, 16_384)
"""Least and most of the processor that comes with the weights (65,536 and 16,777,216 pixels)."""
_TOOL_PROMPTS: Final = {"auto": "auto_or_none", "any": "any_or_tool"}


class Extras(Value, frozen=True, kw_only=True):
    """Of every request."""

    tools: Literal["auto", "any"] | None = None
    """The API adds its own tool prompt: its length depends on whether a call is forced."""
    images: tuple[Size, ...] = ()
    web_searches: float = 0.0

    def own_tokens(self, price: ApiPrice) -> float:
        """Tokens that this API adds to the prompt, in its own count."""
        tools = price.tool_system_prompt_tokens.get(_TOOL_PROMPTS[self.tools], 0) if self.tools else 0
        rule = price.image
        return float(tools + (sum(image_tokens(rule, *size) for size in self.images) if rule else 0))

    def remarks(self, price: ApiPrice) -> list[str]:
        """What this API does not publish."""
        found = []
        claude = price.kind == "claude"
        if claude and self.tools and _TOOL_PROMPTS[self.tools] not in price.tool_system_prompt_tokens:
            found.append("no length of its tool prompt is published: none is added")
        if self.images and price.image is None:
            found.append("no rule for images is published: billed at Qwen's count")
        if self.web_searches and "web_search_per_1000" not in price.fees_usd:
            found.append("sells no web search: searches are not in this bill")
        return found


def qwen_image_tokens(sizes: Sequence[Size]) -> float:
    """Tokens of pictures in Qwen's own count."""
    least, most = QWEN_IMAGE_TOKENS
    rule = ImageRule(patch_px=QWEN_PATCH_PX, max_long_edge_px=10**9, max_tokens=most)
    return float(sum(max(least, image_tokens(rule, *size)) for size in sizes))


def with_images(workload: Workload, sizes: Sequence[Size]) -> Workload:
    """The workload with these pictures in every request."""
    added = qwen_image_tokens(sizes)
    if not added:
        return workload
    mean = workload.input_tokens.mean + added
    return msgspec.structs.replace(
        workload, input_tokens=TokenStats(mean=mean), image_tokens=workload.image_tokens + added
    )

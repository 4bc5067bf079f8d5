"""Tools, pictures and searches: what each side counts by itself."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from cost_samples import CATALOG, CHAT, CHEAP, DAY, NOON, SONNET, plan

from qwenhost.cli.main import run
from qwenhost.cost import ApiTerms, CompareOptions, Extras, compare, price_request, with_images
from qwenhost.cost.extras import qwen_image_tokens
from qwenhost.facts import ImageRule

SEES = msgspec.structs.replace(SONNET, image=ImageRule(patch_px=28, max_long_edge_px=1568, max_tokens=1568))


def usage(price: Any, load: Any, extras: Extras, **terms: Any) -> Any:
    """The mean request as billed, without a cache."""
    return price_request(price, load, ApiTerms(as_of=DAY, cache="none", extras=extras, **terms)).usage


def test_tool_prompts_are_in_the_apis_own_tokens() -> None:
    """497 or 589 tokens, whatever the ratio of the text; hosted Qwen adds none."""
    plain = usage(SONNET, CHAT, Extras(), token_ratio=1.2).prompt_tokens
    assert plain == pytest.approx(1155 * 1.2)
    assert usage(SONNET, CHAT, Extras(tools="auto"), token_ratio=1.2).prompt_tokens == pytest.approx(
        plain + 497
    )
    assert usage(SONNET, CHAT, Extras(tools="any"), token_ratio=1.2).prompt_tokens == pytest.approx(
        plain + 589
    )
    assert usage(CHEAP, CHAT, Extras(tools="any")).prompt_tokens == pytest.approx(1155)


def test_each_side_counts_a_picture_its_own_way() -> None:
    """1,000 x 1,000: 32 x 32 patches of 32 pixels are 1,024 for Qwen, 36 x 36 of 28 are 1,296 for Claude."""
    sizes = ((1000, 1000),)
    assert qwen_image_tokens(sizes) == 1024
    load = with_images(CHAT, sizes)
    assert (load.input_tokens.mean, load.image_tokens) == (1155 + 1024, 1024)
    extras = Extras(images=sizes)
    assert usage(SEES, load, extras, token_ratio=1.2).prompt_tokens == pytest.approx(1155 * 1.2 + 1296)
    assert usage(CHEAP, load, extras).prompt_tokens == pytest.approx(1155 + 1024)
    blind = price_request(SONNET, load, ApiTerms(as_of=DAY, cache="none", extras=extras))
    assert "no rule for images is published" in " ".join(blind.remarks)


@pytest.mark.parametrize(
    ("size", "tokens"), [((32, 32), 64), ((1920, 1080), 60 * 34), ((20_000, 20_000), 16_384)]
)
def test_qwens_least_and_most(size: tuple[int, int], tokens: int) -> None:
    """Small pictures are enlarged to 64 tokens, large ones shrunk to at most 16,384."""
    assert qwen_image_tokens([size]) == pytest.approx(tokens, rel=0.01)


def test_searches_cost_their_fee_and_are_said() -> None:
    """Two at 10 USD a thousand; hosted Qwen sells none, and self-hosting needs its own."""
    options = CompareOptions(as_of=DAY, requests_per_day=10_000, extras=Extras(web_searches=2.0))
    found = compare(CATALOG, CHAT, plan(), None, options=options, generated_at=NOON)
    assert found.baseline.breakdown.fees == pytest.approx(0.02)
    assert any("search service of its own" in caution for caution in found.verdict.cautions)
    hosted = next(line for line in found.api if line.kind == "hosted_qwen")
    assert hosted.breakdown.fees == 0
    assert any("sells no web search" in remark for remark in hosted.remarks)


def test_the_commands_take_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Sonnet sees 1,560 tokens in full HD; the plan sees the 2,040 of Qwen and keeps its eyes."""
    words = [
        "--workload",
        "chat",
        "--image",
        "1920x1080",
        "--tools",
        "auto",
        "--as-of",
        "2026-11-23",
        "--json",
    ]
    assert run(["cost", *words]) == 0
    line = json.loads(capsys.readouterr().out)["api"][0]
    assert line["usage"]["uncached_input_tokens"] == pytest.approx(1155 + 1560 + 497, rel=0.01)
    assert run(["compare", "--gpus", "2xH200", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workload"]["image_tokens"] == pytest.approx(2040)
    assert "--language-model-only" not in found["plan"]["vllm_argv"]


@pytest.mark.parametrize("size", ["big", "0x10", "10", "-1x5", "100000x1"])
def test_a_size_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], size: str) -> None:
    """With how to write one."""
    assert run(["cost", "--image", size]) == 2
    assert "--image 1920x1080" in capsys.readouterr().err

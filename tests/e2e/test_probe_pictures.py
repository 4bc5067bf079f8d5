"""``probe --images`` and real vLLM with its vision tower: pictures arrive, and are counted to the token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.facts import TokenStats
from qwenhost.probe import ProbeConfig, run_probe

if TYPE_CHECKING:
    from qwenhost.probe.endpoints import Endpoint

    from .conftest import Serve, Served

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

# The tiny model takes a token for each 32 x 32 pixels (patches of 16, merged 2 by 2), and its template
# puts <|vision_start|> and <|vision_end|> around each picture; vLLM joins a message's parts by a line
# break, one token after each picture. 64 x 64 pixels are 4 + 2 + 1 tokens.
AROUND = 2 + 1
TOKENS_OF_64_BY_64 = 4 + AROUND


@pytest.fixture(scope="module")
def seeing(serve: Serve) -> Served:
    served = serve("--extra-arg", "--no-language-model-only", name="seeing")
    served.wait_for(lambda state: state.status == "ready")
    return served


@pytest.mark.parametrize("endpoint", ["chat", "responses", "messages"])
def test_pictures_are_prompt_tokens_in_every_dialect(seeing: Served, endpoint: Endpoint) -> None:
    """Two pictures of 64 x 64 pixels are 14 tokens; prompt counts add up to vLLM's own counter."""
    config = ProbeConfig(
        url=seeing.base_url, endpoint=endpoint, images=2, image_size="64x64", concurrency=2, requests=4,
        warmup=1, input_tokens=TokenStats(mean=200), output_tokens=TokenStats(mean=4), timeout_s=120.0,
    )  # fmt: skip
    result = run_probe(config)
    measured = result.measurements
    assert measured.requests.by_error == {}
    assert measured.workload.image_tokens == 2 * TOKENS_OF_64_BY_64
    prompt_tokens = sum(record.input_tokens for record in result.records)
    assert measured.engine_counters["prompt_tokens"] == prompt_tokens
    # The words alone were fitted to 200 tokens.
    assert prompt_tokens / 4 == pytest.approx(200 + 2 * TOKENS_OF_64_BY_64, rel=0.15)


def test_a_larger_picture_is_more_tokens(seeing: Served) -> None:
    """128 x 96 pixels: 4 x 3 tokens and what stands around them."""
    config = ProbeConfig(
        url=seeing.base_url, images=1, image_size="128x96", concurrency=1, requests=2, warmup=0,
        input_tokens=TokenStats(mean=60), output_tokens=TokenStats(mean=2), timeout_s=120.0,
    )  # fmt: skip
    assert run_probe(config).measurements.workload.image_tokens == 4 * 3 + AROUND
